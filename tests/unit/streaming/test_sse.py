"""Server-sent events: frames as they come, heartbeats, the end, and clients who leave."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from asgi_client import Client
from streaming_time import run_fast

from treadle.streaming import log as log_module
from treadle.streaming.entries import Entry
from treadle.streaming.log import EventHub, ThreadLog
from treadle.streaming.sse import (
    EVENT_STREAM_HEADERS,
    HEARTBEAT,
    HEARTBEAT_SECONDS,
    EventStream,
)


class NoDatabase:
    """For logs that keep nothing."""


def a_log() -> ThreadLog:
    return EventHub(NoDatabase()).log("thread")  # type: ignore[arg-type]


def append(log: ThreadLog, name: str, data: str = "{}") -> None:
    log.append("run", "end" if name == "end" else "event", name, data.encode())


def stream(log: ThreadLog, **more: Any) -> EventStream:
    return EventStream(
        log.read(),
        lambda entry: None if entry.name == "hidden" else entry.frame,
        lambda entry: entry.kind == "end",
        **more,
    )


async def start(client: Client, response: EventStream) -> asyncio.Task[None]:
    task = asyncio.create_task(client.gets(response))
    while not client.status:  # noqa: ASYNC110
        await asyncio.sleep(0)
    return task


def names(client: Client) -> list[str]:
    lines = client.body.decode().split("\r\n")
    return [line.removeprefix("event: ") for line in lines if line.startswith("event: ")]


@pytest.fixture
def log() -> ThreadLog:
    return a_log()


@pytest.fixture
async def client() -> Client:
    return Client()


async def test_headers_come_at_once(client, log):
    task = await start(client, stream(log, headers=[(b"location", b"/here")]))
    assert client.status == 200
    assert client.headers == [*EVENT_STREAM_HEADERS, (b"location", b"/here")]
    assert not client.body
    client.leave()
    await task


async def test_events_are_sent_as_they_happen_up_to_the_last(client, log):
    task = await start(client, stream(log))
    append(log, "one")
    await client.got(b"event: one\r\ndata: {}\r\n\r\n")
    append(log, "hidden")
    append(log, "two")
    append(log, "end")
    append(log, "too late")
    await task
    assert names(client) == ["one", "two", "end"]
    assert client.finished


async def test_the_stream_leaves_its_log_when_it_ends(client, log):
    task = await start(client, stream(log))
    append(log, "end")
    await task
    assert log._readers == set()


async def test_the_past_comes_first(client, log):
    async def past() -> AsyncIterator[bytes]:
        append(log, "during")
        yield b"event: past\r\n\r\n"
        await asyncio.sleep(0)
        append(log, "end")
        yield b"event: more\r\n\r\n"

    await client.gets(stream(log, past=past()))
    assert names(client) == ["past", "more", "during", "end"]


async def test_what_has_ended_sends_its_past_and_closes(client, log):
    async def past() -> AsyncIterator[bytes]:
        yield b"event: past\r\n\r\n"

    await client.gets(stream(log, past=past(), ended=True))
    assert names(client) == ["past"]
    assert client.finished


async def test_a_client_that_leaves_is_noticed_at_once(client, log):
    abandoned: list[bool] = []

    async def abandon() -> None:
        abandoned.append(True)

    task = await start(client, stream(log, abandoned=abandon))
    client.leave()
    async with asyncio.timeout(5):
        await task
    assert abandoned == [True]
    assert log._readers == set()


async def test_a_client_that_left_before_the_first_byte(client, log):
    abandoned: list[bool] = []

    async def abandon() -> None:
        abandoned.append(True)

    client.leave()
    async with asyncio.timeout(5):
        await client.gets(stream(log, abandoned=abandon))
    assert abandoned == [True]
    assert log._readers == set()


async def test_the_end_is_no_abandonment(client, log):
    task = await start(client, stream(log, abandoned=pytest.fail))
    append(log, "end")
    await task


async def test_a_client_that_leaves_while_it_does_not_read(client, log):
    client.reads.clear()
    task = await start(client, stream(log))
    append(log, "one")
    await client.got(b"one")
    client.leave()
    client.reads.set()  # as a server does for a connection that is lost
    async with asyncio.timeout(5):
        await task
    assert log._readers == set()


async def test_a_send_that_fails_leaves_the_log(client, log):
    async def broken(message: Any) -> None:
        raise ConnectionError

    response = stream(log)
    with pytest.raises(ConnectionError):
        await response.send(client.receive, broken)
    assert log._readers == set()


async def test_a_stream_that_is_cancelled_leaves_the_log(client, log):
    task = await start(client, stream(log))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert log._readers == set()


async def test_a_client_that_never_reads_is_cut_off(client, log, monkeypatch):
    monkeypatch.setattr(log_module, "READER_LIMIT_BYTES", 10_000)
    client.reads.clear()
    task = await start(client, stream(log))
    append(log, "first")
    await client.got(b"first")
    for _ in range(100):
        append(log, "many", "x" * 1000)
        await asyncio.sleep(0)
    log._wake_readers()
    assert log._entries == []
    client.reads.set()
    await task
    assert names(client) == ["first"]


async def test_a_server_that_stops_closes_streams(client, log):
    task = await start(client, stream(log))
    log.close()
    async with asyncio.timeout(5):
        await task


def test_heartbeats_while_nothing_happens():
    async def main() -> None:
        log, client = a_log(), Client()
        loop = asyncio.get_running_loop()
        task = await start(client, stream(log))
        await asyncio.sleep(HEARTBEAT_SECONDS * 3.5)
        assert client.body == HEARTBEAT * 3
        append(log, "one")
        await client.got(b"one")
        spoken = loop.time()
        await client.got(b"one\r\ndata: {}\r\n\r\n" + HEARTBEAT)
        assert loop.time() - spoken == pytest.approx(HEARTBEAT_SECONDS, abs=0.1)
        append(log, "end")
        await task
        assert names(client) == ["one", "end"]

    run_fast(main())


def test_no_heartbeat_after_a_client_has_left():
    async def main() -> None:
        log, client = a_log(), Client()
        task = await start(client, stream(log))
        client.leave()
        await task
        assert client.body == b""

    run_fast(main())


def test_the_heartbeat_is_a_comment():
    assert HEARTBEAT == b": heartbeat\r\n\r\n"


def test_entries_that_carry_payloads_are_sent_like_others():
    entry = Entry(1, "run", "end", "metadata", b"{}", payload=object())
    assert entry.frame == b"event: metadata\r\ndata: {}\r\n\r\n"
