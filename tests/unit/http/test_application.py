"""The ASGI application: routing, errors, bodies, headers."""

from __future__ import annotations

import gzip
import json
from typing import Any

import msgspec
import pytest
from starlette.applications import Starlette
from starlette.requests import Request as StarletteRequest
from starlette.responses import JSONResponse
from starlette.routing import Route
from structlog.testing import capture_logs

from treadle.auth import Caller
from treadle.auth.users import user_of
from treadle.errors import Conflict, Denied, Forbidden, Invalid
from treadle.http.application import Application
from treadle.http.cors import CorsSettings
from treadle.http.custom_app import CustomApp
from treadle.http.endpoint import Endpoint, SocketEndpoint
from treadle.http.metrics import RequestMetrics
from treadle.http.request import Request
from treadle.http.response import Response, json_response, no_content


class Wanted(msgspec.Struct):
    name: str = "nobody"


async def greet(request: Request, body: Wanted) -> Response:
    return json_response({"hello": body.name})


async def thing(request: Request) -> Response:
    return json_response({"thing": request.path("thing_id"), "route": request.scope["route"]})


async def large(request: Request) -> Response:
    return json_response({"text": "x" * 40_000})


async def conflict(request: Request) -> Response:
    raise Conflict("It is there already")


async def broken(request: Request) -> Response:
    raise RuntimeError("secret")


async def empty(request: Request) -> Response:
    return no_content()


ENDPOINTS = [
    Endpoint("POST", "/greet", greet, "T", "Greet", body=Wanted),
    Endpoint("POST", "/greet/softly", greet, "T", "Softly", body=Wanted, optional_body=True),
    Endpoint("GET", "/things/{thing_id}", thing, "T", "Get"),
    Endpoint("POST", "/things/search", greet, "T", "Search", body=Wanted),
    Endpoint("DELETE", "/things/{thing_id}", empty, "T", "Delete"),
    Endpoint("GET", "/large", large, "T", "Large"),
    Endpoint("GET", "/conflict", conflict, "T", "Conflict"),
    Endpoint("GET", "/broken", broken, "T", "Broken"),
    Endpoint("GET", "/ok", empty, "T", "Ok", counted=False),
]


class Answer:
    def __init__(self) -> None:
        self.status = 0
        self.headers: dict[str, str] = {}
        self.body = b""

    def json(self) -> Any:
        return json.loads(self.body)

    async def take(self, message: Any) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            for key, value in message["headers"]:
                name = key.decode()
                before = f"{self.headers[name]}, " if name in self.headers else ""
                self.headers[name] = before + value.decode()
        else:
            self.body += message.get("body", b"")


async def ask(
    app: Application,
    method: str,
    path: str,
    body: bytes | list[bytes] = b"",
    query: bytes = b"",
    **headers: str,
) -> Answer:
    parts = [body] if isinstance(body, bytes) else list(body)

    async def receive() -> Any:
        if not parts:
            return {"type": "http.disconnect"}
        part = parts.pop(0)
        return {"type": "http.request", "body": part, "more_body": bool(parts)}

    raw = [(k.replace("_", "-").encode(), v.encode()) for k, v in headers.items()]
    scope = {"type": "http", "method": method, "path": path, "raw_path": path.encode(),
             "query_string": query, "headers": raw}  # fmt: skip
    answer = Answer()
    await app(scope, receive, answer.take)
    return answer


@pytest.fixture
def app() -> Application:
    return Application(ENDPOINTS)


# -- routing ------------------------------------------------------------------------------
async def test_handler_gets_its_body(app):
    answer = await ask(app, "POST", "/greet", b'{"name": "Ada"}')
    assert (answer.status, answer.json()) == (200, {"hello": "Ada"})
    assert answer.headers["content-length"] == str(len(answer.body))


async def test_path_parameters_and_template(app):
    assert (await ask(app, "GET", "/things/7")).json() == {
        "thing": "7",
        "route": "/things/{thing_id}",
    }


async def test_literal_segments_win_unless_only_the_parameter_has_the_method(app):
    assert (await ask(app, "POST", "/things/search", b"{}")).json() == {"hello": "nobody"}
    assert (await ask(app, "GET", "/things/search")).json()["thing"] == "search"


@pytest.mark.parametrize("path", ["/nowhere", "/things", "/things/7/more", "*", "/things//"])
async def test_unknown_path_is_404(app, path):
    answer = await ask(app, "GET", path)
    assert (answer.status, answer.json()) == (404, {"detail": "Not Found"})


