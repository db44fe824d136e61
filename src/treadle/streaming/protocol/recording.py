"""From what a command's graph streams (langgraph's v3 events) to entries of the event log."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import Any, cast

from langchain_core.messages import ToolMessage
from langgraph.stream import StreamTransformer
from langgraph.types import Command, Interrupt
from pydantic import BaseModel

from treadle.serialization import dumps, dumps_brief
from treadle.streaming.protocol.envelope import (
    ENDS,
    INPUT_REQUESTED,
    INTERRUPT,
    PROTOCOL,
    Emission,
    checkpoint_param,
    named,
)

Json = dict[str, Any]
Namespace = tuple[str, ...]
Emit = Callable[[Emission], None]


class Recorder:
    """The events of one run that a command has started.

    Give ``tap`` to ``astream_events`` as a transformer, and each event that comes out of it to
    ``see``; ``finish`` when none is left. ``emit`` gets what goes into the log. ``start`` gives
    the checkpoint that the run began from. With ``tasks``, those of the graph are told too.
    ``waits`` says whether nodes are left to run, where the graph has been stopped.

    The values at which a graph pauses come at its end, when all interrupts were told of, unless
    newer ones have come.
    """

    def __init__(self, emit: Emit, start: Callable[[], str | None]) -> None:
        self.tasks = False
        self.waits = False
        self._asked: set[str] = set()
        self._emit, self._start = emit, start
        self._has_tap = False
        self._names: dict[Namespace, str | None] = {}
        self._checkpoints: dict[Namespace, bytes] = {}
        self._held: tuple[Namespace, Any] | None = None
        self._paused: dict[Namespace, Any] = {}
        self._see: dict[str, Callable[[Namespace, Any], None]] = {
            "messages": self._message,
            "updates": self._updates,
            "custom": self._custom,
            "tools": self._tool,
            "lifecycle": self._lifecycle,
            "tasks": self._ignore,
            "checkpoints": self._ignore,
            "debug": self._ignore,
        }

    # -- what comes out of the graph's stream ----------------------------------------------

    def see(self, event: Any) -> None:
        """Take an event of the graph's stream."""
        method: str = event["method"]
        params = event["params"]
        namespace = tuple(params["namespace"])
        if method == "values":
            self._release()
            interrupts = params.get("interrupts") or ()
            for interrupt in interrupts:
                self._ask(namespace, interrupt)
            self._paused.pop(namespace, None)
            if interrupts:
                self._paused[namespace] = params["data"]
            else:
                self._held = namespace, params["data"]
        elif (take := self._see.get(method)) is not None:
            take(namespace, params["data"])
        else:  # a channel of a transformer
            name = method.removeprefix("custom:")
            data = dumps({"name": name, "payload": params["data"]})
            self._emit(Emission(named("custom", namespace), data, PROTOCOL, True, name))

    def finish(self) -> None:
        """No more events come."""
        self._release()
        for namespace in sorted(self._paused, key=len, reverse=True):
            self._release_paused(namespace)

    def children_left(self, event: str, error: str | None) -> Iterator[Emission]:
        """The ends of graphs in the run that have begun and not ended, innermost first."""
        for namespace in sorted(self._names, key=len, reverse=True):
            yield self._child_end(namespace, event, error)
        self._names.clear()

    def _ask(self, namespace: Namespace, interrupt: Interrupt) -> None:
        """Tell of an interrupt, as the graph has it that it is from: those above show it too."""
        if interrupt.id not in self._asked:
            self._asked.add(interrupt.id)
            self._emit(interrupt_emission(namespace, interrupt))

    def _message(self, namespace: Namespace, data: Any) -> None:
        payload, _ = data
        if isinstance(payload, dict):  # whole messages, of nodes without a model, are in values
            self._emit(Emission(named("messages", namespace), dumps(payload), PROTOCOL, True))

    def _updates(self, namespace: Namespace, data: Any) -> None:
        if nodes := {node: update for node, update in data.items() if node != INTERRUPT}:
            self._emit(Emission(named("updates", namespace), dumps_brief(nodes), numbered=True))

    def _custom(self, namespace: Namespace, data: Any) -> None:
        name = cast("Json", data).get("name") if isinstance(data, dict) else None
        label = name if isinstance(name, str) else ""
        emission = Emission(named("custom", namespace), dumps(data), numbered=True, label=label)
        self._emit(emission)

    def _tool(self, namespace: Namespace, data: Any) -> None:
        self._emit(Emission(named("tools", namespace), dumps(data), PROTOCOL, True))
        if data.get("event") == "tool-finished":
            message = _tool_message(data.get("output"), data["tool_call_id"])
            if message is not None:
                name = named("messages", (*namespace, f"tools:{data['tool_call_id']}"))
                for step in _steps(message, data["tool_call_id"]):
                    self._emit(Emission(name, dumps(step), PROTOCOL, True))

    def _lifecycle(self, _: Namespace, data: Any) -> None:
        namespace, event = tuple(data["namespace"]), data["event"]
        if event == "started":
            self._names[namespace] = data.get("graph_name")
            self._emit(
                Emission(named("lifecycle", namespace), dumps(data), PROTOCOL, True, "started")
            )
        elif event in ENDS and namespace in self._names:
            self._release_paused(namespace)
            self._emit(self._child_end(namespace, event, data.get("error")))
            del self._names[namespace]

    def _child_end(self, namespace: Namespace, event: str, error: str | None) -> Emission:
        told: Json = {"event": event}
        if (name := self._names.get(namespace)) is not None:
            told["graph_name"] = name
        if error is not None:
            told["error"] = error
        return Emission(named("lifecycle", namespace), dumps(told), PROTOCOL, True, event)

    def _ignore(self, namespace: Namespace, data: Any) -> None:
        """What comes by way of the tap, or has no channel."""

    # -- values and their checkpoints ------------------------------------------------------

    def tap(self, scope: Namespace) -> StreamTransformer:
        """A transformer that sees what langgraph's own keep from the stream."""
        watches, self._has_tap = not self._has_tap, True
        return _Tap(scope, self._tapped if watches else None)

    def _tapped(self, event: Any) -> None:
        """A part of the graph's stream, before anything is made of it.

        The checkpoint of values comes right after them, so they wait for one part.
        """
        method: str = event["method"]
        if method == "checkpoints":
            namespace, data = tuple(event["params"]["namespace"]), event["params"]["data"]
            self._checkpoints[namespace] = dumps(_checkpoint(data))
            if not namespace:
                self.waits = bool(data["next"])
        if self._held is not None:
            self._release()
        if method == "tasks" and self.tasks:
            params = event["params"]
            name = named("tasks", params["namespace"])
            self._emit(Emission(name, dumps(params["data"]), numbered=True))

    def _release(self) -> None:
        if self._held is None:
            return
        (namespace, values), self._held = self._held, None
        self._values(namespace, values)

    def _release_paused(self, namespace: Namespace) -> None:
        if namespace in self._paused:
            self._values(namespace, self._paused.pop(namespace))

    def _values(self, namespace: Namespace, values: Any) -> None:
        checkpoint = self._checkpoints.get(namespace)
        if checkpoint is None and not namespace and (start := self._start()) is not None:
            checkpoint = dumps({"id": start})
        params = b"" if checkpoint is None else checkpoint_param(checkpoint)
        name = named("values", namespace)
        data = dumps_brief(state_json(values))
        self._emit(Emission(name, data, numbered=True, params=params))


