"""What the system endpoints answer."""

from __future__ import annotations

from typing import Any, Literal

import msgspec


class WorkerFigures(msgspec.Struct, frozen=True):
    """How many runs this process executes at a time, and how many it does now."""

    max: int
    active: int


class Health(msgspec.Struct):
    ok: bool
    services: dict[str, Any] = {}


class HealthQuery(msgspec.Struct):
    """With ``check_db`` the database is asked too."""

    check_db: bool = False


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


class QueueFigures(msgspec.Struct, frozen=True):
    """The runs in flight, and for how long those that could start have waited."""

    n_pending: int
    n_running: int
    pending_runs_wait_time_max_secs: float | None
    pending_runs_wait_time_med_secs: float | None
    pending_unblocked_runs_wait_time_max_secs: float | None
