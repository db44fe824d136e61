"""The commands that read a thread's states, or add to the newest."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from treadle.errors import Conflict, Invalid, NotFound, Refused
from treadle.ids import parse_id
from treadle.runs.answering import NoInterruptedRun
from treadle.serialization import excerpt
from treadle.streaming.protocol.envelope import SEPARATOR
from treadle.threads.models import StateUpdate

if TYPE_CHECKING:
    from treadle.graphs.registry import GraphRegistry
    from treadle.runs.service import RunService
    from treadle.streaming.protocol.commands import Context
    from treadle.threads.state import ThreadStates

Json = dict[str, Any]

DEFAULT_LIMIT = 10
LARGEST_LIMIT = 1000
ROLES = ("user", "system")


class UnknownNamespace(NotFound):
    """No graph has run under this namespace."""


class NotSupported(Refused):
    """The protocol has it, langgraph or this connection cannot do it; the message says why."""


class StateCommands:
    """``state.get``, ``state.listCheckpoints``, ``input.inject``."""

    def __init__(self, runs: RunService, states: ThreadStates, registry: GraphRegistry) -> None:
        self._runs, self._states, self._registry = runs, states, registry

    async def get(self, context: Context, params: Json) -> Json:
        """``state.get``: the values of the thread's state, or of one of its graphs'."""
        namespace = _namespace(params)
        keys = params.get("keys")
        if keys is not None and not _are_strings(keys):
            raise Invalid(f"keys must be an array of strings, not {excerpt(keys)}")
        await self._check_thread(context)
        try:
            state = await self._states.get(
                context.caller, context.thread_id, {"checkpoint_ns": namespace}
            )
        except NotFound as error:
            raise UnknownNamespace(str(error)) from None
        values = state["values"]
        if keys is not None and isinstance(values, dict):
            values = {key: value for key, value in values.items() if key in keys}
        result: Json = {"values": values}
        if (checkpoint := state["checkpoint"]) is not None:
            result["checkpoint"] = {
                "id": checkpoint["checkpoint_id"],
                "ns": checkpoint["checkpoint_ns"],
            }
        return result

    async def list_checkpoints(self, context: Context, params: Json) -> Json:
        """``state.listCheckpoints``: newest first."""
        namespace = _namespace(params)
        limit = params.get("limit", DEFAULT_LIMIT)
        if isinstance(limit, bool) or not isinstance(limit, int) or not 1 <= limit <= LARGEST_LIMIT:
            raise Invalid(f"limit must be an integer from 1 to {LARGEST_LIMIT}, not {limit!r}")
        before = _checkpoint_id(params.get("before"))
        await self._check_thread(context)
        states = await self._states.history(
            context.caller,
            context.thread_id,
            limit=limit,
            before=before or "",
            checkpoint={"checkpoint_ns": namespace},
        )
        return {"checkpoints": [_summary(state) for state in states]}

    async def inject(self, context: Context, params: Json) -> Json:
        """``input.inject``: add a message to the state of a thread that nothing runs on."""
        message = _message(params.get("message"))
        if _namespace(params):
            raise NotSupported(
                "input.inject: langgraph can add to the state of the root graph only; leave"
                " namespace empty"
            )
        graph_id = await self._runs.graph_of(context.caller, context.thread_id)
        if graph_id is None:
            raise NoInterruptedRun("No run is bound to this thread.")
        graph = self._registry.static(graph_id)
        if graph is not None and "messages" not in graph.channels:
            raise NotSupported(f"input.inject: the state of graph '{graph_id}' has no messages")
        try:
            await self._states.update(
                context.caller, context.thread_id, StateUpdate(values={"messages": [message]})
            )
        except Conflict as error:
            raise NotSupported(
                "input.inject: langgraph takes no message while a run is under way. Wait for its"
                f" end, or start a run with multitaskStrategy 'enqueue'. {error}"
            ) from None
        return {}

    async def _check_thread(self, context: Context) -> None:
        try:
            await self._runs.check_thread(context.caller, context.thread_id)
        except NotFound as error:
            raise NoInterruptedRun(str(error)) from None


def _namespace(params: Json) -> str:
    """The namespace that a command is for, as langgraph writes it."""
    namespace = params.get("namespace") or []
    if not _are_strings(namespace):
        raise Invalid(f"namespace must be an array of strings, not {excerpt(namespace)}")
    return SEPARATOR.join(namespace)


def _checkpoint_id(before: Any) -> str | None:
    try:
        return None if before is None else parse_id(before, "checkpoint")
    except Invalid:
        shown = excerpt(before)
        raise Invalid(f"before must be the id of a checkpoint, not {shown}") from None


def _are_strings(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(v, str) for v in cast("list[Any]", value))


def _message(message: Any) -> Json:
    fields = cast("Json", message) if isinstance(message, dict) else {}
    role, content = fields.get("role"), fields.get("content")
    if role not in ROLES or not isinstance(content, str):
        raise Invalid(
            "input.inject requires a message with a role (user or system) and a content that is"
            f" a string, not {excerpt(message)}"
        )
    name = fields.get("name")
    return {"role": role, "content": content, **({"name": name} if name else {})}


def _summary(state: Json) -> Json:
    metadata: Json = state["metadata"] or {}
    summary: Json = {
        "id": state["checkpoint"]["checkpoint_id"],
        "timestamp": state["created_at"],
        "step": metadata.get("step"),
        "source": metadata.get("source"),
        "next": state["next"],
        "metadata": metadata,
    }
    if state["parent_checkpoint"] is not None:
        summary["parent_id"] = state["parent_checkpoint"]["checkpoint_id"]
    return summary
