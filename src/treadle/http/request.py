"""What a handler knows of its request."""

from __future__ import annotations

from typing import Any, TypeVar
from urllib.parse import parse_qsl

import msgspec

from treadle.auth import Caller
from treadle.idempotency import IdempotencyKey, idempotency_key
from treadle.ids import parse_id

Q = TypeVar("Q", bound=msgspec.Struct)

_REPLACED_NUL = b"%EF%BF%BD"


class Request:
    """One request: its caller, its path and query parameters, its headers.

    ``request_id`` is the ``X-Request-ID`` of the request, or a new UUID. ``raw_body`` is the JSON
    that an endpoint's struct was made of.
    """

    __slots__ = ("_query", "caller", "raw_body", "receive", "request_id", "scope", "send")

    def __init__(self, scope: Any, receive: Any, caller: Caller, request_id: str) -> None:
        self.scope, self.receive, self.caller, self.request_id = scope, receive, caller, request_id
        self.raw_body = b""
        self._query: dict[str, list[str]] | None = None

    def path(self, name: str) -> str:
        """A path parameter as it stands."""
        return self.scope["path_params"][name]

    def path_id(self, name: str) -> str:
        """The path parameter ``{name}_id`` as a canonical UUID; 422 if it is none."""
        return parse_id(self.scope["path_params"][f"{name}_id"], name)

    def header(self, name: str) -> str | None:
        """A header by its lower-case name."""
        wanted = name.encode()
        for key, value in self.scope["headers"]:
            if key == wanted:
                return value.decode("latin-1")
        return None

    def query_values(self, name: str) -> list[str]:
        """All values of a query parameter, in order, comma lists not taken apart.

        As in bodies, NUL becomes U+FFFD.
        """
        if self._query is None:
            self._query = {}
            raw: bytes = self.scope["query_string"]
            text = raw.replace(b"%00", _REPLACED_NUL).decode("latin-1")
            for key, value in parse_qsl(text, keep_blank_values=True):
                self._query.setdefault(key, []).append(value)
        return self._query.get(name, [])

    def query(self, kind: type[Q]) -> Q:
        """The query parameters as a struct (see ``treadle.http.query``)."""
        from treadle.http.query import parse_query

        return parse_query(kind, self)

    def idempotency_key(self, body: Any) -> IdempotencyKey | None:
        """The ``Idempotency-Key`` of a request with this body, if it has one."""
        text = self.header("idempotency-key")
        return idempotency_key(text, self.caller.identity, self.scope["path"], body)
