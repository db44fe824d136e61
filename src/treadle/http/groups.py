"""The groups that ``http.disable_...`` takes out, told by their paths."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import TypeVar

from treadle.http.endpoint import Endpoint, SocketEndpoint

E = TypeVar("E", Endpoint, SocketEndpoint)

_GROUPS = (
    ("runs", r"/runs(/.*)?|/threads/\{thread_id\}/(runs(/.*)?|commands|stream/events)"),
    ("threads", r"/threads(/.*)?"),
    ("assistants", r"/assistants(/.*)?"),
    ("store", r"/store(/.*)?"),
    ("mcp", r"/mcp(/.*)?"),
    ("a2a", r"/a2a(/.*)?|/\.well-known/agent-card\.json"),
    ("meta", r"/info|/metrics|/docs|/openapi\.json"),
)


def group_of(path: str) -> str | None:
    """The group of a path template; None for what is always served."""
    for group, pattern in _GROUPS:
        if re.fullmatch(pattern, path):
            return group
    return None


def enabled(endpoints: Iterable[E], disabled: frozenset[str]) -> list[E]:
    """The endpoints that are left without the ``disabled`` groups."""
    return [endpoint for endpoint in endpoints if group_of(endpoint.path) not in disabled]