async def test_wrong_method_is_405_and_names_the_right_ones(app):
    answer = await ask(app, "PUT", "/things/7")
    assert (answer.status, answer.json()) == (405, {"detail": "Method Not Allowed"})
    assert answer.headers["allow"] == "DELETE, GET, HEAD"


@pytest.mark.parametrize(("method", "path"), [("POST", "/ok"), ("GET", "/ok/")])
async def test_probes_have_one_address_and_no_redirect(method, path):
    app = Application([Endpoint("GET", "/ok", ENDPOINTS[0].handler, "System", "Probe")])
    assert (await ask(app, method, path)).status == 404


async def test_trailing_slash_redirects_with_its_query(app):
    answer = await ask(app, "POST", "/greet/", b"{}", query=b"a=1")
    assert (answer.status, answer.headers["location"]) == (307, "/greet?a=1")


async def test_redirect_never_leads_to_another_host(app):
    answer = await ask(app, "POST", "//greet/", b"{}")
    assert answer.headers["location"] == "/greet"


async def test_slashes_are_collapsed(app):
    assert (await ask(app, "GET", "//things//7")).json()["thing"] == "7"


async def test_head_is_served_by_get_without_a_body(app):
    answer = await ask(app, "HEAD", "/things/7")
    assert (answer.status, answer.body) == (200, b"")
    assert int(answer.headers["content-length"]) > 0


async def test_mount_prefix_moves_all_but_ok():
    app = Application(ENDPOINTS, mount_prefix="/api/v1")
    assert (await ask(app, "POST", "/api/v1/greet", b"{}")).status == 200
    assert (await ask(app, "GET", "/ok")).status == 204
    assert (await ask(app, "GET", "/api/v1/ok")).status == 204
    for path in ("/greet", "/api/v1greet", "/api"):
        assert (await ask(app, "POST", path, b"{}")).status == 404


# -- errors -------------------------------------------------------------------------------
async def test_request_error_is_its_status_and_text(app):
    answer = await ask(app, "GET", "/conflict")
    assert (answer.status, answer.json()) == (409, {"detail": "It is there already"})


async def test_unforeseen_error_names_the_request_and_nothing_else(app, capsys):
    answer = await ask(app, "GET", "/broken", x_request_id="req-1")
    assert answer.status == 500
    assert "req-1" in answer.json()["detail"]
    assert "secret" not in answer.body.decode()
    assert "RuntimeError: secret" in capsys.readouterr().out


async def test_error_after_the_answer_began_does_not_begin_another(app, capsys):
    class Torn:
        async def send(self, receive: Any, send: Any) -> None:
            await send({"type": "http.response.start", "status": 200, "headers": []})
            raise RuntimeError("torn")

    async def tear(request: Request) -> Response:
        return Torn()

    torn = Application([Endpoint("GET", "/torn", tear, "T", "Torn", stream=True)])
    answer = await ask(torn, "GET", "/torn")
    assert (answer.status, answer.body) == (200, b"")


# -- who calls ----------------------------------------------------------------------------
class Guard:
    """Lets those in who say ``Bearer NAME``, and counts how often it is asked."""

    def __init__(self) -> None:
        self.asked: list[Any] = []

    async def __call__(self, scope: Any) -> Caller:
        self.asked.append(scope)
        found = dict(scope["headers"]).get(b"authorization", b"").decode().partition(" ")[2]
        if found == "broken":
            raise RuntimeError("secret")
        if not found:
            headers = {
                "WWW-Authenticate": "Bearer",
                "Content-Length": "7",
                "X-Odd": "a\r\nb: \u20ac",
            }
            raise Denied(401, {"who": "are you?"}, headers)
        return Caller(found, ("read",), user_of(found))


async def whoami(request: Request) -> Response:
    seen = StarletteRequest(request.scope)
    return json_response([request.caller.identity, seen.user.identity, seen.auth.scopes])


GUARDED = [
    *ENDPOINTS,
    Endpoint("GET", "/me", whoami, "T", "Me"),
    Endpoint("GET", "/open", empty, "T", "Open", public=True),
]


