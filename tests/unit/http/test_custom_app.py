"""The project's own app around the built-in API."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from fastapi import FastAPI
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request as StarletteRequest
from starlette.responses import JSONResponse, PlainTextResponse
from starlette.routing import Mount, Route, WebSocketRoute
from starlette.websockets import WebSocket
from structlog.testing import capture_logs

from treadle.auth import Caller
from treadle.auth.callers import caller_of
from treadle.auth.users import User
from treadle.errors import Denied, StartupError
from treadle.http.application import Application
from treadle.http.custom_app import CustomApp, joined_headers
from treadle.http.endpoint import Endpoint

from .test_application import ENDPOINTS, ask, greet


async def show(request: StarletteRequest) -> JSONResponse:
    user = request.scope.get("user")
    return JSONResponse({"own": request.url.path, "user": getattr(user, "identity", None)})


async def crash(request: StarletteRequest) -> JSONResponse:
    raise RuntimeError("secret")


class Stamp(BaseHTTPMiddleware):
    async def dispatch(self, request: StarletteRequest, call_next: Any) -> Any:
        if request.headers.get("x-block"):
            return PlainTextResponse("blocked", 451)
        response = await call_next(request)
        response.headers["x-stamp"] = "1"
        return response


def around(own: Starlette, **more: Any) -> Application:
    protected = more.pop("is_protected", False)
    return Application(ENDPOINTS, custom_app=CustomApp(own, is_protected=protected), **more)


async def test_middleware_sees_built_in_answers_and_errors():
    app = around(Starlette(middleware=[Middleware(Stamp)], routes=[Route("/own", show)]))
    with capture_logs():
        for method, path, status in (
            ("GET", "/own", 200),
            ("GET", "/ok", 204),
            ("GET", "/conflict", 409),
            ("GET", "/broken", 500),
            ("GET", "/nowhere", 404),
        ):
            answer = await ask(app, method, path)
            assert (answer.status, answer.headers["x-stamp"]) == (status, "1"), path
            assert (await ask(app, method, path, x_block="1")).status == 451


async def test_a_wrong_method_falls_through_and_is_405_if_nobody_has_it():
    app = around(Starlette(routes=[Route("/things/{n}", show), Route("/own", show)]))
    assert (await ask(app, "DELETE", "/things/7")).status == 204
    answer = await ask(app, "POST", "/own")
    assert answer.status == 405
    assert set(answer.headers["allow"].split(", ")) == {"GET", "HEAD"}


@pytest.mark.parametrize(
    "route",
    [Mount("/", PlainTextResponse("page")), Route("/{rest:path}", show)],
    ids=["mount", "route"],
)
async def test_what_takes_every_path_comes_after_the_built_in_routes(route):
    app = around(Starlette(routes=[route]))
    assert (await ask(app, "GET", "/things/7")).json()["thing"] == "7"
    assert (await ask(app, "GET", "/index.html")).status == 200


async def test_a_mount_hides_no_built_in_route_that_it_does_not_have():
    inner = Starlette(routes=[Route("/7/extra", show)])
    app = around(Starlette(routes=[Mount("/things", inner)]))
    assert (await ask(app, "GET", "/things/7/extra")).json()["own"] == "/things/7/extra"
    assert (await ask(app, "GET", "/things/7")).json()["thing"] == "7"


async def test_the_lifespans_state_is_on_the_request():
    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncGenerator[dict[str, str]]:
        yield {"pool": "open"}

    async def read(request: StarletteRequest) -> JSONResponse:
        return JSONResponse(request.state.pool)

    app = around(Starlette(lifespan=lifespan, routes=[Route("/pool", read)]))
    messages = iter([{"type": "lifespan.startup"}, {"type": "lifespan.shutdown"}])
    asked: list[Any] = []

    async def receive() -> Any:
        message = next(messages)
        if message["type"] == "lifespan.shutdown":
            asked.append((await ask(app, "GET", "/pool")).json())
        return message

    async def send(message: Any) -> None:
        pass

    await app({"type": "lifespan"}, receive, send)
    assert asked == ["open"]


async def test_a_crash_is_json_that_names_the_request_and_is_logged():
    app = around(Starlette(routes=[Route("/crash", crash)]))
    with capture_logs() as logs:
        answer = await ask(app, "GET", "/crash", x_request_id="r1")
    assert answer.status == 500
    assert "r1" in answer.json()["detail"]
    assert "secret" not in answer.json()["detail"]
    [failure] = [line for line in logs if line["event"] == "unhandled error"]
    assert failure["request_id"] == "r1"


async def test_an_exception_handler_of_the_app_comes_first():
    async def mine(request: StarletteRequest, error: Exception) -> PlainTextResponse:
        return PlainTextResponse("mine", 500)

    app = around(Starlette(routes=[Route("/crash", crash)], exception_handlers={500: mine}))
    with capture_logs():
        assert (await ask(app, "GET", "/crash")).body == b"mine"


async def test_cors_of_the_app_does_not_double_that_of_the_server():
    cors = Middleware(CORSMiddleware, allow_origins=["http://page"], expose_headers=["x-own"])
    app = around(Starlette(middleware=[cors], routes=[Route("/own", show)]))
    answer = await ask(app, "GET", "/own", origin="http://page")
    assert answer.headers["access-control-allow-origin"] == "*"
    assert answer.headers["vary"] == "Origin"


def test_of_the_request_id_the_apps_own_counts():
    given = [(b"X-Request-Id", b"theirs")]
    assert joined_headers(given, [(b"x-request-id", b"ours"), (b"vary", b"Origin")]) == [
        (b"X-Request-Id", b"theirs"),
        (b"vary", b"Origin"),
    ]


class Guard:
    """Lets ``token`` in, and counts how often it is asked."""

    def __init__(self) -> None:
        self.asked = 0

    async def __call__(self, scope: Any) -> Caller:
        self.asked += 1
        if (b"authorization", b"token") not in scope["headers"]:
            raise Denied(401, "no token")
        return caller_of(User({"identity": "ada"}), None)


def own_app() -> Starlette:
    return Starlette(middleware=[Middleware(Stamp)], routes=[Route("/own", show)])


@pytest.mark.parametrize("auth_first", [False, True])
async def test_each_request_is_authenticated_once(auth_first):
    guard = Guard()
    app = around(own_app(), authenticate=guard, auth_first=auth_first, is_protected=True)
    for path in ("/own", "/conflict", "/nowhere"):
        guard.asked = 0
        assert (await ask(app, "GET", path)).status == 401
        assert (await ask(app, "GET", path, authorization="token")).status != 401
        assert guard.asked == 2, path
    assert (await ask(app, "GET", "/own", authorization="token")).json()["user"] == "ada"


@pytest.mark.parametrize(("auth_first", "status"), [(False, 451), (True, 401)])
async def test_the_order_of_middleware_and_authentication(auth_first, status):
    app = around(own_app(), authenticate=Guard(), auth_first=auth_first)
    assert (await ask(app, "GET", "/conflict", x_block="1")).status == status
    assert (await ask(app, "GET", "/own", x_block="1")).status == 451
    assert (await ask(app, "GET", "/own")).json()["user"] is None


async def test_everything_is_below_the_prefix():
    app = around(own_app(), mount_prefix="/api/v1")
    assert (await ask(app, "GET", "/api/v1/own")).json()["own"] == "/api/v1/own"
    assert (await ask(app, "GET", "/own")).status == 404
    assert (await ask(app, "GET", "/api/v1/things/7")).json()["thing"] == "7"
    assert (await ask(app, "GET", "/ok")).status == 204


async def test_websockets_of_the_app():
    async def hello(socket: WebSocket) -> None:
        await socket.accept()
        await socket.send_text("hello")
        await socket.close()

    app = around(Starlette(routes=[WebSocketRoute("/chat", hello)]))
    assert await connect(app, "/chat") == [
        "websocket.accept", "websocket.send", "websocket.close",
    ]  # fmt: skip
    assert await connect(app, "/nowhere") == ["websocket.close"]


async def test_a_websocket_of_a_protected_app_needs_a_caller():
    app = around(
        Starlette(routes=[WebSocketRoute("/chat", show)]),  # pyright: ignore
        authenticate=Guard(),
        is_protected=True,
    )
    assert await connect(app, "/chat") == ["websocket.close"]


async def connect(app: Application, path: str) -> list[str]:
    sent: list[str] = []

    async def receive() -> Any:
        return {"type": "websocket.connect"}

    async def send(message: Any) -> None:
        sent.append(message["type"])

    await app(
        {"type": "websocket", "path": path, "headers": [], "query_string": b""}, receive, send
    )
    return sent


async def test_fastapi_keeps_its_routes_and_leaves_docs_to_the_server():
    own = FastAPI(title="Mine")

    @own.get("/items/{number}")
    def item(number: int) -> dict[str, int]:
        return {"number": number}

    docs = Endpoint("GET", "/docs", greet, "T", "Docs", body=None)
    app = Application([*ENDPOINTS[1:], docs], custom_app=CustomApp(own))
    assert (await ask(app, "GET", "/items/3")).json() == {"number": 3}
    assert (await ask(app, "GET", "/items/x")).status == 422
    assert (await ask(app, "GET", "/redoc")).status == 200  # nobody else has it


def test_what_is_no_app_is_refused_by_name():
    with pytest.raises(StartupError, match=r"\./web\.py:app is a dict"):
        CustomApp({}, "./web.py:app")
