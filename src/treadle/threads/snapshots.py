"""States as the API shows them: from langgraph's snapshots and checkpoints to JSON-able values."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

from langgraph.channels import DeltaChannel
from langgraph.channels.base import BaseChannel
from langgraph.checkpoint.base import EmptyChannelError
from langgraph.types import Interrupt, PregelTask, StateSnapshot
from msgspec import structs

from treadle.errors import Invalid
from treadle.threads.models import State

if TYPE_CHECKING:
    from treadle.graphs.registry import Graph

Json = dict[str, Any]

CHECKPOINT_KEYS = ("checkpoint_id", "thread_id", "checkpoint_ns", "checkpoint_map")
STATE_FIELDS = [field.name for field in structs.fields(State)]


# What a thread's row shows ------------------------------------------------------------------------


def has_plain_values(graph: Graph) -> bool:
    """Whether one checkpoint holds all that ``thread_values`` needs (delta channels don't)."""
    channels = graph.channels
    return not any(isinstance(channels[k], DeltaChannel) for k in graph.stream_channels_list)


def thread_values(graph: Graph, channel_values: Mapping[str, Any]) -> Any:
    """``values`` of thread and state, from the channel values of a checkpoint.

    Holds all channels of the state, also what the output schema hides. Only right for graphs
    that have ``has_plain_values``.
    """
    shown = graph.stream_channels_asis
    if isinstance(shown, str):
        return _channel_values(graph, (shown,), channel_values).get(shown)
    return _channel_values(graph, shown, channel_values)


def _channel_values(graph: Graph, names: Sequence[str], stored: Mapping[str, Any]) -> Json:
    values: Json = {}
    for name in names:
        channel = cast("BaseChannel[Any, Any, Any]", graph.channels[name])
        if name in stored:
            channel = channel.from_checkpoint(stored[name])
        with contextlib.suppress(EmptyChannelError):
            values[name] = channel.get()
    return values


def interrupts_json(waiting: Iterable[tuple[str, Sequence[Interrupt]]]) -> dict[str, list[Json]]:
    """``interrupts`` of a thread: what each task, named by its id, waits for."""
    return {task_id: [_interrupt(i) for i in asked] for task_id, asked in waiting if asked}


def snapshot_summary(snapshot: StateSnapshot) -> tuple[str, Any, dict[str, list[Json]]]:
    """Status (idle or interrupted), values and interrupts of a thread in this state."""
    status = "interrupted" if snapshot.next else "idle"
    return status, snapshot.values, interrupts_json((t.id, t.interrupts) for t in snapshot.tasks)


# States -------------------------------------------------------------------------------------------


def state_json(snapshot: StateSnapshot, thread_id: str) -> Json:
    """A state with its tasks, and their states where the snapshot holds them."""
    metadata = cast("Json | None", snapshot.metadata)
    checkpoint = None if metadata is None else checkpoint_json(snapshot.config, thread_id)
    parent = checkpoint_json(snapshot.parent_config, thread_id)
    return {
        "values": snapshot.values,
        "next": snapshot.next,
        "tasks": [_task(task, thread_id) for task in snapshot.tasks],
        "metadata": metadata and {**metadata, "thread_id": thread_id},
        "created_at": snapshot.created_at,
        "checkpoint": checkpoint,
        "parent_checkpoint": parent,
        "interrupts": [_interrupt(i) for i in snapshot.interrupts],
        "checkpoint_id": checkpoint and checkpoint.get("checkpoint_id"),
        "parent_checkpoint_id": parent and parent.get("checkpoint_id"),
    }


def checkpoint_json(config: Mapping[str, Any] | None, thread_id: str) -> Json | None:
    """The checkpoint that a config names, as clients pass it back."""
    if config is None:
        return None
    configurable = config["configurable"]
    found = {key: configurable[key] for key in CHECKPOINT_KEYS if configurable.get(key) is not None}
    return {"checkpoint_ns": "", **found, "thread_id": thread_id}


def select_state(state: Json, select: Sequence[str]) -> Json:
    """The named fields of a state; ``values.<key>`` picks a key of its values."""
    if not select:
        return state
    chosen: Json = {}
    keys: list[str] = []
    for name in select:
        if name.startswith("values."):
            keys.append(name.removeprefix("values."))
        elif name in STATE_FIELDS:
            chosen[name] = state[name]
        else:
            raise Invalid(
                f"Cannot select '{name}' of a state. Expected 'values.<key>' or one of: "
                + ", ".join(STATE_FIELDS)
            )
    if keys and "values" not in chosen:
        values = state["values"]
        there = cast("Json", values) if isinstance(values, dict) else {}
        chosen["values"] = {key: there[key] for key in keys if key in there}
    return chosen


def _interrupt(interrupt: Interrupt) -> Json:
    shown: Json = {"value": interrupt.value, "id": interrupt.id}
    if isinstance(interrupt.response_schema, dict):
        shown["response_schema"] = interrupt.response_schema
    return shown


def _task(task: PregelTask, thread_id: str) -> Json:
    error = task.error
    state = task.state
    return {
        "id": task.id,
        "name": task.name,
        "path": task.path,
        "error": error if error is None or isinstance(error, str) else repr(error),
        "interrupts": [_interrupt(i) for i in task.interrupts],
        "checkpoint": checkpoint_json(state, thread_id) if isinstance(state, dict) else None,
        "state": state_json(state, thread_id) if isinstance(state, StateSnapshot) else None,
        "result": task.result,
    }
