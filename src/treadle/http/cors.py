"""Which pages of other origins may call the API."""

from __future__ import annotations

import re
from collections.abc import Mapping

import msgspec

from treadle.http.response import Body, Headers

METHODS = ("DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT")
EXPOSED = ("content-location", "location", "x-pagination-total", "x-pagination-next",
           "x-request-id")  # fmt: skip
_TEXT = (b"content-type", b"text/plain; charset=utf-8")


class CorsSettings(msgspec.Struct, frozen=True):
    """The ``http.cors`` part of the configuration. A regex alone restricts the origins too."""

    allow_origins: tuple[str, ...] | None = None
    allow_origin_regex: str | None = None
    allow_methods: tuple[str, ...] = METHODS
    allow_headers: tuple[str, ...] = ("*",)
    allow_credentials: bool = False
    expose_headers: tuple[str, ...] = EXPOSED
    max_age: int = 600


class Cors:
    """Answers preflight requests, and gives each answer the headers that its origin needs."""

    def __init__(self, settings: CorsSettings) -> None:
        origins = settings.allow_origins
        if origins is None:
            origins = () if settings.allow_origin_regex else ("*",)
        self._any_origin = "*" in origins
        self._origins = {origin.encode("latin-1", "replace") for origin in origins}
        self._pattern = re.compile((settings.allow_origin_regex or r"(?!)").encode())
        self._methods = {m.upper() for m in settings.allow_methods}
        self._any_method = "*" in settings.allow_methods
        self._headers = {h.lower() for h in settings.allow_headers}
        self._credentials = settings.allow_credentials
        self._max_age = str(settings.max_age).encode()
        self._common: list[tuple[bytes, bytes]] = []
        if settings.expose_headers:
            exposed = ", ".join(settings.expose_headers).encode()
            self._common.append((b"access-control-expose-headers", exposed))
        if self._credentials:
            self._common.append((b"access-control-allow-credentials", b"true"))
        self._open = [(b"access-control-allow-origin", b"*"), *self._common]

    def headers(self, origin: bytes) -> list[tuple[bytes, bytes]]:
        """What an answer to a request of ``origin`` says; nothing if it is not allowed."""
        if self._any_origin and not self._credentials:
            return self._open
        if self._allows(origin):
            return [(b"access-control-allow-origin", origin), *self._common]
        return []

    def admits(self, origin: bytes | None) -> bool:
        """Whether a page of ``origin`` may open a WebSocket: browsers leave that to the server."""
        return origin is None or self._any_origin or self._allows(origin)

    def preflight(self, headers: Mapping[bytes, bytes]) -> Body:
        """The answer to OPTIONS with ``access-control-request-method``."""
        origin = headers[b"origin"]
        method = headers[b"access-control-request-method"].decode("latin-1")
        wanted = headers.get(b"access-control-request-headers", b"")
        refused: list[str] = []
        if not self._any_origin and not self._allows(origin):
            refused.append("origin")
        if not self._any_method and method not in self._methods:
            refused.append("method")
        if not self._allows_headers(wanted.decode("latin-1")):
            refused.append("headers")
        if refused:
            text = "Disallowed CORS " + ", ".join(refused)
            return Body(text.encode(), 400, (_TEXT,))
        return Body(b"OK", 200, self._preflight_headers(method, wanted, headers))

    def _preflight_headers(
        self, method: str, wanted: bytes, headers: Mapping[bytes, bytes]
    ) -> Headers:
        methods = sorted(self._methods) if not self._any_method else [method]
        answer = [
            _TEXT,
            (b"access-control-allow-methods", ", ".join(methods).encode("latin-1")),
            (b"access-control-max-age", self._max_age),
        ]
        if wanted:
            answer.append((b"access-control-allow-headers", wanted))
        if headers.get(b"access-control-request-private-network") == b"true":
            answer.append((b"access-control-allow-private-network", b"true"))
        return answer

    def _allows(self, origin: bytes) -> bool:
        known = self._any_origin or origin in self._origins
        return known or self._pattern.fullmatch(origin) is not None

    def _allows_headers(self, wanted: str) -> bool:
        if "*" in self._headers:
            return True
        names = {name.strip().lower() for name in wanted.split(",") if name.strip()}
        simple = {"accept", "accept-language", "content-language", "content-type"}
        return names <= self._headers | simple
