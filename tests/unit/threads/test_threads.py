"""Making, reading, patching, copying and removing threads."""

import asyncio
from datetime import datetime, timedelta

import pytest

from treadle.auth import ANYONE
from treadle.errors import Conflict, Invalid, NotFound
from treadle.ids import new_id
from treadle.threads import models
from treadle.threads.models import Ttl, TtlRequest


async def test_a_fresh_thread_has_no_state(make, service, plain):
    thread = await make(metadata={"a": [1, None]})
    assert thread["metadata"] == {"a": [1, None]}
    assert thread["created_at"] == thread["updated_at"] == thread["state_updated_at"]
    assert thread["values"] is None
    assert "interrupts" not in thread
    assert "error" not in thread
    assert plain(await service.get(ANYONE, thread["thread_id"])) == thread


async def test_one_of_many_simultaneous_creates_wins(make):
    thread_id = new_id()
    results = await asyncio.gather(
        *(make(thread_id=thread_id, metadata={"i": i}) for i in range(5)), return_exceptions=True
    )
    refused = [r for r in results if isinstance(r, Exception)]
    assert len(refused) == 4
    assert all(isinstance(r, Conflict) for r in refused)


async def test_do_nothing_returns_the_thread_as_it_is(make):
    first = await make(metadata={"a": 1})
    again = await make(
        thread_id=first["thread_id"],
        metadata={"b": 2},
        if_exists="do_nothing",
        ttl=TtlRequest(ttl=1),
    )
    assert again == first


async def test_a_run_brings_its_thread_unless_it_is_there(service, database, plain):
    thread_id = new_id()
    for metadata in ({"first": 1}, {"second": 2}):
        await database.write(lambda tx, m=metadata: service.create_thread_in(tx, thread_id, m))
    assert plain(await service.get(ANYONE, thread_id))["metadata"] == {"first": 1}


async def test_patch_merges_at_the_top_level(make, service, plain):
    thread = await make(metadata={"a": 1, "n": {"x": 1}})
    patch = models.ThreadPatch(metadata={"b": None, "n": {"y": 2}})
    patched = plain(await service.patch(ANYONE, thread["thread_id"], patch))
    assert patched["metadata"] == {"a": 1, "n": {"y": 2}, "b": None}
    assert patched["updated_at"] > thread["updated_at"]
    assert plain(await service.get(ANYONE, thread["thread_id"])) == patched


async def test_what_is_not_there_is_not_found(service):
    missing = new_id()
    for attempt in (
        service.get(ANYONE, missing),
        service.patch(ANYONE, missing, models.ThreadPatch()),
        service.delete(ANYONE, missing),
        service.copy(ANYONE, missing),
        service.storage(ANYONE, missing),
        service.states.get(ANYONE, missing),
        service.states.history(ANYONE, missing, limit=1),
        service.states.update(ANYONE, missing, models.StateUpdate({})),
    ):
        with pytest.raises(NotFound, match=f"^Thread with ID {missing} not found$"):
            await attempt


# removing -----------------------------------------------------------------------------------------
async def test_delete_takes_everything_along(make, update, add_run, service, database, stopped):
    thread_id = (await make("chain"))["thread_id"]
    await update(thread_id, {"log": [["long" * 100]]})
    await add_run(thread_id, "r1")
    await service.delete(ANYONE, thread_id)
    assert stopped == [thread_id]
    for table in ("threads", "runs", "checkpoints", "checkpoint_values", "checkpoint_writes"):
        assert await database.read_all(f"SELECT * FROM {table}") == [], table
    fresh = await make("chain", thread_id=thread_id)
    assert fresh["values"] is None


async def test_prune_counts_what_was_there_once(make, service, stopped):
    ids = [(await make())["thread_id"] for _ in range(2)]
    wanted = [*ids, ids[0].upper(), new_id()]
    assert await service.prune(ANYONE, wanted, "delete") == 2
    assert stopped == ids
    assert await service.prune(ANYONE, wanted, "delete") == 0


async def test_prune_with_a_bad_id_deletes_nothing(make, service):
    thread_id = (await make())["thread_id"]
    with pytest.raises(Invalid):
        await service.prune(ANYONE, [thread_id, "abc"], "delete")
    assert await service.get(ANYONE, thread_id)


