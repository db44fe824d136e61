"""An endpoint: a method and a path, the struct that its body has to be, and its handler."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import msgspec

from treadle.http.request import Request
from treadle.http.response import Response
from treadle.http.socket import WebSocket

Handler = Callable[..., Awaitable[Response]]


@dataclass(frozen=True)
class Endpoint:
    """One operation of the API.

    ``handler(request)`` or, where ``body`` is given, ``handler(request, body)``. The same
    structs validate requests and make the OpenAPI document. ``answer`` is the type of a
    successful answer's JSON (None: no body); ``stream`` marks server-sent events. With
    ``optional_body`` an empty request body counts as ``{}``. ``public`` ones are served
    without authentication, and ``counted=False`` keeps probes out of metrics and logs.
    ``media_type`` is that of a successful answer which is neither JSON nor a stream. With
    ``raw_body`` the handler gets the body as bytes, and ``body`` only documents it.
    """

    method: str
    path: str
    handler: Handler
    tag: str
    summary: str
    body: Any = None
    query: type[msgspec.Struct] | None = None
    answer: Any = None
    status: int = 200
    stream: bool = False
    optional_body: bool = False
    raw_body: bool = False
    public: bool = False
    counted: bool = True
    media_type: str = "application/json"
    errors: tuple[int, ...] = field(default=(404, 409, 422))


@dataclass(frozen=True)
class SocketEndpoint:
    """Where WebSockets may connect: ``handler(request, socket)`` gets one that is accepted.

    A ``RequestError`` of its closes the socket with 4000 and the error's status.
    """

    path: str
    handler: Callable[[Request, WebSocket], Awaitable[None]]


__all__ = ["Endpoint", "Handler", "Request", "SocketEndpoint"]
