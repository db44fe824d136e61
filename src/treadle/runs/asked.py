"""What authorization handlers are asked about runs, and what they make of one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import msgspec

from treadle.auth import Caller, Filter, authorize
from treadle.ids import new_id
from treadle.runs.merging import given, plain_kwargs
from treadle.runs.models import CommandRun, RunConfig, RunCreate

Json = dict[str, Any]


class Wanted(NamedTuple):
    """A run that the caller may make.

    ``visible`` is the filter on its thread. ``added`` is the metadata that a command brings to a
    thread that is there; where it is ``guarded``, that goes over nothing.
    """

    body: RunCreate
    run_id: str
    visible: Filter | None
    added: Json
    guarded: bool


async def permitted(
    caller: Caller, thread_id: str | None, assistant_id: str, body: RunCreate
) -> Wanted:
    """The run with the metadata that the handlers gave it."""
    run_id = new_id()
    added: Json = (given(body.metadata) or {}) if isinstance(body, CommandRun) else {}
    if caller.policy is None:
        return Wanted(body, run_id, None, added, False)
    value = creation(thread_id, assistant_id, run_id, body)
    visible = await authorize(caller, "threads", "create_run", value)
    metadata: Json = value["metadata"]
    body = msgspec.structs.replace(body, metadata=metadata)
    added = {key: metadata[key] for key in added if key in metadata}
    return Wanted(body, run_id, visible, added, True)


def creation(thread_id: str | None, assistant_id: str, run_id: str, body: RunCreate) -> Json:
    """A run that is to be made, on a thread or with one of its own."""
    strategy = given(body.multitask_strategy) or "enqueue"
    return {
        "thread_id": thread_id,
        "assistant_id": assistant_id,
        "run_id": run_id,
        "status": "pending",
        "metadata": given(body.metadata) or {},
        "prevent_insert_if_inflight": strategy == "reject",
        "multitask_strategy": strategy,
        "if_not_exists": given(body.if_not_exists) or "reject",
        "after_seconds": given(body.after_seconds) or 0,
        "kwargs": _kwargs(body),
    }


def _kwargs(body: RunCreate) -> Json:
    config = body.config if isinstance(body.config, RunConfig) else RunConfig()
    command = body.command
    if isinstance(body, CommandRun) and body.answers is not None:
        command = {**(command or {}), "resume": body.answers}
    return {
        **plain_kwargs(body),
        "command": command,
        "config": {"configurable": {}, **msgspec.to_builtins(config)},
        "context": given(body.context) or {},
        "checkpoint": given(body.checkpoint),
        "checkpoint_id": given(body.checkpoint_id),
    }


def cancellation(
    thread_id: str | None, action: str, run_ids: Sequence[str] | None, status: str | None = None
) -> Json:
    """Runs that are to end: named on a thread, or all of a status."""
    return {
        "thread_id": thread_id,
        "action": action,
        "metadata": {"run_ids": run_ids, "status": status},
    }
