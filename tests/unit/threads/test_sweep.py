"""Threads whose time is over."""

from __future__ import annotations

import asyncio

import pytest

from treadle.auth import ANYONE
from treadle.clock import now_us
from treadle.database import pieces
from treadle.errors import NotFound
from treadle.streaming.log import EventHub
from treadle.threads import queries
from treadle.threads import sweep as sweep_module
from treadle.threads.models import ThreadCreate, ThreadPatch, TtlRequest
from treadle.threads.sweep import ThreadSweep
from treadle.threads.ttl import MINUTE_US

DELETE = TtlRequest(10)
KEEP = TtlRequest(10, "keep_latest")
LONG = "long " * 50
LATER = 11 * MINUTE_US


@pytest.fixture
def deleted():
    """The threads of whose end others were told."""
    return []


@pytest.fixture
def sweep(database, service, deleted):
    """``await sweep(after=..., limit=...)``: how many threads were swept so much later."""

    async def tell(thread_id):
        deleted.append(thread_id)

    async def sweep(after=LATER, limit=1000):
        threads = ThreadSweep(database, service._saver, limit=limit, deleted=tell)
        return await threads.sweep(now_us() + after)

    return sweep


@pytest.fixture
def grown(make, update, add_run, database):
    """``await grown(ttl)``: a thread with states, a run that ended and kept events."""

    async def grown(ttl, updates=4, **fields):
        thread_id = (await make("chain", ttl=ttl, **fields))["thread_id"]
        for number in range(updates):
            await update(thread_id, {"log": [f"{LONG}{number}"], "last": "x"}, as_node="a")
        await add_run(thread_id, f"run of {thread_id}", "success")
        log = EventHub(database).log(thread_id)
        for number in range(5):
            log.append(f"run of {thread_id}", "event", "custom", b"%d" % number, keep=True)
        await database.flush()
        return thread_id

    return grown


async def ids(service):
    found = await service._database.read_all("SELECT thread_id FROM threads")
    return {row["thread_id"] for row in found}


async def ttl_of(service, thread_id):
    return (await service.get(ANYONE, thread_id, ["ttl"])).get("ttl")


async def history(database, thread_id):
    sql = "SELECT count(*) AS n FROM checkpoints WHERE thread_id = :id"
    return (await database.read_one(sql, {"id": thread_id}))["n"]


# -- delete ------------------------------------------------------------------------------------


async def test_what_has_expired_is_deleted_with_all_that_is_its(
    service, database, sweep, grown, deleted, orphans
):
    gone = [await grown(DELETE, metadata={"m": number}) for number in range(3)]
    spared = {await grown(TtlRequest(12)), await grown(TtlRequest(100))}
    assert await sweep(9 * MINUTE_US) == 0
    assert await sweep() == 3
    assert await ids(service) == spared
    assert set(deleted) == set(gone)
    assert await orphans(database) == {}
    for thread_id in gone:
        with pytest.raises(NotFound):
            await service.get(ANYONE, thread_id)
    assert await sweep() == 0


async def test_threads_without_a_ttl_live_on(service, sweep, make):
    thread_id = (await make())["thread_id"]
    assert await sweep(10**9 * MINUTE_US) == 0
    assert await ids(service) == {thread_id}


@pytest.mark.parametrize("status", ["pending", "running"])
@pytest.mark.parametrize("ttl", [DELETE, KEEP], ids=["delete", "keep_latest"])
async def test_a_thread_with_runs_in_flight_is_left_alone(
    service, database, sweep, grown, add_run, status, ttl
):
    thread_id = await grown(ttl)
    await add_run(thread_id, "in flight", status)
    states = await history(database, thread_id)
    assert await sweep() == 0
    assert await history(database, thread_id) == states

    async def end(tx):
        await tx.execute("UPDATE runs SET status = 'success'")

    await database.write(end)
    assert await sweep() == 1


@pytest.mark.parametrize("ttl", [DELETE, KEEP], ids=["delete", "keep_latest"])
async def test_a_run_that_comes_just_before_the_sweep_saves_its_thread(
    service, database, sweep, grown, add_run, ttl, monkeypatch
):
    thread_id = await grown(ttl)
    states = await history(database, thread_id)
    scan = database.scan

    async def run_comes_after(sql, params):
        rows = await scan(sql, params)
        if sql == queries.EXPIRED and rows:
            await add_run(thread_id, "newcomer")
        return rows

    monkeypatch.setattr(database, "scan", run_comes_after)
    assert await sweep() == 0
    assert await ids(service) == {thread_id}
    assert await history(database, thread_id) == states


