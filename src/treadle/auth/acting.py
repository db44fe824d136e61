"""On whose behalf code runs: the caller of the request or of the run that it belongs to."""

from __future__ import annotations

from contextvars import ContextVar

from treadle.auth import Caller

ACTING: ContextVar[Caller | None] = ContextVar("acting", default=None)
"""None where nobody was asked who calls: the project's own code, outside of requests and runs."""
