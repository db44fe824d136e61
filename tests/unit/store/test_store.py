"""The store over a real database: from the event loop, from threads, from other loops."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from langgraph.store.base import GetOp, InvalidNamespaceError, PutOp

import treadle.store.backend
from treadle.database import pieces
from treadle.store.backend import MINUTE_US, DatabaseStore
from treadle.store.filters import check_filter, matches

NS = ("a", "b")


@pytest.fixture
async def store(database) -> DatabaseStore:
    store = DatabaseStore(database)
    await store.open()
    return store


@pytest.fixture
def clock(monkeypatch) -> list[int]:
    """The store's clock, in microseconds; it stands still unless a test moves it."""
    now = [1_000_000_000_000_000]
    monkeypatch.setattr(treadle.store.backend, "now_us", lambda: now[0])
    return now


async def keys(store: DatabaseStore, *prefix: str, **search: Any) -> list[str]:
    return [item.key for item in await store.asearch(prefix, **search)]


async def test_put_get_delete(store):
    value = {"a": [1, {"b": None}], "big": 2**60, "small": 1e-9, "text": "é🎉"}
    await store.aput(NS, "k", value)
    item = await store.aget(NS, "k")
    assert (item.namespace, item.key, item.value) == (NS, "k", value)
    assert await store.aget(("a",), "k") is None
    await store.adelete(NS, "k")
    assert await store.aget(NS, "k") is None


async def test_put_again_keeps_created_at(store, clock):
    await store.aput(NS, "k", {"v": 1})
    first = await store.aget(NS, "k")
    clock[0] += 1
    await store.aput(NS, "k", {"w": 2})
    second = await store.aget(NS, "k")
    assert second.value == {"w": 2}
    assert second.created_at == first.created_at < second.updated_at


async def test_sync_methods_work_from_threads_only(store):
    await asyncio.to_thread(store.put, NS, "k", {"v": 1})
    assert (await asyncio.to_thread(store.get, NS, "k")).value == {"v": 1}
    assert [i.key for i in await asyncio.to_thread(store.search, NS)] == ["k"]
    with pytest.raises(asyncio.InvalidStateError, match="aget"):
        store.get(NS, "k")


async def test_async_methods_work_from_other_loops(store):
    async def elsewhere() -> Any:
        await store.aput(NS, "k", {"v": 1})
        return (await store.aget(NS, "k")).value

    assert await asyncio.to_thread(asyncio.run, elsewhere()) == {"v": 1}


@pytest.mark.parametrize("namespace", [(), ("langgraph",), ("a.b",), ("",), ("a", 5)], ids=str)
async def test_bad_namespaces(store, namespace):
    with pytest.raises(InvalidNamespaceError):
        await store.aput(namespace, "k", {})


async def test_batch_reads_before_it_writes_and_the_last_put_wins(store):
    results = await store.abatch(
        [PutOp(NS, "k", {"v": 1}), GetOp(NS, "k"), PutOp(NS, "k", {"v": 2})]
    )
    assert results == [None, None, None]
    assert (await store.aget(NS, "k")).value == {"v": 2}
    with pytest.raises(InvalidNamespaceError):
        await store.abatch([PutOp(("a.b",), "k", {})])


async def test_polling_and_writing_tasks_do_not_hold_each_other_up(store):
    async def wait_for(key: str) -> None:
        while await store.aget(NS, key) is None:  # it yields to the others by itself
            pass

    waiting = [asyncio.create_task(wait_for(f"k{i}")) for i in range(8)]
    for i in range(8):
        await store.aput(NS, f"k{i}", {})
    await asyncio.wait_for(asyncio.gather(*waiting), 10)


# -- search -----------------------------------------------------------------------------------
async def test_search_is_by_whole_labels_latest_first(store, clock):
    for path in (("a",), ("a", "b"), ("a", "b", "c"), ("ab",), ("A",), ("a*",), ("a-b",)):
        clock[0] += 1
        await store.aput(path, "/".join(path), {})
    assert await keys(store, "a") == ["a/b/c", "a/b", "a"]
    assert await keys(store, "a", "*") == []
    assert len(await keys(store)) == 7


async def test_filtered_pages_cover_everything_once(store, clock):
    for i in range(350):
        clock[0] += i % 2
        await store.aput(NS, f"k{i:03}", {"i": i, "odd": bool(i % 2)})
    found: list[str] = []
    for offset in range(0, 175, 30):
        found += await keys(
            store, *NS, filter={"i": {"$ne": -1}, "odd": True}, limit=30, offset=offset
        )
    assert sorted(found) == [f"k{i:03}" for i in range(1, 350, 2)]
    assert await keys(store, *NS, filter={"i": {"$gte": 349}}) == ["k349"]
    assert await keys(store, *NS, filter={"i": 3.0}) == ["k003"]
    assert await keys(store, *NS, limit=0) == []