async def test_at_most_so_many_are_swept_those_that_expired_first(service, sweep, grown):
    threads = [await grown(TtlRequest(10 - number), updates=1) for number in range(5)]
    assert await sweep(limit=2) == 2
    assert await ids(service) == set(threads[:3])
    assert await sweep(limit=2) == 2
    assert await sweep(limit=2) == 1
    assert await ids(service) == set()


async def test_many_are_swept_page_by_page(service, sweep, make, monkeypatch, database, orphans):
    monkeypatch.setattr(sweep_module, "PAGE_ROWS", 3)
    for _ in range(10):
        await make(ttl=DELETE)
    assert await sweep() == 10
    assert await ids(service) == set()
    assert await orphans(database) == {}


# -- in pieces ---------------------------------------------------------------------------------


@pytest.fixture
def smallest_pieces(monkeypatch):
    """Each transaction of a removal does one step."""
    monkeypatch.setattr(pieces, "PIECE_SECONDS", -1)
    monkeypatch.setattr(pieces, "PAUSE_SECONDS", 0)


@pytest.mark.usefixtures("smallest_pieces")
async def test_the_smallest_pieces_remove_all(database, sweep, grown, orphans):
    await grown(DELETE)
    kept = await grown(KEEP)
    assert await sweep() == 2
    assert await orphans(database) == {}
    assert await history(database, kept) == 1


@pytest.fixture
def interrupted(database, sweep):
    """Sweeps, but stops in the midst of removing what deleted threads have left."""

    async def interrupted():
        task = asyncio.create_task(sweep())
        async with asyncio.timeout(5):
            while True:
                await asyncio.sleep(0)
                left = "SELECT count(*) AS n FROM checkpoint_writes"
                begun = await database.read_one("SELECT 1 FROM deleted_threads")
                if begun and not (await database.read_one("SELECT 1 FROM events")):
                    assert (await database.read_one(left))["n"]
                    task.cancel()
                    await asyncio.wait([task])
                    return

    return interrupted


@pytest.mark.usefixtures("smallest_pieces")
async def test_what_a_stop_leaves_is_removed_by_the_next_sweep(
    database, service, sweep, interrupted, grown, orphans
):
    thread_id = await grown(DELETE)
    await interrupted()
    assert await ids(service) == set()
    assert (await orphans(database))["checkpoints"]
    with pytest.raises(NotFound):
        await service.get(ANYONE, thread_id)
    assert await sweep(0) == 0
    assert await orphans(database) == {}


@pytest.mark.usefixtures("smallest_pieces")
async def test_a_thread_made_anew_finds_nothing_of_the_old_one(
    database, service, sweep, interrupted, grown, update, plain, orphans
):
    thread_id = await grown(DELETE)
    await interrupted()
    await service.create(ANYONE, ThreadCreate(thread_id, {"graph_id": "chain"}))
    assert await orphans(database) == {}
    assert plain(await service.states.get(ANYONE, thread_id))["values"] == {}
    assert (await service.storage(ANYONE, thread_id))["total_bytes"] == 0
    await update(thread_id, {"log": ["new"]})
    await sweep(0)
    assert plain(await service.states.get(ANYONE, thread_id))["values"] == {"log": ["new"]}


async def test_a_thread_that_cannot_be_swept_keeps_no_other_from_it(
    database, service, sweep, grown
):
    broken = await grown(TtlRequest(1, "keep_latest"))
    others = [await grown(DELETE), await grown(KEEP)]

    async def spoil(tx):
        await tx.execute(
            "UPDATE checkpoints SET checkpoint = :x WHERE thread_id = :id",
            {"x": b"\xc1", "id": broken},
        )

    await database.write(spoil)
    assert await sweep() == 2
    assert await ids(service) == {broken, others[1]}


# -- keep_latest -------------------------------------------------------------------------------


