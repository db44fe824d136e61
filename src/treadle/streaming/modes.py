"""The v1 stream modes: from what a graph streams to named events in JSON.

``GRAPH_MODES`` says which mode of langgraph feeds each mode of the API. ``Encoder`` turns what
langgraph emits, ``(namespace, mode, payload)``, into the events that a run's clients asked for.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, Literal, cast

from langchain_core.messages import BaseMessage, BaseMessageChunk, message_chunk_to_message

from treadle.serialization import dumps, fragment

StreamMode = Literal[
    "values",
    "messages",
    "messages-tuple",
    "tasks",
    "checkpoints",
    "updates",
    "events",
    "debug",
    "custom",
]

GRAPH_MODES: dict[str, str | None] = {
    "values": "values",
    "updates": "updates",
    "custom": "custom",
    "tasks": "tasks",
    "checkpoints": "checkpoints",
    "debug": "debug",
    "messages": "messages",
    "messages-tuple": "messages",
    "events": None,
}

ROOT_ONLY_EVENTS = ("metadata", "error")
_OWN_KEYS = ("langgraph_auth_", "langgraph_request_id", "__")

Event = tuple[str, bytes]


def graph_modes(modes: Iterable[str]) -> list[str]:
    """The modes in which langgraph has to stream for ``modes``."""
    found = {GRAPH_MODES[mode] for mode in modes} - {None}
    return sorted(cast("set[str]", found))


def matches(name: str, modes: frozenset[str]) -> bool:
    """Whether an event of this name belongs to one of ``modes``.

    The namespace does not count, nor does the part of ``messages/partial`` after the slash.
    """
    base = name.split("|", 1)[0].split("/", 1)[0]
    return base in modes or (base == "messages" and "messages-tuple" in modes)


class Encoder:
    """The events of one run, in the modes that its creator asked for."""

    def __init__(self, modes: Iterable[str]) -> None:
        self._modes = frozenset(modes)
        self._grown: dict[str, BaseMessage] = {}
        self._metadata: tuple[Any, Any] = (None, None)
        self._tuples = "messages-tuple" in self._modes

    def encode(self, namespace: tuple[str, ...], mode: str, payload: Any) -> Iterator[Event]:
        """The events of one part of a graph's stream."""
        if mode == "messages":
            if self._tuples:
                yield self._named("messages", namespace), self._pair(payload)
            elif "messages" in self._modes:
                yield from self._growing(*payload)
        elif mode in self._modes:
            if mode in ("checkpoints", "debug"):
                payload = _without_internals(mode, payload)
            yield self._named(mode, namespace), dumps(payload)

    @staticmethod
    def _named(mode: str, namespace: tuple[str, ...]) -> str:
        return "|".join((mode, *namespace)) if namespace else mode

    def _pair(self, payload: tuple[Any, dict[str, Any]]) -> bytes:
        """A token and its metadata, which are one object for all tokens of a model's answer."""
        message, metadata = payload
        if metadata is not self._metadata[0]:
            self._metadata = (metadata, fragment(dumps(metadata)))
        return dumps((message, self._metadata[1]))

    def _growing(self, message: BaseMessage, metadata: dict[str, Any]) -> Iterator[Event]:
        """The message so far, for each piece of it."""
        key = message.id or ""
        known = self._grown.get(key)
        if known is None:
            yield "messages/metadata", dumps({key: {"metadata": metadata}})
        if isinstance(message, BaseMessageChunk):
            grown = known + message if isinstance(known, BaseMessageChunk) else message
            self._grown[key] = cast("BaseMessage", grown)
            whole = message_chunk_to_message(grown)
            yield "messages/partial", dumps([whole])
        else:
            self._grown[key] = message
            yield "messages/complete", dumps([message])


def _without_internals(mode: str, payload: dict[str, Any]) -> dict[str, Any]:
    """A checkpoint's payload with configs as a client knows them."""
    if mode == "debug":
        if payload.get("type") != "checkpoint":
            return payload
        inner = _clean_checkpoint(payload["payload"])
        inner["checkpoint"] = _checkpoint_of(inner["config"])
        inner["parent_checkpoint"] = _checkpoint_of(inner["parent_config"])
        inner["tasks"] = [_with_checkpoint(task) for task in inner["tasks"]]
        return {**payload, "payload": inner}
    return _clean_checkpoint(payload)


def _clean_checkpoint(payload: dict[str, Any]) -> dict[str, Any]:
    cleaned = {
        **payload,
        "config": _clean_config(payload["config"]),
        "parent_config": _clean_config(payload["parent_config"]),
    }
    cleaned["tasks"] = [
        {**task, "state": _clean_config(task["state"])}
        if isinstance(task.get("state"), dict) and "configurable" in task["state"]
        else task
        for task in payload["tasks"]
    ]
    return cleaned


def _with_checkpoint(task: dict[str, Any]) -> dict[str, Any]:
    """A task whose subgraph is named by its checkpoint, as in a state."""
    state = task.get("state")
    if not isinstance(state, dict) or "configurable" not in state:
        return task
    shown = {key: value for key, value in task.items() if key != "state"}
    return {**shown, "checkpoint": _checkpoint_of(cast("dict[str, Any]", state))}


def _clean_config(config: dict[str, Any] | None) -> dict[str, Any] | None:
    if config is None:
        return None
    configurable = {
        key: value
        for key, value in config.get("configurable", {}).items()
        if not key.startswith(_OWN_KEYS)
    }
    return {**config, "configurable": configurable}


def _checkpoint_of(config: dict[str, Any] | None) -> dict[str, Any] | None:
    if config is None:
        return None
    configurable = config["configurable"]
    return {
        key: configurable[key]
        for key in ("thread_id", "checkpoint_ns", "checkpoint_id", "checkpoint_map")
        if key in configurable
    }