@pytest.mark.parametrize(
    ("stored", "wanted", "match"),
    [
        (1, 1.0, True), ("1", 1, False), (True, 1, False), (1, True, False),
        ([1, 2], [1, 2], True), ([2, 1], [1, 2], False), ([1], 1, False),
        (None, None, True), (0, None, False), (None, {"$ne": None}, False),
        ({"a": 1, "b": 2}, {"a": 1}, True), ({"a": 1}, {"c": None}, True), (5, {"a": 1}, False),
        ({"a": 1}, {"a": {"$gt": 0}}, True), (None, {"$ne": 1}, True),
        (3, {"$gt": 1, "$lt": 4}, True), (None, {"$gt": 1}, False), ("5", {"$gt": 1}, False),
        ("b", {"$gt": "a"}, True), (True, {"$gte": 0}, False), ([1], {"$lt": 5}, False),
        ({"a": 1}, {"$eq": {"a": 1}}, True),
    ],
    ids=str,
)  # fmt: skip
def test_what_a_filter_means(stored, wanted, match):
    assert matches(stored, wanted) is match


@pytest.mark.parametrize("wanted", [{"i": {"$in": [1]}}, {"a": {"b": {"$in": 1}}}, {"$or": []}])
def test_unknown_operators_are_named(wanted):
    with pytest.raises(ValueError, match=r"Unsupported operator: \$(in|or)"):
        check_filter(wanted)


# -- namespaces ---------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("search", "expected"),
    [
        ({}, [("u1", "notes"), ("u1", "prefs"), ("u2", "prefs", "x"), ("u3",)]),
        ({"prefix": ("u1",)}, [("u1", "notes"), ("u1", "prefs")]),
        ({"prefix": ("*", "prefs")}, [("u1", "prefs"), ("u2", "prefs", "x")]),
        ({"suffix": ("prefs", "*")}, [("u2", "prefs", "x")]),
        ({"max_depth": 1}, [("u1",), ("u2",), ("u3",)]),
        ({"max_depth": 1, "suffix": ("x",)}, [("u2",)]),
        ({"limit": 1, "offset": 1}, [("u1", "prefs")]),
        ({"prefix": ("u",)}, []),
        ({"limit": 0}, []),
    ],
    ids=str,
)
async def test_namespaces(store, search, expected):
    for path in (("u1", "notes"), ("u1", "prefs"), ("u2", "prefs", "x"), ("u3",)):
        await store.aput(path, "k", {})
    await store.aget(("ghost",), "k")
    await store.aput(("gone",), "k", {})
    await store.adelete(("gone",), "k")
    assert await store.alist_namespaces(**search) == expected


# -- ttl ----------------------------------------------------------------------------------------
async def test_expired_items_are_gone_at_once(store, clock):
    await store.aput(NS, "short", {"v": 1}, ttl=1)
    await store.aput(NS, "forever", {"v": 1})
    await store.aput(NS, "absurd", {"v": 1}, ttl=1e300)
    clock[0] += MINUTE_US
    assert await store.aget(NS, "short") is None
    assert sorted(await keys(store, *NS)) == ["absurd", "forever"]
    assert await store.sweep(clock[0] - 1) == 0
    assert await store.sweep(clock[0]) == 1
    assert await store.sweep(clock[0]) == 0


@pytest.mark.parametrize("piece_seconds", [1, -1])
async def test_a_sweep_in_pieces_removes_what_is_over_and_nothing_else(
    store, database, clock, monkeypatch, piece_seconds
):
    monkeypatch.setattr(pieces, "PIECE_SECONDS", piece_seconds)
    monkeypatch.setattr(pieces, "PAUSE_SECONDS", 0)
    over = [PutOp(NS, f"k{i}", {"v": i}, ttl=1) for i in range(pieces.PIECE_ROWS + 50)]
    await store.abatch([*over, PutOp(NS, "long", {}, ttl=2), PutOp(NS, "forever", {})])
    clock[0] += MINUTE_US
    assert await store.sweep(clock[0]) == len(over)
    rows = await database.read_all("SELECT key FROM store_items")
    assert {row["key"] for row in rows} == {"long", "forever"}


async def test_reading_extends_a_life_unless_told_otherwise(store, database, clock):
    for key in ("read", "found", "untouched"):
        await store.aput((key,), key, {}, ttl=2)
    clock[0] += MINUTE_US
    assert await store.aget(("read",), "read")
    assert await keys(store, "found") == ["found"]
    assert await store.aget(("untouched",), "untouched", refresh_ttl=False)
    await database.flush()
    clock[0] += MINUTE_US + 1
    assert await store.aget(("read",), "read")
    assert await keys(store, "found") == ["found"]
    assert await store.aget(("untouched",), "untouched") is None


async def test_default_ttl(database, clock):
    store = DatabaseStore(database, {"default_ttl": 1, "refresh_on_read": False})
    await store.open()
    await store.aput(NS, "default", {})
    await store.aput(NS, "own", {}, ttl=2)
    await store.aput(NS, "none", {}, ttl=None)
    clock[0] += MINUTE_US + 1
    assert sorted(await keys(store, *NS)) == ["none", "own"]