@pytest.mark.parametrize(
    ("method", "path"),
    [("GET", "/me"), ("POST", "/greet"), ("GET", "/nowhere"), ("PUT", "/me"), ("GET", "/me/"),
     ("OPTIONS", "/me"), ("POST", "/open"), ("HEAD", "/me")],
)  # fmt: skip
async def test_nobody_gets_past_the_gate(method: str, path: str):
    guard = Guard()
    answer = await ask(
        Application(GUARDED, authenticate=guard),
        method,
        path,
        b"no json",
        origin="https://a.example",
    )
    assert answer.status == 401
    assert answer.body == (b"" if method == "HEAD" else b'{"detail":{"who":"are you?"}}')
    assert answer.headers["www-authenticate"] == "Bearer"
    assert answer.headers["content-length"] == "29"
    assert answer.headers["x-odd"] == "a b: ?"
    assert answer.headers["access-control-allow-origin"] == "*"
    assert len(guard.asked) == 1


async def test_who_is_known_is_asked_once_and_known_to_all():
    guard = Guard()
    app = Application(GUARDED, authenticate=guard)
    answer = await ask(app, "GET", "/me", authorization="Bearer ann", x_request_id="r-1")
    assert answer.json() == ["ann", "ann", ["read"]]
    for method, path, status in [
        ("GET", "/nowhere", 404),
        ("PUT", "/me", 405),
        ("GET", "/me/", 307),
    ]:
        assert (await ask(app, method, path, authorization="Bearer ann")).status == status
    assert len(guard.asked) == 4
    given = [dict(scope["headers"])[b"x-request-id"] for scope in guard.asked]
    assert given[0] == b"r-1"
    assert len(given[1]) == 36


async def test_what_is_public_asks_nobody():
    guard = Guard()
    app = Application(GUARDED, authenticate=guard)
    assert (await ask(app, "GET", "/open")).status == 204
    preflight = {"origin": "https://a.example", "access_control_request_method": "POST"}
    assert (await ask(app, "OPTIONS", "/greet", **preflight)).status == 200
    assert guard.asked == []


async def test_a_gate_that_breaks_lets_nobody_in(capsys):
    app = Application(GUARDED, authenticate=Guard())
    answer = await ask(app, "GET", "/me", authorization="Bearer broken")
    assert answer.status == 500
    assert answer.headers["x-request-id"] in answer.json()["detail"]
    assert b"secret" not in answer.body


# -- bodies -------------------------------------------------------------------------------
async def test_body_may_come_in_parts(app):
    answer = await ask(app, "POST", "/greet", [b'{"na', b'me": ', b'"Ada"}'])
    assert answer.json() == {"hello": "Ada"}


async def test_missing_body_is_invalid_unless_it_is_optional(app):
    answer = await ask(app, "POST", "/greet")
    assert (answer.status, answer.json()) == (422, {"detail": "Invalid JSON in request body"})
    assert (await ask(app, "POST", "/greet/softly")).status == 200


@pytest.mark.parametrize(
    ("body", "headers"),
    [(b"", {"content_length": "101"}), ([b"x" * 60, b"x" * 60], {}), (b"x" * 101, {})],
    ids=["announced", "in parts", "at once"],
)
async def test_large_body_is_413(body, headers):
    app = Application(ENDPOINTS, max_body_bytes=100)
    answer = await ask(app, "POST", "/greet", body, **headers)
    assert answer.status == 413
    assert "100 bytes" in answer.json()["detail"]


async def test_client_that_leaves_within_its_body_is_no_error(app, capsys):
    scope = {"type": "http", "method": "POST", "path": "/greet", "query_string": b"",
             "headers": []}  # fmt: skip
    messages = [{"type": "http.request", "body": b"{", "more_body": True}]

    async def receive() -> Any:
        return messages.pop() if messages else {"type": "http.disconnect"}

    answer = Answer()
    await app(scope, receive, answer.take)
    assert answer.status == 0
    assert "rror" not in capsys.readouterr().out


# -- headers ------------------------------------------------------------------------------
async def test_request_id_is_sent_back_or_made(app):
    given = await ask(app, "GET", "/things/7", x_request_id="req-42")
    assert given.headers["x-request-id"] == "req-42"
    assert len((await ask(app, "GET", "/nowhere")).headers["x-request-id"]) == 36


async def test_every_origin_may_read_answers_and_errors(app):
    for path in ("/things/7", "/nowhere", "/conflict"):
        answer = await ask(app, "GET", path, origin="https://a.example")
        assert answer.headers["access-control-allow-origin"] == "*"
        assert "x-pagination-total" in answer.headers["access-control-expose-headers"]
        assert answer.headers["vary"] == "Origin"


