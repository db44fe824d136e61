"""What goes over the wire about crons."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType

from treadle.http.pagination import Limit, Offset
from treadle.runs.models import Durability, MultitaskStrategy, NodeList, Object, RunConfig
from treadle.streaming.modes import StreamMode

CronField = Literal[
    "cron_id", "assistant_id", "thread_id", "user_id", "end_time", "schedule", "timezone",
    "payload", "next_run_date", "metadata", "on_run_completed", "enabled", "created_at",
    "updated_at",
]  # fmt: skip
SortBy = Literal[
    "cron_id", "assistant_id", "thread_id", "next_run_date", "end_time", "created_at", "updated_at"
]
OnRunCompleted = Literal["delete", "keep"]
CatchUp = Literal["once", "all", "none"]
ScheduleText = Annotated[str, Meta(max_length=1000)]


class CronRun(msgspec.Struct, kw_only=True):
    """What a cron's runs are given: the fields of a run that make sense more than once."""

    input: Object | list[Object] | UnsetType = UNSET
    metadata: Object | UnsetType = UNSET
    config: RunConfig | UnsetType = UNSET
    context: Object | UnsetType = UNSET
    webhook: Annotated[str, Meta(min_length=1, max_length=65536)] | UnsetType = UNSET
    interrupt_before: NodeList | UnsetType = UNSET
    interrupt_after: NodeList | UnsetType = UNSET
    multitask_strategy: MultitaskStrategy | UnsetType = UNSET
    durability: Durability | UnsetType = UNSET
    checkpoint_during: bool | UnsetType = UNSET
    stream_mode: StreamMode | list[StreamMode] | UnsetType = UNSET
    stream_subgraphs: bool | UnsetType = UNSET
    stream_resumable: bool | UnsetType = UNSET


RUN_FIELDS = frozenset(CronRun.__struct_fields__)


class CronCreate(CronRun, kw_only=True):
    """A new cron. ``catch_up`` says what becomes of ticks that were missed."""

    assistant_id: str
    schedule: ScheduleText
    timezone: str | UnsetType | None = UNSET
    end_time: str | UnsetType = UNSET
    enabled: bool = True
    on_run_completed: OnRunCompleted | UnsetType = UNSET
    catch_up: CatchUp | UnsetType = UNSET


class CronPatch(CronRun, kw_only=True):
    """What changes: metadata is merged key by key, everything else replaced."""

    schedule: ScheduleText | UnsetType = UNSET
    timezone: str | UnsetType | None = UNSET
    end_time: str | UnsetType | None = UNSET
    enabled: bool | UnsetType = UNSET
    on_run_completed: OnRunCompleted | UnsetType = UNSET
    catch_up: CatchUp | UnsetType = UNSET


class CronCount(msgspec.Struct):
    """Which crons to count."""

    assistant_id: str | UnsetType = UNSET
    thread_id: str | UnsetType = UNSET
    enabled: bool | UnsetType = UNSET
    metadata: dict[str, Any] | UnsetType = UNSET


class CronSearch(CronCount):
    """Which crons to list, in what order, and which of their fields."""

    limit: Limit = 10
    offset: Offset = 0
    sort_by: SortBy | UnsetType = UNSET
    sort_order: Literal["asc", "desc"] | UnsetType = UNSET
    select: list[CronField] | UnsetType = UNSET


class Cron(msgspec.Struct):
    """A cron as answers show it. ``payload`` is what was sent, with the cron's own id."""

    cron_id: str
    assistant_id: str
    thread_id: str | None
    user_id: str
    end_time: str | None
    schedule: str
    timezone: str | None
    payload: dict[str, Any]
    next_run_date: str | None
    metadata: dict[str, Any]
    on_run_completed: OnRunCompleted | None
    enabled: bool
    created_at: str
    updated_at: str