class _Tap(StreamTransformer):
    """Shows each part of a graph's stream to ``see``; copies for subgraphs show nothing."""

    before_builtins = True
    required_stream_modes = ("tasks", "checkpoints")

    def __init__(self, scope: Namespace, see: Callable[[Any], None] | None) -> None:
        super().__init__(scope)
        self._show = see

    def init(self) -> Json:
        return {}

    def process(self, event: Any) -> bool:
        if self._show is not None:
            self._show(event)
        return True


def state_json(values: Any) -> Any:
    """A graph's state as an object, of what is set in it, whatever class the state is of."""
    if isinstance(values, BaseModel):
        return {name: value for name, value in values if name in values.model_fields_set}
    if dataclasses.is_dataclass(values) and not isinstance(values, type):
        return {field.name: getattr(values, field.name) for field in dataclasses.fields(values)}
    return values


def _checkpoint(data: Json) -> Json:
    """A checkpoint in a few words: where to fork from, and what it came from."""
    found = {"id": data["config"]["configurable"]["checkpoint_id"]}
    parent = data.get("parent_config")
    if parent is not None and (parent_id := parent["configurable"].get("checkpoint_id")):
        found["parent_id"] = parent_id
    metadata = data.get("metadata") or {}
    return {**found, **{key: metadata[key] for key in ("step", "source") if key in metadata}}


def interrupt_emission(namespace: Sequence[str], interrupt: Interrupt) -> Emission:
    """The request for the answer to an interrupt.

    The protocol calls its value ``payload``, the Python SDK reads ``value``.
    """
    data = {
        "interrupt_id": interrupt.id,
        "payload": interrupt.value,
        "value": interrupt.value,
    }
    name = named(INPUT_REQUESTED, namespace)
    return Emission(name, dumps(data), PROTOCOL, True, interrupt.id, urgent=True)


# Tool results as messages -------------------------------------------------------------------------


def _tool_message(output: Any, tool_call_id: str) -> ToolMessage | None:
    """The message that a tool call came to, if it came to one."""
    if isinstance(output, ToolMessage):
        return output
    update = cast("Any", output.update) if isinstance(output, Command) else None
    messages: Any = cast("Json", update).get("messages") if isinstance(update, dict) else None
    for message in cast("list[Any]", messages) if isinstance(messages, list) else ():
        if isinstance(message, ToolMessage) and message.tool_call_id == tool_call_id:
            return message
    return None


def _steps(message: ToolMessage, tool_call_id: str) -> Iterator[Json]:
    yield {
        "event": "message-start",
        "role": "tool",
        "id": f"tool-{tool_call_id}",
        "tool_call_id": tool_call_id,
    }
    content: Any = message.content
    blocks: list[Any] = content if isinstance(content, list) else [content]
    for index, block in enumerate(blocks):
        yield from _block_steps(index, {"type": "text", "text": block} if isinstance(block, str)
                                else block)  # fmt: skip
    yield {"event": "message-finish", "metadata": {}}


def _block_steps(index: int, block: Json) -> Iterator[Json]:
    is_text = block.get("type") == "text"
    begin = {**block, "text": ""} if is_text else block
    yield {"event": "content-block-start", "index": index, "content": begin}
    if is_text:
        delta = {"type": "text-delta", "text": block.get("text", "")}
        yield {"event": "content-block-delta", "index": index, "delta": delta}
    yield {"event": "content-block-finish", "index": index, "content": block}
