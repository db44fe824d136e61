"""The ASGI application: from a list of endpoints to answers."""

from __future__ import annotations

import contextlib
import logging
import re
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from time import perf_counter
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import structlog

from treadle.auth import ANYONE, Caller
from treadle.errors import RequestError, StartupError
from treadle.http.body import ClientGone, read_body
from treadle.http.compression import COMPRESS_FROM_BYTES, compressed
from treadle.http.cors import Cors, CorsSettings
from treadle.http.endpoint import Endpoint, Handler, SocketEndpoint
from treadle.http.metrics import RequestMetrics
from treadle.http.request import Request
from treadle.http.response import JSON_TYPE, Body, Receive, Response, Send, json_response
from treadle.http.routing import Router
from treadle.http.socket import WebSocket
from treadle.http.validation import body_decoder
from treadle.ids import new_id
from treadle.serialization import dumps

if TYPE_CHECKING:
    from treadle.http.custom_app import CustomApp

MAX_BODY_BYTES = 100 * 1024 * 1024

Authenticate = Callable[[Any], Awaitable[Caller]]
Lifespan = Callable[[], AbstractAsyncContextManager[Any]]

_SLASHES = re.compile("//+")
_VARY_ORIGIN = (b"vary", b"Origin")


class _Bound:
    """An endpoint with what is worked out once: its handler and its body's decoder."""

    __slots__ = ("counted", "decode", "handler", "optional_body", "public")

    def __init__(self, endpoint: Endpoint) -> None:
        self.handler: Handler = endpoint.handler
        self.decode = None if endpoint.body is None else body_decoder(endpoint.body)
        if endpoint.raw_body:
            self.decode = bytes
        self.optional_body = endpoint.optional_body
        self.public = endpoint.public
        self.counted = endpoint.counted


class _Exchange:
    """One request on its way to an answer: its status, once it has one, and who names it."""

    __slots__ = ("_send", "counted", "extra", "is_head", "request_id", "status", "template")

    def __init__(self, send: Send, is_head: bool, request_id: str) -> None:
        self._send, self.is_head, self.request_id = send, is_head, request_id
        self.extra = [_VARY_ORIGIN, (b"x-request-id", request_id.encode("latin-1"))]
        self.status = 0
        self.template = ""
        self.counted = True

    def send(self, message: Any) -> Awaitable[None]:
        """Pass a message on, with the headers that every answer has."""
        if message["type"] == "http.response.start":
            self.status = message["status"]
            message["headers"] = [*message["headers"], *self.extra]
        elif self.is_head:
            message["body"] = b""
        return self._send(message)


