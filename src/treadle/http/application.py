"""The ASGI application: from a list of endpoints to answers."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from time import perf_counter
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import structlog
from starlette.authentication import AuthCredentials

from treadle.auth import ANYONE, Authenticate, Caller
from treadle.auth.acting import ACTING
from treadle.errors import Denied, RequestError
from treadle.http.access_log import AccessLog, shown_path
from treadle.http.body import ClientGone, read_body
from treadle.http.compression import COMPRESS_FROM_BYTES, compressed
from treadle.http.cors import Cors, CorsSettings
from treadle.http.endpoint import Endpoint, Handler, SocketEndpoint
from treadle.http.exchange import Exchange
from treadle.http.metrics import RequestMetrics
from treadle.http.request import Request
from treadle.http.response import JSON_TYPE, Body, Receive, Response, Send, json_response
from treadle.http.routing import Router
from treadle.http.run_headers import RUN_HEADERS, HeaderPatterns
from treadle.http.socket import WebSocket
from treadle.http.validation import body_decoder
from treadle.ids import new_id
from treadle.log_context import LOG_CONTEXT
from treadle.serialization import dumps

if TYPE_CHECKING:
    from treadle.http.custom_app import Asgi, CustomApp

MAX_BODY_BYTES = 100 * 1024 * 1024

Lifespan = Callable[[], AbstractAsyncContextManager[Any]]

_SLASHES = re.compile("//+")
_BODY_HEADERS = ("content-length", "content-type", "content-encoding", "transfer-encoding")
_NO_VALUE = re.compile(r"[\r\n\0]+")


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


class Application:
    """Serves ``endpoints`` over ASGI, and ``sockets`` to clients that upgrade.

    ``lifespan`` is entered before the first request and left after the last one.
    ``authenticate`` gets the ASGI scope and says who calls, or raises a ``RequestError``; only
    endpoints that are public do without it, and without it everyone is ``ANYONE``. Everything is
    below ``mount_prefix``, ``/ok`` is also at the root. ``custom_app`` is put around all of it,
    but for CORS; with ``auth_first`` its middleware sees no request that is refused for want of
    a caller. ``headers`` picks those that runs are told of.

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
        auth_first: bool = False,
        headers: HeaderPatterns | None = None,
        access_log: AccessLog | None = None,
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
        self._around = None if custom_app is None else custom_app.around(self)
        self._auth_first = auth_first and authenticate is not None
        self._headers, self._access_log = headers, access_log or AccessLog()
        self._state: dict[str, Any] = {}
        self.failure: Exception | None = None
        self._log = structlog.get_logger("treadle.http").bind()

    async def __call__(self, scope: Any, receive: Receive, send: Send) -> None:
        kind = scope["type"]
        if kind == "http":
            await self._serve(scope, receive, send)
        elif kind == "lifespan":
            await self._live(scope, receive, send)
        else:
            headers: dict[bytes, bytes] = dict(scope["headers"])
            exchange = Exchange(send, False, _request_id(headers))
            if self._around is None:
                await self._connect(scope, receive, send, exchange)
            else:
                self._prepare(scope, exchange)
                await self._around(scope, receive, send)

    # -- one request ------------------------------------------------------------------------
    async def _serve(self, scope: Any, receive: Receive, send: Send) -> None:
        started = perf_counter()
        method: str = scope["method"]
        headers: dict[bytes, bytes] = dict(scope["headers"])
        exchange = Exchange(send, method == "HEAD", _request_id(headers))
        LOG_CONTEXT.set({"request_id": exchange.request_id})
        origin = headers.get(b"origin")
        if origin is not None:
            exchange.extra.extend(self._cors.headers(origin))
        if self._headers is not None:
            RUN_HEADERS.set(self._headers.of(scope["headers"]))
        if (
            method == "OPTIONS"
            and b"origin" in headers
            and b"access-control-request-method" in headers
        ):
            await self._cors.preflight(headers).send(receive, exchange.send)
        elif self._around is None:
            await self._attempt(scope, receive, exchange.send, exchange, headers)
        else:
            await self._pass_around(self._around, scope, receive, exchange)
        if exchange.is_gone:
            return
        if exchange.counted:
            latency_ms = (perf_counter() - started) * 1000
            self._metrics.observe(method, exchange.template, exchange.status, latency_ms)
            self._access_log.write(
                scope, exchange.template, exchange.status, latency_ms, exchange.request_id
            )

    async def _attempt(
        self,
        scope: Any,
        receive: Receive,
        send: Send,
        exchange: Exchange,
        headers: dict[bytes, bytes],
    ) -> None:
        """Let the built-in routes answer, with an error if need be."""
        try:
            await self._answer(scope, receive, send, exchange, headers)
        except ClientGone:
            exchange.is_gone = True
        except RequestError as error:
            if not exchange.is_begun:
                await refusal(error).send(receive, send)
        except Exception:
            self._log_failure(scope, exchange)
            if not exchange.is_begun:
                await refusal(_unforeseen(exchange)).send(receive, send)

    def _log_failure(self, scope: Any, exchange: Exchange) -> None:
        self._log.exception(
            "unhandled error",
            method=scope.get("method", "GET"),
            path=shown_path(scope),
            request_id=exchange.request_id,
        )

    async def _answer(
        self,
        scope: Any,
        receive: Receive,
        send: Send,
        exchange: Exchange,
        headers: dict[bytes, bytes],
    ) -> None:
        method: str = scope["method"]
        path = self._path(scope["path"])
        found = self._router.find(method, path)
        if found is None:
            if self._authenticate is not None:
                await self._identify(self._authenticate, scope, exchange.request_id)
            await self._miss(scope, path).send(receive, send)
            return
        bound, route, values = found
        exchange.template = scope["route"] = route.template
        exchange.counted = bound.counted
        scope["path_params"] = dict(zip(route.names, values, strict=True)) if values else {}
        answer = await self._handle(bound, scope, receive, headers, exchange.request_id)
        if type(answer) is Body and len(answer.body) >= COMPRESS_FROM_BYTES:
            answer = await compressed(answer, headers.get(b"accept-encoding", b""))
        await answer.send(receive, send)

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
            caller = await self._identify(self._authenticate, scope, request_id)
        request = Request(scope, receive, caller, request_id)
        if bound.decode is None:
            return await bound.handler(request)
        raw = await read_body(receive, headers.get(b"content-length"), self._max_body_bytes)
        if not raw and bound.optional_body:
            raw = b"{}"
        request.raw_body = raw
        return await bound.handler(request, bound.decode(raw))

    async def _identify(self, authenticate: Authenticate, scope: Any, request_id: str) -> Caller:
        """Who calls, once for each request: ``request.user`` of Starlette knows it too."""
        if (known := scope.get("treadle.caller")) is not None:
            return known
        if not any(name == b"x-request-id" for name, _ in scope["headers"]):
            header = (b"x-request-id", request_id.encode("latin-1"))
            scope["headers"] = [*scope["headers"], header]
        caller = await authenticate(scope)
        scope["user"] = caller.user
        scope["auth"] = AuthCredentials(caller.permissions)
        scope["treadle.caller"] = caller
        ACTING.set(caller)
        return caller

    # -- the project's own app --------------------------------------------------------------
    async def _pass_around(
        self, around: Asgi, scope: Any, receive: Receive, exchange: Exchange
    ) -> None:
        """Let the project's own app answer, in which the built-in API is."""
        self._prepare(scope, exchange)
        try:
            needs_caller = self._auth_first and not self._is_open(scope)
            if needs_caller and not await self.let_in(scope, receive, exchange.send):
                return
            await around(scope, receive, exchange.send)
        except Exception:
            if exchange.is_gone:  # a middleware that waits for an answer
                return
            self._log_failure(scope, exchange)
            if not exchange.status:
                await refusal(_unforeseen(exchange)).send(receive, exchange.send)

    def _prepare(self, scope: Any, exchange: Exchange) -> None:
        """Tell the app what it is to know of a request."""
        exchange.is_foreign = True
        exchange.is_outside = not self._path(scope["path"])
        scope["treadle.exchange"] = exchange
        scope["state"] = {**self._state, **scope.get("state", {})}
        if self._prefix and scope["path"].startswith(self._prefix):
            scope["root_path"] = self._prefix

    def _is_open(self, scope: Any) -> bool:
        """Whether a request is answered without a caller."""
        assert self._custom is not None
        if self._custom.template(scope) is not None:
            return not self._custom.is_protected
        found = self._router.find(scope["method"], self._path(scope["path"]))
        return found is not None and found[0].public

    async def serve(self, scope: Any, receive: Receive, send: Send) -> None:
        """The built-in API, as the project's own app calls it."""
        exchange: Exchange = scope["treadle.exchange"]
        if scope["type"] == "http":

            def passing(message: Any) -> Awaitable[None]:
                exchange.is_begun = True
                return send(message)

            await self._attempt(scope, receive, passing, exchange, dict(scope["headers"]))
        else:
            await self._connect(scope, receive, send, exchange)

    def knows(self, scope: Any) -> bool:
        """Whether the built-in API has such a path, whatever its methods."""
        router = self._router if scope["type"] == "http" else self._sockets
        return bool(router.methods(self._path(scope["path"])))

    async def let_in(self, scope: Any, receive: Receive, send: Send) -> bool:
        """Find out who calls; if nobody who may, answer so, and return False."""
        if self._authenticate is None:
            return True
        exchange: Exchange = scope["treadle.exchange"]
        try:
            await self._identify(self._authenticate, scope, exchange.request_id)
        except RequestError as error:
            failure = error
        except Exception:
            self._log_failure(scope, exchange)
            failure = _unforeseen(exchange)
        else:
            return True
        if scope["type"] == "http":
            await refusal(failure).send(receive, send)
        else:
            await receive()  # the wish to connect
            await self._refuse_socket(scope, send, failure)
        return False

    # -- WebSockets -------------------------------------------------------------------------
    async def _connect(self, scope: Any, receive: Receive, send: Send, exchange: Exchange) -> None:
        """Let a WebSocket in, past the same gate as any request, and serve it."""
        headers: dict[bytes, bytes] = dict(scope["headers"])
        request_id = exchange.request_id
        LOG_CONTEXT.set({"request_id": request_id})
        if self._headers is not None:
            RUN_HEADERS.set(self._headers.of(scope["headers"]))
        found = self._sockets.find("GET", self._path(scope["path"]))
        if found is None or not self._cors.admits(headers.get(b"origin")):
            await send({"type": "websocket.close", "code": 1000})  # before accepting: a 403
            return
        endpoint, route, values = found
        scope["route"] = route.template
        scope["path_params"] = dict(zip(route.names, values, strict=True))
        await receive()  # the wish to connect
        try:
            caller = ANYONE
            if self._authenticate is not None:
                caller = await self._identify(self._authenticate, scope, request_id)
        except RequestError as error:
            await self._refuse_socket(scope, send, error)
            return
        except Exception:
            self._log_failure(scope, exchange)
            await self._refuse_socket(scope, send, _unforeseen(exchange))
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
            self._log_failure(scope, exchange)
            await _close(socket, 1011, f"Internal error, request {request_id}")

    async def _refuse_socket(self, scope: Any, send: Send, error: RequestError) -> None:
        if "websocket.http.response" not in scope.get("extensions", {}):
            await send({"type": "websocket.close", "code": 1000})
            return
        body = dumps({"detail": error.detail})
        start = {"type": "websocket.http.response.start", "status": error.status,
                 "headers": [JSON_TYPE, *_headers_of(error)]}  # fmt: skip
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
    async def _live(self, scope: Any, receive: Receive, send: Send) -> None:
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
                        self._state.update(await stack.enter_async_context(lifespan()) or {})
            except Exception as error:
                self.failure = error
                await send({"type": "lifespan.startup.failed", "message": ""})
                return
            await send({"type": "lifespan.startup.complete"})
            await receive()
        await send({"type": "lifespan.shutdown.complete"})


def _request_id(headers: dict[bytes, bytes]) -> str:
    given = headers.get(b"x-request-id")
    return given.decode("latin-1") if given else new_id()


def _unforeseen(exchange: Exchange) -> RequestError:
    text = f"Internal Server Error. The server's log tells more of request {exchange.request_id}"
    return Denied(500, text)


def refusal(error: RequestError) -> Body:
    """The answer that an error is."""
    return json_response({"detail": error.detail}, error.status, _headers_of(error))


def _headers_of(error: RequestError) -> list[tuple[bytes, bytes]]:
    """The headers that an error brings, fit to be sent; those of the body are the answer's own."""
    return [
        (
            name.lower().encode("latin-1", "replace"),
            _NO_VALUE.sub(" ", value).encode("latin-1", "replace"),
        )
        for name, value in error.headers.items()
        if name.lower() not in _BODY_HEADERS
    ]


async def _close(socket: WebSocket, code: int, text: str) -> None:
    """Close with a reason, of which a frame holds 123 bytes."""
    with contextlib.suppress(ClientGone):
        await socket.close(code, text.encode()[:120].decode(errors="ignore"))
