"""Joining a stream whose kept events were removed: a clear answer, and never a gap."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from asgi_client import Client

from treadle.auth import ANYONE
from treadle.clock import SECOND_US, now_us
from treadle.http.request import Request
from treadle.runs.stream_routes import StreamRoutes
from treadle.streaming import log as log_module
from treadle.streaming.retention import ROW_BYTES, EventsTrimmed, Retention

ROOM = 10**9


class Joiner:
    """Joins the streams of a house."""

    def __init__(self, house: Any) -> None:
        self.house = house
        self._routes = StreamRoutes(house.service, house.events)

    async def response(self, thread: str, run: str | None, last: str) -> tuple[Client, Any]:
        client = Client()
        names = {"thread_id": thread, "run_id": run} if run else {"thread_id": thread}
        headers = [(b"last-event-id", last.encode())]
        scope = {"type": "http", "path_params": names, "query_string": b"", "headers": headers}
        handler = self._routes.join if run else self._routes.thread
        return client, await handler(Request(scope, client.receive, ANYONE, "request"))

    async def reads(self, thread: str, run: str, last: str) -> list[str]:
        """The lines of an ended run's stream."""
        client, response = await self.response(thread, run, last)
        async with asyncio.timeout(5):
            await client.gets(response)
        return client.body.decode().split("\r\n")

    async def sweep(self, after_seconds: float = 0, max_bytes: int = ROOM) -> int:
        await self.house.database.flush()
        retention = Retention(self.house.database, 120, max_bytes)
        return await retention.sweep(now_us() + int(after_seconds * SECOND_US))

    async def resumable(self, graph: str = "chain") -> tuple[str, str, list[str]]:
        """A run that has ended: its thread, its id and the ids of its events."""
        thread = await self.house.thread()
        run = await self.house.create(thread, graph, "events", stream_resumable=True)
        await self.house.outcome(run)
        return thread, run.run_id, ids(await self.reads(thread, run.run_id, "-"))


def ids(lines: list[str]) -> list[str]:
    return [line.removeprefix("id: ") for line in lines if line.startswith("id: ")]


@pytest.fixture
def joiner(house) -> Joiner:
    return Joiner(house)


async def test_before_a_sweep_everything_is_there(joiner):
    thread, run, sent = await joiner.resumable()
    assert len(sent) > 2
    assert await joiner.sweep(119) == 0
    assert ids(await joiner.reads(thread, run, sent[0])) == sent[1:]


async def test_going_on_from_an_event_whose_followers_are_gone_is_refused(joiner):
    thread, run, sent = await joiner.resumable()
    [kept] = await joiner.house.database.scan("SELECT count(*) AS many FROM events")
    assert await joiner.sweep(121) == kept["many"] > len(sent)
    for last in (sent[0], "1-0"):
        with pytest.raises(EventsTrimmed, match=f"{sent[-1]}.*/runs/{run}/join"):
            await joiner.response(thread, run, last)
    with pytest.raises(EventsTrimmed, match=f"/threads/{thread}/state"):
        await joiner.response(thread, None, sent[0])
    assert joiner.house.events._logs == {}


async def test_who_has_everything_misses_nothing(joiner):
    thread, run, sent = await joiner.resumable()
    await joiner.sweep(121)
    assert await joiner.reads(thread, run, sent[-1]) == [""]


@pytest.mark.parametrize("last", ["-1", "0", "0-0", "-"])
async def test_who_wants_everything_gets_what_is_left_and_a_comment(joiner, last):
    thread, run, sent = await joiner.resumable()
    await joiner.sweep(0, max_bytes=6 * ROW_BYTES)
    lines = await joiner.reads(thread, run, last)
    rest = ids(lines)
    assert 0 < len(rest) < len(sent)
    assert rest == sent[-len(rest) :]
    assert lines[0] == f": events up to {sent[-len(rest) - 1]} are no longer kept"
    assert lines[1] == ""
    await joiner.sweep(121)
    assert await joiner.reads(thread, run, last) == [
        f": events up to {sent[-1]} are no longer kept",
        "",
        "",
    ]


async def test_what_was_trimmed_of_another_run_does_not_matter(joiner):
    thread, first, _ = await joiner.resumable()
    await joiner.sweep(121)
    run = await joiner.house.create(thread, "chain", "events", stream_resumable=True)
    await joiner.house.outcome(run)
    lines = await joiner.reads(thread, run.run_id, "-1")
    assert not lines[0].startswith(":")
    sent = ids(lines)
    assert ids(await joiner.reads(thread, run.run_id, sent[0])) == sent[1:]
    assert ids(await joiner.reads(thread, run.run_id, "1-0")) == sent
    assert first != run.run_id


async def test_a_run_that_is_not_resumable_ignores_it(joiner):
    thread = await joiner.house.thread()
    run = await joiner.house.create(thread, "chain", "events")
    await joiner.house.outcome(run)
    assert await joiner.reads(thread, run.run_id, "1-0") == [""]


async def test_a_sweep_in_the_middle_of_a_replay_breaks_it_off(joiner, monkeypatch):
    """The client comes back with the last id that it got, and is told then."""
    thread, run, _ = await joiner.resumable()
    monkeypatch.setattr(log_module, "REPLAY_PAGE", 2)
    client, response = await joiner.response(thread, run, "-1")
    replayed = joiner.house.events.replay
    read = 0

    async def swept_after_a_page(*args: Any) -> Any:
        nonlocal read
        page = await replayed(*args)
        read += 1
        if read == 1:
            await joiner.sweep(121)
        return page

    monkeypatch.setattr(joiner.house.events, "replay", swept_after_a_page)
    with pytest.raises(EventsTrimmed):
        await client.gets(response)
    assert not client.finished
    assert joiner.house.events._logs == {}