class Application:
    """Serves ``endpoints`` over ASGI, and ``sockets`` to clients that upgrade.

    ``lifespan`` is entered before the first request and left after the last one.
    ``authenticate`` gets the ASGI scope and says who calls, or raises a ``RequestError``;
    without it everyone is ``ANYONE``. Everything is below ``mount_prefix``, ``/ok`` is also
    at the root. Routes of ``custom_app`` come before the endpoints.

    Every answer carries ``X-Request-ID``. Errors are ``{"detail": ...}``; an unforeseen one is
    a 500 that names the request, and is logged.
    """

    def __init__(
        self,
        endpoints: Iterable[Endpoint],
        *,
        sockets: Iterable[SocketEndpoint] = (),
        lifespan: Lifespan | None = None,
        authenticate: Authenticate | None = None,
        metrics: RequestMetrics | None = None,
        cors: CorsSettings | None = None,
        mount_prefix: str = "",
        max_body_bytes: int = MAX_BODY_BYTES,
        custom_app: CustomApp | None = None,
    ) -> None:
        self._router: Router[_Bound] = Router()
        for endpoint in endpoints:
            bound = _Bound(endpoint)
            self._router.add(endpoint.method, endpoint.path, bound)
            if endpoint.method == "GET" and not endpoint.stream:
                self._router.add("HEAD", endpoint.path, bound)
        self._sockets: Router[SocketEndpoint] = Router()
        for socket in sockets:
            self._sockets.add("GET", socket.path, socket)
        self._lifespan = lifespan
        self._authenticate = authenticate
        self._metrics = metrics or RequestMetrics()
        self._cors = Cors(cors or CorsSettings())
        self._prefix = mount_prefix
        self._max_body_bytes = max_body_bytes
        self._custom = custom_app
        self._log = structlog.get_logger("treadle.http").bind()

    async def __call__(self, scope: Any, receive: Receive, send: Send) -> None:
        kind = scope["type"]
        if kind == "http":
            await self._serve(scope, receive, send)
        elif kind == "lifespan":
            await self._live(receive, send)
        elif self._custom is not None and self._custom.template(scope) is not None:
            await self._custom.app(scope, receive, send)
        else:
            await self._connect(scope, receive, send)

    # -- one request ------------------------------------------------------------------------
    async def _serve(self, scope: Any, receive: Receive, send: Send) -> None:
        started = perf_counter()
        method: str = scope["method"]
        headers: dict[bytes, bytes] = dict(scope["headers"])
        given_id = headers.get(b"x-request-id")
        request_id = given_id.decode("latin-1") if given_id else new_id()
        exchange = _Exchange(send, method == "HEAD", request_id)
        origin = headers.get(b"origin")
        if origin is not None:
            exchange.extra.extend(self._cors.headers(origin))
        try:
            await self._answer(scope, receive, headers, exchange)
        except ClientGone:
            return
        except RequestError as error:
            await self._fail(exchange, receive, error.status, str(error))
        except Exception:
            self._log.exception(
                "unhandled error", method=method, path=_shown_path(scope), request_id=request_id
            )
            text = f"Internal Server Error. The server's log tells more of request {request_id}"
            await self._fail(exchange, receive, 500, text)
        if exchange.counted:
            latency_ms = (perf_counter() - started) * 1000
            self._metrics.observe(method, exchange.template, exchange.status, latency_ms)
            if self._log.is_enabled_for(logging.INFO):
                self._log.info(
                    "request",
                    method=method,
                    path=exchange.template or _shown_path(scope),
                    status=exchange.status,
                    latency_ms=round(latency_ms, 3),
                    request_id=request_id,
                )

    async def _answer(
        self, scope: Any, receive: Receive, headers: dict[bytes, bytes], exchange: _Exchange
    ) -> None:
        method: str = scope["method"]
        if self._custom is not None and (template := self._custom.template(scope)) is not None:
            exchange.template = scope["route"] = template
            await self._custom.app(scope, receive, exchange.send)
            return
        if (
            method == "OPTIONS"
            and b"origin" in headers
            and b"access-control-request-method" in headers
        ):
            await self._cors.preflight(headers).send(receive, exchange.send)
            return
        path = self._path(scope["path"])
        found = self._router.find(method, path)
        if found is None:
            await self._miss(scope, path).send(receive, exchange.send)
            return
        bound, route, values = found
        exchange.template = scope["route"] = route.template
        exchange.counted = bound.counted
        scope["path_params"] = dict(zip(route.names, values, strict=True)) if values else {}
        answer = await self._handle(bound, scope, receive, headers, exchange.request_id)
        if type(answer) is Body and len(answer.body) >= COMPRESS_FROM_BYTES:
            answer = await compressed(answer, headers.get(b"accept-encoding", b""))
        await answer.send(receive, exchange.send)

    async def _handle(
        self,
        bound: _Bound,
        scope: Any,
        receive: Receive,
        headers: dict[bytes, bytes],
        request_id: str,
    ) -> Response:
        """Find out who calls, read and check the body, and let the handler answer."""
        caller = ANYONE
        if self._authenticate is not None and not bound.public:
            caller = await self._authenticate(scope)
        request = Request(scope, receive, caller, request_id)
        if bound.decode is None:
            return await bound.handler(request)
        raw = await read_body(receive, headers.get(b"content-length"), self._max_body_bytes)
        if not raw and bound.optional_body:
            raw = b"{}"
        request.raw_body = raw
        return await bound.handler(request, bound.decode(raw))

    async def _fail(self, exchange: _Exchange, receive: Receive, status: int, text: str) -> None:
        """Answer with an error, unless an answer has begun: then it just ends, unfinished."""
        if not exchange.status:
            await json_response({"detail": text}, status).send(receive, exchange.send)

    # -- WebSockets -------------------------------------------------------------------------
    async def _connect(self, scope: Any, receive: Receive, send: Send) -> None:
        """Let a WebSocket in, past the same gate as any request, and serve it."""
        headers: dict[bytes, bytes] = dict(scope["headers"])
        given_id = headers.get(b"x-request-id")
        request_id = given_id.decode("latin-1") if given_id else new_id()
        found = self._sockets.find("GET", self._path(scope["path"]))
        if found is None or not self._cors.admits(headers.get(b"origin")):
            await send({"type": "websocket.close", "code": 1000})  # before accepting: a 403
            return
        endpoint, route, values = found
        scope["path_params"] = dict(zip(route.names, values, strict=True))
        await receive()  # the wish to connect
        try:
            caller = await self._authenticate(scope) if self._authenticate else ANYONE
        except RequestError as error:
            await self._refuse_socket(scope, send, error)
            return
        await send(
            {"type": "websocket.accept", "headers": [(b"x-request-id", request_id.encode())]}
        )
        socket = WebSocket(receive, send)
        try:
            await endpoint.handler(Request(scope, receive, caller, request_id), socket)
        except ClientGone:
            return
        except RequestError as error:
            await _close(socket, 4000 + error.status, str(error))
        except Exception:
            path = _shown_path(scope)
            self._log.exception("unhandled error", path=path, request_id=request_id)
            await _close(socket, 1011, f"Internal error, request {request_id}")

    async def _refuse_socket(self, scope: Any, send: Send, error: RequestError) -> None:
        if "websocket.http.response" not in scope.get("extensions", {}):
            await send({"type": "websocket.close", "code": 1000})
            return
        body = dumps({"detail": str(error)})
        start = {"type": "websocket.http.response.start", "status": error.status,
                 "headers": [JSON_TYPE]}  # fmt: skip
        await send(start)
        await send({"type": "websocket.http.response.body", "body": body})

    # -- paths ------------------------------------------------------------------------------
    def _path(self, path: str) -> str:
        """The path below the prefix, slashes collapsed; empty if it is not below it."""
        if "//" in path:
            path = _SLASHES.sub("/", path)
        if self._prefix and path != "/ok":
            below = path.removeprefix(self._prefix)
            if below == path or below[:1] not in ("", "/"):
                return ""
            path = below
        return path or "/"

    def _miss(self, scope: Any, path: str) -> Body:
        """What to say where no endpoint answers: 405, 307 for a trailing slash, or 404.

        ``/ok`` is for probes, which are to find it as it is or not at all.
        """
        if path.rstrip("/") == "/ok":
            return json_response({"detail": "Not Found"}, 404)
        if allowed := self._router.methods(path):
            allow = (b"allow", ", ".join(sorted(allowed)).encode())
            return json_response({"detail": "Method Not Allowed"}, 405, [allow])
        if path.endswith("/") and self._router.methods(path.rstrip("/")):
            location = quote(self._prefix + path.rstrip("/")).encode()
            if scope["query_string"]:
                location += b"?" + scope["query_string"]
            return Body(b"", 307, [(b"location", location)])
        return json_response({"detail": "Not Found"}, 404)

    # -- lifespan ---------------------------------------------------------------------------
    async def _live(self, receive: Receive, send: Send) -> None:
        """Enter the lifespans when the server starts, leave them when it stops."""
        lifespans: Sequence[Lifespan | None] = (
            self._lifespan,
            self._custom.lifespan if self._custom else None,
        )
        await receive()
        async with AsyncExitStack() as stack:
            try:
                for lifespan in lifespans:
                    if lifespan is not None:
                        await stack.enter_async_context(lifespan())
            except Exception as error:
                if not isinstance(error, StartupError):
                    self._log.exception("the server could not start")
                await send({"type": "lifespan.startup.failed", "message": str(error)})
                return
            await send({"type": "lifespan.startup.complete"})
            await receive()
        await send({"type": "lifespan.shutdown.complete"})


def _shown_path(scope: Any) -> str:
    """The path as it was sent: what is percent-encoded cannot break a line of the log."""
    raw: bytes | None = scope.get("raw_path")
    return raw.decode("latin-1") if raw else repr(scope["path"])


async def _close(socket: WebSocket, code: int, text: str) -> None:
    """Close with a reason, of which a frame holds 123 bytes."""
    with contextlib.suppress(ClientGone):
        await socket.close(code, text.encode()[:120].decode(errors="ignore"))
