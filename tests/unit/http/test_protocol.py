"""Clients that do not come to the end of what they ask."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import uvicorn
from uvicorn.server import ServerState

from treadle.http import protocol
from treadle.http.protocol import HttpProtocol

HEAD = b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 4\r\n\r\n"
OTHER_HEAD = b"GET / HTTP/1.1\r\nhost: x\r\n"


@pytest.fixture(autouse=True)
def little_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(protocol, "PATIENCE_SECONDS", 0.05)


@asynccontextmanager
async def connected() -> AsyncIterator[
    tuple[asyncio.StreamReader, asyncio.StreamWriter, list[Any]]
]:
    """A connection to an app that answers once the body has come, and what the app hears."""
    heard: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        more = True
        while more:
            message = await receive()
            heard.append(message)
            more = message.get("more_body", False)
        if message["type"] == "http.request":
            await send({"type": "http.response.start", "status": 204, "headers": []})
            await send({"type": "http.response.body"})

    config = uvicorn.Config(
        app, http=HttpProtocol, ws="websockets-sansio", log_config=None, access_log=False
    )
    config.load()
    loop = asyncio.get_running_loop()
    server = await loop.create_server(
        lambda: HttpProtocol(config=config, server_state=ServerState(), app_state={}), "127.0.0.1"
    )
    reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
    try:
        yield reader, writer, heard
    finally:
        writer.close()
        server.close()


@pytest.mark.parametrize("sent", [b"", OTHER_HEAD, HEAD[:-2]])
async def test_a_head_that_never_ends_is_refused(sent: bytes) -> None:
    async with connected() as (reader, writer, heard):
        writer.write(sent)
        answer = await reader.read()
        assert answer.startswith(b"HTTP/1.1 408 ")
        assert answer.endswith(b'{"detail":"The request did not come to its end"}')
        assert heard == []


async def test_a_second_head_that_never_ends_is_refused() -> None:
    async with connected() as (reader, writer, _):
        writer.write(HEAD + b"body" + OTHER_HEAD)
        answer = await reader.read()
        assert answer.startswith(b"HTTP/1.1 204 ")
        assert b"HTTP/1.1 408 " in answer


async def test_a_body_that_stays_away_is_given_up() -> None:
    async with connected() as (reader, writer, heard):
        writer.write(HEAD + b"bo")
        assert await reader.read() == b""
        assert heard[-1] == {"type": "http.disconnect"}


async def test_a_body_that_comes_bit_by_bit_is_waited_for() -> None:
    async with connected() as (reader, writer, _):
        writer.write(HEAD)
        for byte in b"body":
            await asyncio.sleep(protocol.PATIENCE_SECONDS * 0.6)
            writer.write(bytes([byte]))
        assert (await reader.readuntil(b"\r\n")).startswith(b"HTTP/1.1 204 ")