async def test_listed_origins_only():
    app = Application(ENDPOINTS, cors=CorsSettings(allow_origins=("https://a.example",)))
    allowed = await ask(app, "GET", "/things/7", origin="https://a.example")
    assert allowed.headers["access-control-allow-origin"] == "https://a.example"
    other = await ask(app, "GET", "/things/7", origin="https://b.example")
    assert "access-control-allow-origin" not in other.headers


async def test_origin_regex_alone_restricts():
    cors = CorsSettings(allow_origin_regex=r"https://.*\.example", allow_credentials=True)
    app = Application(ENDPOINTS, cors=cors)
    allowed = await ask(app, "GET", "/ok", origin="https://a.example")
    assert allowed.headers["access-control-allow-origin"] == "https://a.example"
    assert allowed.headers["access-control-allow-credentials"] == "true"
    other = await ask(app, "GET", "/ok", origin="https://a.test")
    assert "access-control-allow-origin" not in other.headers


async def test_preflight(app):
    asked = {
        "origin": "https://a.example",
        "access_control_request_method": "PATCH",
        "access_control_request_headers": "x-api-key",
    }
    answer = await ask(app, "OPTIONS", "/things/7", **asked)
    assert answer.status == 200
    assert answer.headers["access-control-allow-origin"] == "*"
    assert "PATCH" in answer.headers["access-control-allow-methods"]
    assert answer.headers["access-control-allow-headers"] == "x-api-key"
    closed = Application(ENDPOINTS, cors=CorsSettings(allow_origins=("https://b.example",)))
    refused = await ask(closed, "OPTIONS", "/things/7", **asked)
    assert refused.status == 400
    assert "access-control-allow-origin" not in refused.headers


async def test_large_answers_are_compressed_where_that_is_accepted(app):
    packed = await ask(app, "GET", "/large", accept_encoding="deflate, gzip;q=0.5")
    assert packed.headers["content-encoding"] == "gzip"
    assert packed.headers["vary"] == "Accept-Encoding, Origin"
    assert len(json.loads(gzip.decompress(packed.body))["text"]) == 40_000
    for accepted in ("br", "gzip;q=0", ""):
        plain = await ask(app, "GET", "/large", accept_encoding=accepted)
        assert "content-encoding" not in plain.headers
        assert len(plain.json()["text"]) == 40_000


async def test_requests_are_counted_by_template():
    metrics = RequestMetrics()
    app = Application(ENDPOINTS, metrics=metrics)
    for path in ("/things/1", "/things/2", "/nowhere", "/ok"):
        await ask(app, "GET", path)
    assert metrics.requests == {
        ("GET", "/things/{thing_id}", 200): 2,
        ("GET", "", 404): 1,
    }
    assert sum(metrics.latencies["GET", "/things/{thing_id}"].counts) == 2


# -- the user's own app ---------------------------------------------------------------------
async def custom(request: StarletteRequest) -> JSONResponse:
    return JSONResponse({"custom": request.path_params})


async def test_custom_routes_come_first_and_ok_stays():
    own = Starlette(
        routes=[Route(path, custom) for path in ("/ok", "/things/{n}", "/things/{n}/extra")]
    )
    app = Application(ENDPOINTS, custom_app=CustomApp(own))
    assert (await ask(app, "GET", "/things/7")).json() == {"custom": {"n": "7"}}
    assert (await ask(app, "GET", "/things/7/extra")).json() == {"custom": {"n": "7"}}
    assert (await ask(app, "GET", "/ok")).status == 204
    assert (await ask(app, "DELETE", "/things/7")).status == 204
    assert (await ask(app, "POST", "/things/7/extra")).status == 405


async def test_lifespans_are_entered_in_order_and_left():
    import asyncio
    from contextlib import asynccontextmanager

    seen: list[str] = []

    def noted(name: str) -> Any:
        @asynccontextmanager
        async def lifespan(*_: Any) -> Any:
            seen.append(f"{name} in")
            yield
            seen.append(f"{name} out")

        return lifespan

    own = CustomApp(Starlette(lifespan=noted("custom")))
    app = Application(ENDPOINTS, lifespan=noted("server"), custom_app=own)
    messages: asyncio.Queue[Any] = asyncio.Queue()
    sent: asyncio.Queue[Any] = asyncio.Queue()
    living = asyncio.create_task(app({"type": "lifespan"}, messages.get, sent.put))
    await messages.put({"type": "lifespan.startup"})
    assert (await sent.get())["type"] == "lifespan.startup.complete"
    assert seen == ["server in", "custom in"]
    await messages.put({"type": "lifespan.shutdown"})
    await living
    assert seen[2:] == ["custom out", "server out"]


