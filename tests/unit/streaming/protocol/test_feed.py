"""The past, then what comes: each event once."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from treadle.errors import Gone, NotFound
from treadle.streaming.log import REPLAY_PAGE
from treadle.streaming.protocol.envelope import lifecycle
from treadle.streaming.protocol.feed import Feed

THREAD = "00000000-0000-0000-0000-000000000001"


@pytest.fixture
def log(log: Any) -> Any:
    """The log of a thread on which a run goes on."""
    log.hold()
    return log


def tell(log: Any, data: bytes = b"{}", **fields: Any) -> Any:
    return log.append("r", "event", "custom", data, numbered=True, **{"keep": True, **fields})


def tell_of(log: Any, event: str, run_id: str = "r", **fields: Any) -> Any:
    told = lifecycle(event, "g")
    return log.append(
        run_id, told.kind, told.name, told.data, numbered=True, label=told.label,
        **{"keep": True, **fields},
    )  # fmt: skip


async def numbers(feed: Feed, many: int, since: int = 0) -> list[int | None]:
    """All numbers after ``since``, past and to come."""
    found: list[int | None] = []
    async for page in feed.past(since, feed.position):
        found += [entry.seq for entry in page]
    async with asyncio.timeout(5):
        while len(found) < many:
            found += [entry.seq for entry in await feed.next(1) or ()]
    return found


async def test_past_and_what_comes_are_all_once(hub, log):
    for _ in range(REPLAY_PAGE + 5):
        tell(log)
    await hub.database.flush()
    tell(log)
    feed = await Feed.open(hub, THREAD)
    tell(log)
    total = REPLAY_PAGE + 7
    assert await numbers(feed, total) == list(range(1, total + 1))
    feed.close()


@pytest.mark.parametrize("turns", range(8))
async def test_whenever_it_is_opened_nothing_is_missed_or_doubled(hub, log, turns):
    for _ in range(3):
        tell(log)
    for _ in range(turns):
        await asyncio.sleep(0)
    feed = await Feed.open(hub, THREAD)
    tell(log)
    assert await numbers(feed, 4) == [1, 2, 3, 4]
    feed.close()


async def test_a_run_that_is_not_kept_is_told_to_who_comes_in_its_course(hub, log):
    first = await Feed.open(hub, THREAD)
    log.in_flight = tell_of(log, "running", keep=False)
    tell(log, keep=False)
    assert await numbers(first, 2) == [1, 2]
    second = await Feed.open(hub, THREAD)
    tell_of(log, "completed", keep=False)
    assert await numbers(second, 2) == [1, 3]
    assert await numbers(await Feed.open(hub, THREAD), 0, since=1) == []


async def test_who_comes_makes_the_run_tell_that_it_goes_on(hub, log):
    log.on_numbered_reader = lambda: tell_of(log, "running", keep=False)
    feed = await Feed.open(hub, THREAD)
    assert await numbers(feed, 1) == [1]
    feed.close()


async def test_a_thread_that_is_deleted_ends_its_run_and_begins_anew(hub, log, database):
    feed = await Feed.open(hub, THREAD)
    tell_of(log, "running")
    assert await numbers(feed, 1) == [1]
    await database.write(lambda tx: tx.execute("DELETE FROM event_counters"))
    await database.write(lambda tx: tx.execute("DELETE FROM events"))
    log.append("", "gone", "error", b"{}", last=True)
    [end] = await feed.next(1) or ()
    assert (end.seq, end.label, end.run_id) == (2, "interrupted", "r")
    assert b'"graph_name":"g"' in end.data
    assert feed.restarts == 1
    tell(log)
    while not (entries := await feed.next(1)):
        pass
    assert [entry.seq for entry in entries] == [1]


async def test_what_is_no_longer_kept_is_said(hub, log, database):
    trim = (
        "INSERT INTO trimmed_events (thread_id, run_id, until_id, until_seq)"
        " VALUES (:thread_id, '', 9, 4)"
    )
    await database.write(lambda tx: tx.execute(trim, {"thread_id": THREAD}))
    feed = await Feed.open(hub, THREAD)
    await feed.check(0)
    await feed.check(4)
    with pytest.raises(Gone, match="since: 4"):
        await feed.check(3)
    feed.close()


async def test_a_thread_that_comes_to_be_another_callers_is_not_shown(hub, log):
    async def may_see() -> bool:
        return False

    feed = await Feed.open(hub, THREAD, may_see)
    tell(log)
    async with asyncio.timeout(5):
        while (entries := await feed.next(1)) is not None:
            assert not entries
    feed.close()


async def test_a_thread_that_is_made_anew_by_another_caller_is_not_shown(hub, log, database):
    answers = [True, False]

    async def may_see() -> bool:
        return answers.pop(0)

    feed = await Feed.open(hub, THREAD, may_see)
    tell_of(log, "running")
    assert await numbers(feed, 1) == [1]
    await database.write(lambda tx: tx.execute("DELETE FROM event_counters"))
    await database.write(lambda tx: tx.execute("DELETE FROM events"))
    log.append("", "gone", "error", b"{}", last=True)
    [end] = await feed.next(1) or ()
    assert end.label == "interrupted"
    tell(log)
    async with asyncio.timeout(5):
        while (entries := await feed.next(1)) is not None:
            assert not entries
    assert not answers
    feed.close()


async def test_the_past_of_another_callers_thread_is_not_shown(hub, log, database):
    async def may_see() -> bool:
        return False

    tell(log)
    await database.flush()
    with pytest.raises(NotFound):
        await Feed.open(hub, THREAD, may_see)
