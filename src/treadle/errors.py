"""The errors that rooms raise and clients read.

    TreadleError            every error that Treadle raises on purpose
    ├── RequestError        a request that is answered with ``{"detail": message}`` and a status
    │   ├── Refused         400: well formed, but it cannot be done
    │   ├── Forbidden       403: the caller may not do this
    │   ├── Denied          what a user's auth handler says: its status, detail and headers
    │   ├── NotFound        404: no such thing, or none that the caller may see
    │   ├── Conflict        409: at odds with what is there now
    │   ├── Gone            410: it was there, and is no more
    │   ├── TooLarge        413: a body beyond the limit
    │   ├── Invalid         422: a field or parameter that is not what it has to be
    │   ├── Unsupported     501: what the server was set up with cannot do this
    │   └── Unavailable     503: what the answer needs cannot be reached now
    └── StartupError        the server cannot start; the message says what to mend

A message names the field, the value and what is allowed.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


class TreadleError(Exception):
    """An error that Treadle raises on purpose; ``str(error)`` is meant for people."""


class RequestError(TreadleError):
    """A request that is answered with ``status``, ``headers`` and ``{"detail": detail}``."""

    status = 400
    headers: Mapping[str, str] = {}

    @property
    def detail(self) -> Any:
        """What the client is told: text, or any other JSON."""
        return str(self)


class Refused(RequestError):
    status = 400


class Forbidden(RequestError):
    status = 403


class Denied(RequestError):
    def __init__(self, status: int, detail: Any, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(detail)
        self.status, self._detail, self.headers = status, detail, headers or {}

    @property
    def detail(self) -> Any:
        return self._detail


class NotFound(RequestError):
    status = 404


class Conflict(RequestError):
    status = 409


class Gone(RequestError):
    status = 410


class TooLarge(RequestError):
    status = 413


class Invalid(RequestError):
    status = 422


class Unsupported(RequestError):
    status = 501


class Unavailable(RequestError):
    status = 503


class StartupError(TreadleError):
    """The server cannot start; the message says what is wrong and what to do."""
