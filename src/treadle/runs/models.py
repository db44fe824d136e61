"""The wire structs of runs: what requests may hold, and what answers look like."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType

from treadle.streaming.modes import StreamMode

RunStatus = Literal["pending", "running", "success", "error", "timeout", "interrupted"]
MultitaskStrategy = Literal["reject", "interrupt", "rollback", "enqueue"]
CancelAction = Literal["interrupt", "rollback"]
Durability = Literal["sync", "async", "exit"]
OnDisconnect = Literal["cancel", "continue"]
Object = dict[str, Any]
NodeList = Literal["*"] | list[str]

LONGEST_DELAY_SECONDS = 100 * 365.25 * 86_400


class RunConfig(msgspec.Struct):
    """A run's ``config``: tags, recursion limit, configurable, metadata."""

    tags: list[str] | UnsetType = UNSET
    recursion_limit: int | UnsetType = UNSET
    configurable: Object | UnsetType = UNSET
    metadata: Object | UnsetType = UNSET


class RunCreate(msgspec.Struct, kw_only=True):
    """What every way of creating a run takes."""

    assistant_id: str
    input: Any = None
    command: Object | None = None
    config: RunConfig | UnsetType = UNSET
    context: Object | UnsetType = UNSET
    metadata: Object | UnsetType = UNSET
    checkpoint: Object | UnsetType | None = UNSET
    checkpoint_id: str | UnsetType | None = UNSET
    interrupt_before: NodeList | UnsetType | None = UNSET
    interrupt_after: NodeList | UnsetType | None = UNSET
    webhook: Annotated[str, Meta(min_length=1, max_length=65536)] | UnsetType | None = UNSET
    multitask_strategy: MultitaskStrategy | UnsetType = UNSET
    if_not_exists: Literal["create", "reject"] | UnsetType = UNSET
    after_seconds: Annotated[float, Meta(le=LONGEST_DELAY_SECONDS)] | UnsetType = UNSET
    durability: Durability | UnsetType = UNSET
    checkpoint_during: bool | UnsetType = UNSET
    stream_mode: StreamMode | list[StreamMode] | UnsetType = UNSET
    stream_subgraphs: bool | UnsetType = UNSET
    stream_resumable: bool | UnsetType = UNSET
    feedback_keys: list[str] | UnsetType = UNSET
    strict_resume: bool | UnsetType = UNSET
    langsmith_tracer: Object | UnsetType | None = UNSET


class WatchedRunCreate(RunCreate, kw_only=True):
    """A run that is waited for or streamed on a thread."""

    on_disconnect: OnDisconnect | UnsetType = UNSET


class StatelessRunCreate(RunCreate, kw_only=True):
    """A run on a thread of its own."""

    on_completion: Literal["delete", "keep"] | UnsetType = UNSET


class WatchedStatelessRunCreate(StatelessRunCreate, kw_only=True):
    """A run that is waited for or streamed on a thread of its own."""

    on_disconnect: OnDisconnect | UnsetType = UNSET


class CommandRun(RunCreate, kw_only=True):
    """A run that a command of protocol v2 starts.

    ``answers`` are those to open interrupts of its thread, by their ids. Without any, its input
    is the answer if the thread waits for one.
    """

    answers: Object | None = None


RunBatch = Annotated[list[StatelessRunCreate], Meta(min_length=1)]


class RunsCancel(msgspec.Struct):
    """Which runs to cancel: exactly one of a status, or a thread and its runs."""

    status: Literal["pending", "running", "all"] | UnsetType = UNSET
    thread_id: str | UnsetType = UNSET
    run_ids: list[str] | UnsetType = UNSET


class CancelQuery(msgspec.Struct):
    wait: bool = False
    action: CancelAction = "interrupt"


class BulkCancelQuery(msgspec.Struct):
    action: CancelAction = "interrupt"


class ListQuery(msgspec.Struct):
    limit: Annotated[int, Meta(ge=0)] = 10
    offset: Annotated[int, Meta(ge=0)] = 0
    status: RunStatus | None = None
    select: list[str] | None = None


class JoinQuery(msgspec.Struct):
    cancel_on_disconnect: bool = False


class Run(msgspec.Struct):
    """A run as answers show it."""

    run_id: str
    thread_id: str
    assistant_id: str
    created_at: str
    updated_at: str
    status: RunStatus
    metadata: Object
    kwargs: Object
    multitask_strategy: MultitaskStrategy
    langsmith_session_name: str | None = None


RUN_FIELDS = frozenset(Run.__struct_fields__)
