"""What every line of the log carries: whose request or run it is from.

Set it within the task that answers the request or executes the run: what that task logs, and
what it starts, has it too, be it by structlog or by the standard ``logging``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextvars import ContextVar
from types import MappingProxyType
from typing import Any

LOG_CONTEXT: ContextVar[Mapping[str, Any]] = ContextVar(
    "treadle_log_context", default=MappingProxyType({})
)
"""The fields; a line's own field of the same name wins."""

CLEAN = "_clean"
"""Set by who makes a line of parts that hold no secrets: it is not searched for any."""

sources: list[Callable[[], Mapping[str, Any]]] = []
"""Further fields, asked for with each line."""


def log_fields() -> Mapping[str, Any]:
    """All fields that hold here and now."""
    fields = LOG_CONTEXT.get()
    for source in sources:
        fields = {**fields, **source()}
    return fields
