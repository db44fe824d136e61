"""The line that each request leaves in the log."""

from __future__ import annotations

import logging
from typing import Any

import structlog

from treadle.http.run_headers import HeaderPatterns
from treadle.log_context import CLEAN
from treadle.scrubbing import HIDDEN, SECRET_NAME


class AccessLog:
    """Logs requests: method, path (the route's template), status, latency, id.

    ``headers`` picks those that are logged with their values; of those that hold secrets it is
    only told that they are there.
    """

    def __init__(self, headers: HeaderPatterns | None = None) -> None:
        self._headers = headers
        self._log = structlog.get_logger("treadle.http").bind()

    def write(
        self, scope: Any, template: str, status: int, latency_ms: float, request_id: str
    ) -> None:
        """Log one request; ``template`` is that of its route, empty if it has none."""
        if not self._log.is_enabled_for(logging.INFO):
            return
        more: dict[str, Any] = {CLEAN: True} if template else {}
        if self._headers is not None:
            found = self._headers.of(scope["headers"])
            more = {"headers": {name: shown(name, value) for name, value in found.items()}}
        self._log.info(
            "request",
            method=scope["method"],
            path=template or shown_path(scope),
            status=status,
            latency_ms=round(latency_ms, 3),
            request_id=request_id,
            **more,
        )


def shown(name: str, value: str) -> str:
    """The value of a header, unless it is a secret."""
    return HIDDEN if SECRET_NAME.search(name) else value


def shown_path(scope: Any) -> str:
    """The path as it was sent: what is percent-encoded cannot break a line of the log."""
    raw: bytes | None = scope.get("raw_path")
    return raw.decode("latin-1") if raw else repr(scope["path"])