async def test_keep_latest_keeps_thread_values_and_the_latest_state(
    database, service, sweep, grown, deleted, plain, orphans, update
):
    thread_id = await grown(KEEP)
    before = plain(await service.states.get(ANYONE, thread_id))
    thread = plain(await service.get(ANYONE, thread_id))
    assert await sweep() == 1
    after = plain(await service.states.get(ANYONE, thread_id))
    assert {**after, "parent_checkpoint": None, "parent_checkpoint_id": None} == {
        **before,
        "parent_checkpoint": None,
        "parent_checkpoint_id": None,
    }
    assert plain(await service.get(ANYONE, thread_id)) == thread
    assert await history(database, thread_id) == 1
    assert deleted == []
    assert await orphans(database) == {}
    storage = await service.storage(ANYONE, thread_id)
    assert storage["checkpoints"].count == 1
    assert {tally.versions for tally in storage["channel_values"].by_channel.values()} == {1}
    await update(thread_id, {"log": ["more"]}, as_node="a")
    assert plain(await service.states.get(ANYONE, thread_id))["values"]["log"] == [
        *before["values"]["log"],
        "more",
    ]


async def test_after_keep_latest_a_thread_expires_no_more_until_its_state_changes(
    service, database, sweep, grown, update
):
    thread_id = await grown(KEEP)
    assert (await ttl_of(service, thread_id))["strategy"] == "keep_latest"
    assert await sweep() == 1
    assert await ttl_of(service, thread_id) is None
    await service.patch(ANYONE, thread_id, ThreadPatch({"m": 1}))
    assert await ttl_of(service, thread_id) is None
    assert await sweep() == 0
    before = now_us()
    await update(thread_id, {"log": ["more"]}, as_node="a")
    assert (await ttl_of(service, thread_id))["ttl_minutes"] == 10
    row = await database.read_one("SELECT expires_at FROM threads")
    assert before <= row["expires_at"] - 10 * MINUTE_US <= now_us()
    assert await history(database, thread_id) == 2
    assert await sweep() == 1
    assert await history(database, thread_id) == 1


async def test_a_state_change_does_not_put_off_the_end(service, database, grown, update):
    thread_id = await grown(KEEP)
    before = await ttl_of(service, thread_id)
    await update(thread_id, {"log": ["more"]}, as_node="a")
    assert await ttl_of(service, thread_id) == before


async def test_a_new_ttl_after_keep_latest_counts(service, sweep, grown):
    thread_id = await grown(KEEP)
    await sweep()
    await service.patch(ANYONE, thread_id, ThreadPatch(ttl=TtlRequest(5, "delete")))
    assert (await ttl_of(service, thread_id))["strategy"] == "delete"
    assert await sweep() == 1
    assert await ids(service) == set()


async def test_keep_latest_of_a_thread_without_states(service, sweep, make):
    thread_id = (await make(ttl=KEEP))["thread_id"]
    assert await sweep() == 1
    assert await ids(service) == {thread_id}


# -- prune and storage -------------------------------------------------------------------------


@pytest.mark.parametrize("strategy", ["delete", "keep_latest"])
async def test_prune_leaves_nothing_behind(service, database, grown, orphans, strategy):
    threads = [await grown(DELETE) for _ in range(3)]
    assert await service.prune(ANYONE, threads[:2], strategy) == 2
    assert await orphans(database) == {}
    assert await history(database, threads[2]) == 4


async def test_sweep_and_prune_keep_the_same(service, database, sweep, grown):
    swept, pruned = await grown(KEEP), await grown(TtlRequest(100))
    await sweep()
    await service.prune(ANYONE, [pruned], "keep_latest")
    one, other = [await service.storage(ANYONE, thread_id) for thread_id in (swept, pruned)]
    assert {**one, "thread_id": ""} == {**other, "thread_id": ""}


def test_expired_threads_are_found_by_their_index(tmp_path):
    import sqlite3

    from treadle.database.migrations import migrations

    connection = sqlite3.connect(":memory:")
    for _, script in migrations("sqlite"):
        connection.executescript(script)
    params = {"now": 1, "expires_at": 0, "seq": 0, "limit": 1, "thread_id": ""}
    plan = connection.execute(f"EXPLAIN QUERY PLAN {queries.EXPIRED}", params).fetchall()
    connection.close()
    assert any("threads_by_expiry" in row[3] for row in plan), plan
    assert not any("SCAN" in row[3] or "TEMP B-TREE" in row[3] for row in plan), plan


@pytest.mark.parametrize("new_database", ["sqlite"], indirect=True)
async def test_the_file_does_not_grow_with_what_comes_and_goes(database, sweep, grown):
    async def pages():
        return (await database.read_one("PRAGMA page_count"))["page_count"]

    sizes = []
    for _ in range(6):
        for _ in range(5):
            await grown(DELETE, updates=6)
        assert await sweep() == 5
        sizes.append(await pages())
    assert sizes[-1] <= sizes[0] * 1.1
