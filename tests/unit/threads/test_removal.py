"""Deleted threads: gone at once, and what is left of large ones goes in pieces."""

from __future__ import annotations

import asyncio

import pytest

from treadle.auth import ANYONE
from treadle.database import pieces
from treadle.errors import NotFound
from treadle.threads import queries
from treadle.threads import removal as module
from treadle.threads.removal import Removal


@pytest.fixture
def in_small_pieces(monkeypatch):
    """Every thread is a large one, and each piece has time for a single row."""
    monkeypatch.setattr(module, "AT_ONCE_ROWS", 0)
    monkeypatch.setattr(pieces, "PIECE_SECONDS", 0)
    monkeypatch.setattr(pieces, "PAUSE_SECONDS", 0)


@pytest.fixture
def grown(make, update, add_run):
    """``await grown()``: a thread with states, a run that has ended and one that waits."""

    async def grown():
        thread_id = (await make("chain"))["thread_id"]
        for number in range(4):
            await update(thread_id, {"log": ["long " * 50 + str(number)]}, as_node="a")
        await add_run(thread_id, f"ended on {thread_id}", "success")
        await add_run(thread_id, f"waits on {thread_id}", "pending")
        return thread_id

    return grown


async def rows_of(database, thread_id):
    """How many rows there are of a thread, by table."""
    found = {}
    for table in queries.LEFT_BEHIND:
        sql = f"SELECT count(*) AS n FROM {table} WHERE thread_id = :id"
        found[table] = (await database.read_one(sql, {"id": thread_id}))["n"]
    return {table: count for table, count in found.items() if count}


async def is_cleared(database):
    return not await database.read_all(queries.BURIED)


async def cleared(database):
    async with asyncio.timeout(30):
        while not await is_cleared(database):  # noqa: ASYNC110
            await asyncio.sleep(0)


async def test_a_small_thread_goes_in_one_transaction(
    service, database, grown, orphans, monkeypatch
):
    monkeypatch.setattr("treadle.database.pieces.PIECE_SECONDS", 60)  # however busy the machine is
    thread_id, other = await grown(), await grown()
    before = await rows_of(database, other)
    await service.delete(ANYONE, thread_id)
    assert await is_cleared(database)
    assert await rows_of(database, thread_id) == {}
    assert await rows_of(database, other) == before
    assert await orphans(database) == {}


@pytest.mark.parametrize("limit", ["AT_ONCE_ROWS", "AT_ONCE_BYTES"])
async def test_of_a_large_one_nothing_is_seen_any_more_and_the_rest_goes_later(
    service, database, grown, orphans, monkeypatch, in_small_pieces, limit
):
    monkeypatch.setattr(module, "AT_ONCE_ROWS", 1000)
    monkeypatch.setattr(module, limit, 1)
    thread_id, other = await grown(), await grown()
    before = await rows_of(database, other)
    await service.delete(ANYONE, thread_id)
    with pytest.raises(NotFound):
        await service.get(ANYONE, thread_id)
    left = await rows_of(database, thread_id)
    assert left["runs"] == 1, "a run that waits must not be begun"
    assert left["checkpoints"] == 4
    await cleared(database)
    assert await rows_of(database, thread_id) == {}
    assert await rows_of(database, other) == before
    assert await orphans(database) == {}


async def test_who_deletes_many_removes_little_at_once(
    service, database, grown, monkeypatch, orphans
):
    monkeypatch.setattr(pieces, "PIECE_SECONDS", 0)
    thread_ids = [await grown() for _ in range(3)]
    assert await service.prune(ANYONE, thread_ids, "delete") == 3
    left = [await rows_of(database, thread_id) for thread_id in thread_ids]
    assert [bool(rows) for rows in left] == [False, True, True]
    await cleared(database)
    assert await orphans(database) == {}


async def test_the_next_start_goes_on_with_what_was_left(service, database, grown, in_small_pieces):
    thread_id = await grown()
    await service.delete(ANYONE, thread_id)
    await asyncio.sleep(0)
    await service.removal.stop()
    assert await rows_of(database, thread_id) != {}
    await Removal(database).clear_away()
    assert await rows_of(database, thread_id) == {}
    assert await is_cleared(database)


async def test_a_thread_made_anew_finds_nothing_of_the_old(
    service, database, make, grown, in_small_pieces
):
    thread_id = await grown()
    await service.delete(ANYONE, thread_id)
    await make("chain", thread_id=thread_id)
    assert await rows_of(database, thread_id) == {}
    await service.removal.stop()
    assert (await service.get(ANYONE, thread_id))["status"] == "idle"


async def test_what_is_deleted_meanwhile_is_cleared_away_too(
    service, database, grown, in_small_pieces
):
    first, second = await grown(), await grown()
    await service.delete(ANYONE, first)
    await service.delete(ANYONE, second)
    await cleared(database)
    assert await rows_of(database, second) == {}
