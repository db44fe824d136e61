"""Numbers of events: dense, durable before they are told, and never given twice."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import pytest

from treadle.database.sqlite import SQLiteDatabase
from treadle.errors import Unavailable
from treadle.streaming import queries
from treadle.streaming.log import FEW_BYTES, FEW_EVENTS, EventHub, Reader

THREAD = "00000000-0000-0000-0000-000000000001"

RUN = """
INSERT INTO runs (run_id, thread_id, assistant_id, graph_id, status, created_at, updated_at,
                  metadata, kwargs, multitask_strategy, attempt)
VALUES ('r', :thread_id, 'a', 'g', 'running', 0, 0, '{}', '{}', 'enqueue', :attempt)
"""


def tell(log: Any, data: bytes = b"{}", *, numbered: bool = True, **fields: Any) -> Any:
    fields = {"keep": True, **fields}
    return log.append("r", "event", "custom", data, numbered=numbered, **fields)


async def taken(reader: Reader, many: int) -> list[Any]:
    found: list[Any] = []
    async with asyncio.timeout(5):
        while len(found) < many:
            found += await reader.next(1) or ()
    assert len(found) == many
    return found


async def test_numbers_count_from_one_without_a_gap(log):
    reader = log.read()
    for _ in range(50):
        tell(log)
    assert [entry.seq for entry in await taken(reader, 50)] == list(range(1, 51))


async def test_what_is_told_is_durable(hub, log, database):
    reader = log.read()
    tell(log)
    assert log.waiting == 1
    assert log.end == 0
    [entry] = await taken(reader, 1)
    assert (await database.read_one("SELECT seq FROM events"))["seq"] == entry.seq == 1
    assert await hub.last_seq(THREAD) == 1


async def test_what_has_no_number_keeps_its_place_behind_what_has(log):
    reader = log.read()
    tell(log, b"1", numbered=False)
    tell(log, b"2")
    tell(log, b"3", numbered=False, keep=False)
    tell(log, b"4")
    found = await taken(reader, 4)
    assert [(entry.data, entry.seq) for entry in found] == [
        (b"1", None), (b"2", 1), (b"3", None), (b"4", 2),
    ]  # fmt: skip


async def test_numbers_go_on_after_a_restart_and_where_nothing_is_kept(hub, log, database):
    reader = log.read()
    tell(log, keep=False)
    await taken(reader, 1)
    other = EventHub(database)
    await other.open()
    reader = other.log(THREAD).read()
    tell(other.log(THREAD))
    assert [entry.seq for entry in await taken(reader, 1)] == [2]
    assert [entry.seq for entry in await other.replay_numbered(THREAD, 0, 9)] == [2]


async def test_a_few_events_are_replayed_without_a_scan_in_between(hub, log, database):
    """On SQLite a scan is a thread's work, and waits for the graphs that run meanwhile."""
    reader = log.read()
    for number in range(FEW_EVENTS):
        tell(log, b"%d" % number)
    await taken(reader, FEW_EVENTS)
    replay = cast("Any", hub.replay_numbered(THREAD, 0, FEW_EVENTS))
    if not isinstance(database, SQLiteDatabase):
        page = await replay
    else:
        with pytest.raises(StopIteration) as end:
            replay.send(None)
        page = end.value.value
    assert [entry.data for entry in page] == [b"%d" % number for number in range(FEW_EVENTS)]


@pytest.mark.parametrize("many", [1, FEW_EVENTS, FEW_EVENTS + 1])
async def test_few_or_many_are_replayed_page_by_page(hub, log, many):
    reader = log.read()
    for _ in range(many):
        tell(log, b"x" * 3000)
    await taken(reader, many)
    found: list[int] = []
    while len(found) < many:
        page = await hub.replay_numbered(THREAD, len(found), many)
        if many <= FEW_EVENTS:
            assert sum(len(entry.data) for entry in page) < FEW_BYTES + 3000
        found += [entry.seq for entry in page]
    assert found == list(range(1, many + 1))


async def test_two_that_write_at_once_never_give_the_same(hub, database):
    """As two processes on one database would."""
    other = EventHub(database)
    await other.open()
    logs = hub.log(THREAD), other.log(THREAD)
    readers = [log.read() for log in logs]
    for number in range(40):
        tell(logs[number % 2], keep=False)
        if number % 5 == 0:
            await asyncio.sleep(0)
    found = [entry.seq for reader in readers for entry in await taken(reader, 20)]
    assert sorted(found) == list(range(1, 41))