async def test_keep_latest_keeps_the_state_and_spares_threads_at_work(
    make, update, add_run, service, plain
):
    settled, busy = (await make("chain"))["thread_id"], (await make("chain"))["thread_id"]
    for thread_id in (settled, busy):
        for word in ("x", "y", "z"):
            await update(thread_id, {"log": [word]})
    await add_run(busy, "r1")
    before = plain(await service.states.get(ANYONE, settled))
    assert await service.prune(ANYONE, [settled, busy], "keep_latest") == 1
    after = plain(await service.states.get(ANYONE, settled))
    assert (after["values"], after["next"]) == (before["values"], before["next"])
    assert len(await service.states.history(ANYONE, settled, limit=9)) == 1
    assert len(await service.states.history(ANYONE, busy, limit=9)) == 3


# copying ------------------------------------------------------------------------------------------
async def test_a_copy_goes_its_own_way(make, update, service, plain):
    source = (await make("chain", metadata={"m": 1}))["thread_id"]
    await update(source, {"log": ["x"]}, as_node="a")
    copy = plain(await service.copy(ANYONE, source))
    original = plain(await service.get(ANYONE, source))
    for key in ("metadata", "values", "status", "interrupts", "config"):
        assert copy[key] == original[key], key
    theirs = plain(await service.states.history(ANYONE, source, limit=9))
    ours = plain(await service.states.history(ANYONE, copy["thread_id"], limit=9))
    assert [s["checkpoint_id"] for s in ours] == [s["checkpoint_id"] for s in theirs]
    assert {s["metadata"]["thread_id"] for s in ours} == {copy["thread_id"]}
    await update(copy["thread_id"], {"log": ["y"]})
    assert plain(await service.get(ANYONE, source)) == original


async def test_the_copy_of_a_busy_thread_shows_its_states_and_is_not_busy(
    make, update, database, service, plain
):
    source = (await make("chain"))["thread_id"]
    await update(source, {"log": ["x"]}, as_node="a")

    async def begin(tx):
        await tx.execute("UPDATE threads SET status = 'busy', state_values = NULL")

    await database.write(begin)
    copy = plain(await service.copy(ANYONE, source))
    assert (copy["status"], copy["values"]) == ("interrupted", {"log": ["x"]})


# ttl ----------------------------------------------------------------------------------------------
async def ttl_of(service, thread):
    return (await service.get(ANYONE, thread["thread_id"], ["ttl"])).get("ttl")


@pytest.mark.parametrize(
    ("default", "asked", "shown"),
    [
        (None, {}, None),
        (None, {"ttl": TtlRequest()}, None),
        (None, {"ttl": TtlRequest(ttl=5)}, ("delete", 5)),
        (None, {"ttl": TtlRequest(1.5, "keep_latest")}, ("keep_latest", 1.5)),
        (Ttl(120), {}, ("delete", 120)),
        (Ttl(120, "keep_latest"), {}, ("keep_latest", 120)),
        (Ttl(120), {"ttl": TtlRequest(strategy="keep_latest")}, ("keep_latest", 120)),
        (Ttl(120), {"ttl": TtlRequest(ttl=5)}, ("delete", 5)),
    ],
)
async def test_ttl_is_the_requests_or_the_default(make_service, default, asked, shown):
    service = make_service(default)
    thread = await service.create(ANYONE, models.ThreadCreate(**asked))
    ttl = await ttl_of(service, thread)
    assert (ttl and (ttl["strategy"], ttl["ttl_minutes"])) == shown
    if ttl:
        lives = datetime.fromisoformat(ttl["expires_at"]) - datetime.fromisoformat(
            thread["created_at"]
        )
        assert lives == timedelta(minutes=ttl["ttl_minutes"])


async def test_patch_sets_a_ttl_or_leaves_it(service):
    thread = await service.create(ANYONE, models.ThreadCreate(ttl=TtlRequest(ttl=5)))
    before = await ttl_of(service, thread)
    await service.patch(ANYONE, thread["thread_id"], models.ThreadPatch(metadata={"a": 1}))
    assert await ttl_of(service, thread) == before
    await service.patch(ANYONE, thread["thread_id"], models.ThreadPatch(ttl=TtlRequest(ttl=9)))
    assert (await ttl_of(service, thread))["ttl_minutes"] == 9
