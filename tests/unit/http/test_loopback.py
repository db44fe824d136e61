"""The SDK's client without a URL."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from langgraph_sdk import get_client
from langgraph_sdk._async import client as sdk

from treadle.auth import ANYONE, Caller
from treadle.auth.acting import ACTING
from treadle.http import loopback
from treadle.http.loopback import CHUNKS, Loopback


class Server:
    """Answers in pieces; ``first`` is the scope that it saw, ``gone`` that its client left."""

    def __init__(self, pieces: int = 3) -> None:
        self.pieces, self.sent = pieces, 0
        self.scope: Any = None
        self.thread = 0
        self.gone = asyncio.Event()
        self.go_on = asyncio.Event()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.scope, self.thread = scope, threading.get_ident()
        body = (await receive())["body"]
        leaving = asyncio.create_task(self._watch(receive))
        await send({"type": "http.response.start", "status": 201, "headers": [(b"x", b"y")]})
        for number in range(self.pieces):
            await send({"type": "http.response.body", "body": b"%d" % number, "more_body": True})
            self.sent += 1
        await self.go_on.wait()
        await send({"type": "http.response.body", "body": body})
        leaving.cancel()

    async def _watch(self, receive: Any) -> None:
        assert (await receive())["type"] == "http.disconnect"
        self.gone.set()
        self.go_on.set()


@pytest.fixture(autouse=True)
def installed() -> Iterator[None]:
    before = sdk.get_asgi_transport, sdk._registered_transports, Loopback.app
    loopback.install()
    yield
    module: Any = sdk
    module.get_asgi_transport, module._registered_transports, Loopback.app = before


async def test_an_answer_is_read_as_it_is_made():
    server = Server()
    loopback.connect(server, "/api")
    http = get_client().http.client
    async with http.stream("POST", "/runs?a=1", content=b"end") as response:
        assert (response.status_code, response.headers["x"]) == (201, "y")
        chunks = response.aiter_raw()
        assert [await anext(chunks) for _ in range(3)] == [b"0", b"1", b"2"]
        server.go_on.set()
        assert [chunk async for chunk in chunks] == [b"end"]
    assert (server.scope["path"], server.scope["query_string"]) == ("/api/runs", b"a=1")


async def test_a_reader_that_leaves_has_hung_up_and_holds_nothing_up():
    server = Server(pieces=CHUNKS * 2)
    loopback.connect(server, "")
    async with get_client().http.client.stream("GET", "/") as response:
        await anext(response.aiter_raw())
        assert server.sent <= CHUNKS + 2  # no further than it is read
    await asyncio.wait_for(server.gone.wait(), 5)


async def test_calls_from_another_loop_are_served_on_the_servers():
    server = Server()
    server.go_on.set()
    loopback.connect(server, "")

    async def call() -> bytes:
        return (await get_client().http.client.get("/x")).content

    assert await asyncio.to_thread(asyncio.run, call()) == b"012"
    assert server.thread == threading.get_ident()


@pytest.mark.parametrize("caller", [None, Caller("ada")])
async def test_a_call_is_made_on_behalf_of_whom_the_code_works_for(caller):
    server = Server()
    server.go_on.set()
    loopback.connect(server, "")
    token = ACTING.set(caller)
    await get_client().http.client.get("/x")
    ACTING.reset(token)
    assert server.scope["treadle.caller"] == (caller or ANYONE)


async def test_before_the_server_is_there_a_call_fails_cleanly():
    Loopback.app = None
    with pytest.raises(httpx.ConnectError, match="has not started"):
        await get_client().http.client.get("/x")


async def test_what_the_server_raises_reaches_the_caller():
    async def broken(scope: Any, receive: Any, send: Any) -> None:
        raise RuntimeError("no")

    loopback.connect(broken, "")
    with pytest.raises(RuntimeError, match="no"):
        await get_client().http.client.get("/x")


async def test_clients_are_not_kept():
    for _ in range(10):
        get_client()
    assert len(sdk._registered_transports) == 0