@pytest.mark.parametrize(("attempt", "told"), [(2, 1), (1, 0)])
async def test_a_run_that_has_moved_on_neither_tells_nor_counts(hub, log, database, attempt, told):
    params = {"attempt": 2, "thread_id": THREAD}
    await database.write(lambda tx: tx.execute(RUN, params))
    reader = log.read()
    tell(log, attempt=attempt)
    await database.flush()
    assert len(await reader.next(0.01) or ()) == told
    assert await hub.last_seq(THREAD) == told


async def test_a_transaction_that_is_undone_uses_no_number(hub, log, database):
    async def fails(transaction):
        entry = log.entry("r", "event", "custom", b"{}", numbered=True)
        await hub.keep_in(transaction, THREAD, [entry])
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        await database.write(fails)
    reader = log.read()
    tell(log)
    assert [entry.seq for entry in await taken(reader, 1)] == [1]


async def test_a_log_stays_until_what_waits_is_told(hub, log):
    tell(log)
    assert hub.current(THREAD) is log
    reader = log.read()
    reader.close()
    assert hub.current(THREAD) is log
    await hub.database.flush()
    assert hub.current(THREAD) is None


async def test_the_counter_goes_with_its_thread(hub, log, database):
    insert = (
        "INSERT INTO threads (thread_id, created_at, updated_at, state_updated_at)"
        " VALUES (:thread_id, 0, 0, 0)"
    )
    await database.write(lambda tx: tx.execute(insert, {"thread_id": THREAD}))
    tell(log)
    await database.flush()
    delete = "DELETE FROM threads WHERE thread_id = :thread_id"
    await database.write(lambda tx: tx.execute(delete, {"thread_id": THREAD}))
    assert await database.read_one(queries.LAST_SEQ, {"thread_id": THREAD}) is None


@pytest.mark.parametrize("was_committed", [True, False])
async def test_a_commit_that_is_unclear_neither_loses_nor_doubles(
    log, database, monkeypatch, was_committed
):
    write_soon, failures = database.write_soon, [Unavailable("the connection was lost")]

    def flaky(body: Any, on_error: Any, on_commit: Any = None, thread_id: Any = None) -> None:
        if not failures:
            write_soon(body, on_error, on_commit, thread_id)
        elif was_committed:
            write_soon(body, on_error, lambda: on_error(failures.pop()), thread_id)
        else:

            async def refused(transaction: Any) -> None:
                await body(transaction)
                raise failures.pop()

            write_soon(refused, on_error, None, thread_id)

    monkeypatch.setattr(database, "write_soon", flaky)
    reader = log.read()
    ids = [tell(log).id for _ in range(3)]
    while failures:  # noqa: ASYNC110
        await asyncio.sleep(0)
    ids += [tell(log).id for _ in range(3)]
    found = await taken(reader, 6)
    assert [(entry.id, entry.seq) for entry in found] == list(zip(ids, range(1, 7), strict=True))
    kept = await database.read_all("SELECT id, seq FROM events ORDER BY id")
    assert [(row["id"], row["seq"]) for row in kept] == list(zip(ids, range(1, 7), strict=True))


async def test_a_commit_that_found_no_database_is_made_up_for(log, database, monkeypatch):
    """Whatever was handed in before, while it failed and after is kept, and told."""
    write_soon, failures = database.write_soon, [Unavailable("no answer") for _ in range(7)]

    def away(body: Any, on_error: Any, on_commit: Any = None, thread_id: Any = None) -> None:
        if failures:
            asyncio.get_running_loop().call_soon(on_error, failures.pop())
        else:
            write_soon(body, on_error, on_commit, thread_id)

    monkeypatch.setattr(database, "write_soon", away)
    reader = log.read()
    ids = [tell(log).id for _ in range(3)]
    for _ in range(20):
        ids.append(tell(log).id)
        await asyncio.sleep(0)
    assert [entry.id for entry in await taken(reader, len(ids))] == ids
    kept = await database.read_all("SELECT id, seq FROM events ORDER BY id")
    assert [row["id"] for row in kept] == ids
