"""Asking the user's ``authenticate``."""

from __future__ import annotations

import asyncio
import functools
import threading
from collections.abc import Callable
from typing import Any

import pytest
from langgraph_sdk import Auth
from structlog.testing import capture_logs

from treadle.auth import Caller
from treadle.auth.authentication import CachedAuthentication, CustomAuthentication
from treadle.auth.rules import CacheRules
from treadle.errors import Denied, StartupError


def asking(handler: Callable[..., Any]) -> CustomAuthentication:
    auth = Auth()
    auth.authenticate(handler)
    return CustomAuthentication(auth, None)


def scope(path: str = "/threads", kind: str = "http", **more: Any) -> dict[str, Any]:
    headers = [(b"authorization", b"Bearer ann"), (b"x-probe", b"one"), (b"x-probe", b"two")]
    found = {"type": kind, "path": path, "query_string": b"q=7&q=8", "headers": headers,
             "server": ("test", 80), **more}  # fmt: skip
    return found if kind == "websocket" else {"method": "POST", "scheme": "http", **found}


async def test_parameters_are_given_by_name():
    async def authenticate(path, method, headers, query_params, path_params, authorization, request,
                           scope, other="default", *args, **kwargs):  # fmt: skip
        return {
            "identity": "ann",
            "seen": (path, method, headers[b"x-probe"], query_params["q"], path_params),
            "authorization": authorization,
            "same": request.headers["x-probe"],
            "url": str(request.url),
            "kind": scope["type"],
            "other": other,
            "rest": (args, kwargs),
        }

    caller = await asking(authenticate)(scope())
    user: Any = caller.user
    assert user.seen == ("/threads", "POST", b"one", "8", {})
    assert (user.authorization, user.same, user.kind) == ("Bearer ann", "one", "http")
    assert user.url == "http://test/threads?q=7&q=8"
    assert (user.other, user.rest) == ("default", ((), {}))


async def test_no_header_no_authorization():
    async def authenticate(authorization):
        return {"identity": "x", "given": authorization}

    caller = await asking(authenticate)({**scope(), "headers": []})
    assert caller.user is not None
    assert caller.user.given is None


async def test_a_websocket_is_asked_of_as_a_request():
    async def authenticate(request, method, path):
        return {"identity": "ann", "seen": (method, path, str(request.url), request.method)}

    caller = await asking(authenticate)(
        scope("/t/x", "websocket", scheme="wss", server=("test", 443))
    )
    assert caller.user is not None
    assert caller.user.seen == ("GET", "/t/x", "https://test/t/x?q=7&q=8", "GET")


async def test_the_path_is_the_one_that_is_routed():
    async def authenticate(path, request, scope):
        return {"identity": "ann", "paths": {path, request.url.path, scope["path"]}}

    caller = await asking(authenticate)(scope("//threads///search"))
    assert caller.user is not None
    assert caller.user.paths == {"/threads/search"}


async def test_a_function_that_blocks_blocks_no_other():
    loop, entered, leave = asyncio.get_running_loop(), asyncio.Event(), threading.Event()

    def authenticate(authorization):
        loop.call_soon_threadsafe(entered.set)
        assert leave.wait(10)
        return threading.current_thread().name

    waiting = asyncio.create_task(asking(authenticate)(scope()))
    await entered.wait()  # the loop is free meanwhile
    leave.set()
    assert (await waiting).identity.startswith("treadle-authenticate")


class Callable_:
    async def __call__(self, authorization):
        return threading.current_thread().name


async def method_like(prefix, authorization):
    return prefix + threading.current_thread().name


@pytest.mark.parametrize("handler", [Callable_(), functools.partial(method_like, "")])
async def test_all_kinds_of_async_callables_run_on_the_loop(handler):
    assert (await asking(handler)(scope())).identity == threading.current_thread().name


async def test_a_sync_function_may_return_something_to_await():
    async def find():
        return "ann"

    assert (await asking(lambda authorization: find())(scope())).identity == "ann"


