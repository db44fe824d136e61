"""Answers: ASGI callables, as plain as can be."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Protocol

from treadle.serialization import dumps

Send = Callable[[Any], Awaitable[None]]
Receive = Callable[[], Awaitable[Any]]
Headers = Sequence[tuple[bytes, bytes]]

JSON_TYPE = (b"content-type", b"application/json")


class Response(Protocol):
    """Whatever a handler returns: it sends itself."""

    async def send(self, receive: Receive, send: Send) -> None: ...


class Body:
    """A body that is known whole."""

    __slots__ = ("body", "headers", "status")

    def __init__(self, body: bytes, status: int = 200, headers: Headers = (JSON_TYPE,)) -> None:
        self.body, self.status, self.headers = body, status, headers

    async def send(self, receive: Receive, send: Send) -> None:
        length = (b"content-length", str(len(self.body)).encode())
        await send(
            {
                "type": "http.response.start",
                "status": self.status,
                "headers": [*self.headers, length],
            }
        )
        await send({"type": "http.response.body", "body": self.body})


def json_response(value: Any, status: int = 200, headers: Headers = ()) -> Body:
    """``value`` as JSON."""
    return Body(dumps(value), status, (JSON_TYPE, *headers))


def no_content(headers: Headers = ()) -> Body:
    """204 with an empty body."""
    return Empty(headers)


class Empty(Body):
    """204: no body, and no content headers."""

    def __init__(self, headers: Headers = ()) -> None:
        super().__init__(b"", 204, headers)

    async def send(self, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 204, "headers": [*self.headers]})
        await send({"type": "http.response.body", "body": b""})