# -- WebSockets ----------------------------------------------------------------------------------


class Upgrade:
    """A client that wants a WebSocket."""

    def __init__(self, path: str = "/echo/a", **headers: str) -> None:
        self.scope = {
            "type": "websocket",
            "path": path,
            "raw_path": path.encode(),
            "query_string": b"",
            "headers": [(key.encode(), value.encode()) for key, value in headers.items()],
            "extensions": {"websocket.http.response": {}},
        }
        self.sent: list[Any] = []
        self.messages: list[Any] = [
            {"type": "websocket.connect"},
            {"type": "websocket.receive", "text": "hello"},
            {"type": "websocket.disconnect"},
        ]

    async def receive(self) -> Any:
        return self.messages.pop(0)

    async def send(self, message: Any) -> None:
        self.sent.append(message)

    async def meets(self, **options: Any) -> list[Any]:
        async def echo(request: Any, socket: Any) -> None:
            if request.path("name") == "refused":
                raise Invalid("not so")
            if request.path("name") == "broken":
                raise RuntimeError
            while (message := await socket.receive()) is not None:
                await socket.send(f"{request.path('name')}: {message}")

        app = Application([], sockets=[SocketEndpoint("/echo/{name}", echo)], **options)
        await app(self.scope, self.receive, self.send)
        return [message["type"].removeprefix("websocket.") for message in self.sent]


async def test_a_socket_is_accepted_and_served():
    upgrade = Upgrade(**{"x-request-id": "r"})
    assert await upgrade.meets() == ["accept", "send"]
    assert upgrade.sent[0]["headers"] == [(b"x-request-id", b"r")]
    assert upgrade.sent[1]["text"] == "a: hello"


async def test_no_socket_elsewhere():
    assert await Upgrade("/other").meets() == ["close"]
    assert await Upgrade().meets(mount_prefix="/api") == ["close"]
    assert await Upgrade("/api/echo/a").meets(mount_prefix="/api") == ["accept", "send"]


async def test_a_socket_passes_the_gate_of_any_request():
    async def nobody(scope: Any) -> Any:
        raise Forbidden("not you")

    upgrade = Upgrade()
    assert await upgrade.meets(authenticate=nobody) == [
        "http.response.start", "http.response.body",
    ]  # fmt: skip
    assert upgrade.sent[0]["status"] == 403
    assert upgrade.sent[1]["body"] == b'{"detail":"not you"}'


@pytest.mark.parametrize(("origin", "admitted"), [("https://a", True), ("https://b", False)])
async def test_a_page_of_another_origin_gets_no_socket(origin, admitted):
    cors = CorsSettings(allow_origins=("https://a",))
    found = await Upgrade(origin=origin).meets(cors=cors)
    assert found == (["accept", "send"] if admitted else ["close"])


@pytest.mark.parametrize(("name", "code"), [("refused", 4422), ("broken", 1011)])
async def test_a_handler_that_raises_closes_its_socket(name, code):
    upgrade = Upgrade(f"/echo/{name}")
    with capture_logs():
        assert await upgrade.meets() == ["accept", "close"]
    assert upgrade.sent[1]["code"] == code
    assert upgrade.sent[1]["reason"]


async def test_a_socket_passes_the_same_gate():
    guard = Guard()
    assert await Upgrade(authorization="Bearer ann").meets(authenticate=guard) == ["accept", "send"]
    assert b"x-request-id" in dict(guard.asked[0]["headers"])
    upgrade = Upgrade()
    assert await upgrade.meets(authenticate=guard) == ["http.response.start", "http.response.body"]
    assert upgrade.sent[0]["status"] == 401
    assert (b"www-authenticate", b"Bearer") in upgrade.sent[0]["headers"]
    assert upgrade.sent[1]["body"] == b'{"detail":{"who":"are you?"}}'


async def test_a_socket_is_not_let_in_by_a_gate_that_breaks(capsys):
    upgrade = Upgrade(authorization="Bearer broken")
    assert await upgrade.meets(authenticate=Guard()) == [
        "http.response.start",
        "http.response.body",
    ]
    assert upgrade.sent[0]["status"] == 500
    assert b"secret" not in upgrade.sent[1]["body"]