async def test_what_it_raises_is_the_answer():
    async def authenticate(authorization):
        raise Auth.exceptions.HTTPException(503, "directory is down", {"Retry-After": "5"})

    with pytest.raises(Denied) as denied:
        await asking(authenticate)(scope())
    assert (denied.value.status, denied.value.detail) == (503, "directory is down")
    assert denied.value.headers == {"Retry-After": "5"}


@pytest.mark.parametrize("error", [RuntimeError("x"), AssertionError("x")])
async def test_any_other_exception_is_a_failure(error: Exception):
    async def authenticate():
        raise error

    with pytest.raises(type(error)):
        await asking(authenticate)(scope())


async def test_no_user_is_the_servers_fault_and_logged():
    async def authenticate():
        return {"name": "secret"}

    with capture_logs() as logged, pytest.raises(Denied) as denied:
        await asking(authenticate)(scope())
    assert denied.value.status == 500
    assert "without an identity" in denied.value.detail
    assert "secret" not in denied.value.detail
    assert [entry["log_level"] for entry in logged] == ["error"]


@pytest.mark.parametrize(
    ("handler", "named"),
    [
        (lambda body: "x", '"body": authentication comes before the body is read'),
        (lambda tenant: "x", '"tenant"'),
        (lambda path, /: "x", '"path"'),
    ],
)
def test_a_parameter_that_cannot_be_given_stops_the_start(handler, named):
    with pytest.raises(StartupError, match=named):
        asking(handler)


async def test_a_body_that_need_not_be_there_is_left_out():
    caller = await asking(lambda body="none": body)(scope())
    assert caller.identity == "none"


# -- the cache ------------------------------------------------------------------------------


class Directory:
    """Knows whose a token is, and counts how often it is asked."""

    def __init__(self) -> None:
        self.asked: list[bytes] = []
        self.now = 0.0

    async def __call__(self, scope: Any) -> Caller:
        token = dict(scope["headers"]).get(b"authorization", b"nobody")
        self.asked.append(token)
        if token == b"bad":
            raise Denied(401, "no")
        return Caller(token.decode())

    def cached(self, **rules: Any) -> Callable[..., Any]:
        cache = CachedAuthentication(
            self, CacheRules(**{"cache_keys": ["Authorization"], **rules}), lambda: self.now
        )

        async def call(token: bytes | None, *more: tuple[bytes, bytes]) -> str:
            headers = [*([] if token is None else [(b"authorization", token)]), *more]
            return (await cache({"headers": headers})).identity

        return call


async def test_a_user_is_remembered_by_the_headers_that_count():
    directory = Directory()
    call = directory.cached(ttl_seconds=10)
    assert [await call(b"ann"), await call(b"ann", (b"x", b"y")), await call(b"bob")] == [
        "ann", "ann", "bob"]  # fmt: skip
    assert directory.asked == [b"ann", b"bob"]
    directory.now = 10.0
    await call(b"ann")
    assert directory.asked == [b"ann", b"bob", b"ann"]


async def test_a_refusal_is_not_remembered():
    directory = Directory()
    call = directory.cached()
    for _ in range(2):
        with pytest.raises(Denied):
            await call(b"bad")
    assert directory.asked == [b"bad", b"bad"]


async def test_who_has_none_of_the_headers_is_asked_about_each_time():
    directory = Directory()
    call = directory.cached()
    await call(None, (b"x-api-key", b"ann"))
    await call(None, (b"x-api-key", b"bob"))
    assert len(directory.asked) == 2


async def test_two_headers_of_a_name_are_not_one_of_them():
    directory = Directory()
    call = directory.cached()
    assert await call(b"ann", (b"authorization", b"eve")) == "eve"
    assert await call(b"ann") == "ann"
    assert await call(b"eve") == "eve"


async def test_no_more_are_remembered_than_asked_for():
    directory = Directory()
    call = directory.cached(max_size=2)
    for token in (b"a", b"b", b"c", b"c", b"b", b"a"):
        await call(token)
    assert directory.asked == [b"a", b"b", b"c", b"a"]
