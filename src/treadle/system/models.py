"""What the system endpoints answer."""

from __future__ import annotations

from typing import Literal

import msgspec
from msgspec import UNSET, UnsetType


class WorkerFigures(msgspec.Struct, frozen=True):
    """How many runs this process executes at a time, and how many it does now."""

    max: int
    active: int


class ServiceState(msgspec.Struct, omit_defaults=True):
    """Whether a service that the server stands on answers; how fast, or why not."""

    ok: bool
    latency_ms: float | None = None
    error: str | None = None


class WorkerState(msgspec.Struct, frozen=True):
    """Runs at a time in the process that answers, and how many those are now."""

    max: int
    active: int
    available: int


class Health(msgspec.Struct, omit_defaults=True):
    """Whether the server is well; the rest was asked for with ``check_db``.

    ``queue_age_secs`` is for how long the oldest run that could start has waited.
    """

    ok: bool
    services: dict[str, ServiceState]
    workers: WorkerState | UnsetType = UNSET
    queue_age_secs: float | UnsetType | None = UNSET


class HealthQuery(msgspec.Struct):
    """With ``check_db`` (true, false, or an integer) the database and Redis are asked too."""

    check_db: str = "false"


class MetricsQuery(msgspec.Struct):
    format: str = "prometheus"


class HostInfo(msgspec.Struct):
    kind: Literal["self-hosted"] = "self-hosted"
    project_id: str | None = None
    host_revision_id: str | None = None
    revision_id: str | None = None
    tenant_id: str | None = None


class Info(msgspec.Struct):
    """What runs here, and what it can do."""

    version: str
    langgraph_py_version: str
    flags: dict[str, bool]
    host: HostInfo


class BacklogFigures(msgspec.Struct, frozen=True):
    """What else waits in the database, for all processes.

    ``webhooks_late_secs`` and ``crons_late_secs`` are for how long the oldest that is due is due.
    """

    webhooks: int
    webhooks_late_secs: float
    crons_late_secs: float
    kept_events: int
    kept_event_bytes: int


class QueueFigures(msgspec.Struct, frozen=True):
    """The runs in flight, and for how long those that could start have waited."""

    n_pending: int
    n_running: int
    pending_runs_wait_time_max_secs: float | None
    pending_runs_wait_time_med_secs: float | None
    pending_unblocked_runs_wait_time_max_secs: float | None
