"""Search by meaning over a real database: what is ranked, and what becomes of vectors."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from langgraph.store.base import PutOp, ensure_embeddings
from structlog.testing import capture_logs

import treadle.store.backend
from treadle.auth import ANYONE
from treadle.database import Database
from treadle.database.postgres import PostgresDatabase
from treadle.database.sqlite import SQLiteDatabase
from treadle.errors import Refused, StartupError
from treadle.store.backend import DatabaseStore
from treadle.store.embedding import Embedder
from treadle.store.models import ItemPut, ItemSearch
from treadle.store.service import StoreService

WORDS = ("cat", "dog", "car")
NS = ("animals",)


def embed(texts: list[str]) -> list[list[float]]:
    if "broken" in texts:
        raise OSError("the model is away")
    return [[float(text.count(word)) for word in WORDS] for text in texts]


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[SQLiteDatabase]:
    database = SQLiteDatabase(tmp_path / "test.db")
    with capture_logs():
        await database.open()
        yield database
        await database.close()


async def open_store(database: Database, dims: int = 3, function: Any = embed):
    store = DatabaseStore(database, None, Embedder(ensure_embeddings(function), dims, ["text"]))
    await store.open()
    return store


@pytest.fixture
async def store(database) -> DatabaseStore:
    return await open_store(database)


async def ranked(store: DatabaseStore, query: str | None, **options: Any) -> list[Any]:
    found = await store.asearch(options.pop("within", ()), query=query, **options)
    return [(i.key, None if i.score is None else round(i.score, 3)) for i in found]


async def test_items_come_by_the_best_of_their_vectors(store):
    await store.aput(NS, "both", {"text": "cat dog"})
    await store.aput(NS, "dog", {"text": "dog"})
    await store.aput(NS, "two", {"a": ["dog", "cat"]}, index=["a[*]"])
    await store.aput(NS, "none", {"text": "cat"}, index=False)
    await store.aput(NS, "nothing known", {"text": "house"})
    assert await ranked(store, "cat") == [
        ("two", 1.0),
        ("both", 0.707),
        ("dog", 0.0),
        ("nothing known", None),
        ("none", None),
    ]
    assert await ranked(store, "cat", limit=1, offset=1) == [("both", 0.707)]
    assert [score for _, score in await ranked(store, "house")] == [None] * 5
    assert [score for _, score in await ranked(store, "")] == [None] * 5


async def test_filters_and_prefixes_are_kept(store, monkeypatch):
    monkeypatch.setattr(treadle.store.backend, "RANKED_ROWS", 2)
    for n in range(7):
        await store.aput((*NS, "x"), f"{n}", {"text": "cat " * n + "dog", "n": n})
    await store.aput(("other",), "best", {"text": "cat", "n": 5})
    assert await ranked(store, "cat", within=NS, filter={"n": 3}) == [("3", 0.949)]
    found = await ranked(store, "cat", within=NS, filter={"n": {"$gte": 2}}, limit=2, offset=1)
    assert [key for key, _ in found] == ["5", "4"]
    assert len(await ranked(store, "cat", within=NS, filter={"n": {"$lt": 3}}, limit=50)) == 3


async def test_vectors_follow_their_items(store, database):
    count = "SELECT count(*) AS n FROM store_vectors"
    await store.aput(NS, "k", {"text": "cat"})
    await store.aput(NS, "k", {"text": "dog"})
    assert await ranked(store, "dog") == [("k", 1.0)]
    await store.aput(NS, "k", {"text": "dog"}, index=False)
    assert (await database.read_one(count))["n"] == 0
    await store.abatch([PutOp(NS, "k", {"text": "car"}), PutOp(NS, "k", {"text": "cat"})])
    assert await ranked(store, "cat") == [("k", 1.0)]
    await store.adelete(NS, "k")
    assert (await database.read_one(count))["n"] == 0


async def test_expired_items_are_not_ranked(store, database, monkeypatch):
    await store.aput(NS, "k", {"text": "cat"}, ttl=1)
    later = treadle.store.backend.now_us() + 61_000_000
    monkeypatch.setattr(treadle.store.backend, "now_us", lambda: later)
    assert await ranked(store, "cat") == []
    assert await store.sweep(later) == 1
    assert (await database.read_one("SELECT count(*) AS n FROM store_vectors"))["n"] == 0


async def test_other_dimensions_begin_anew(store, database):
    await store.aput(NS, "k", {"text": "cat"})
    wider = await open_store(database, 4, lambda texts: [[*v, 1.0] for v in embed(texts)])
    assert await ranked(wider, "cat") == [("k", None)]
    await wider.aput(NS, "k", {"text": "cat"})
    assert await ranked(wider, "cat") == [("k", 1.0)]


async def test_without_an_index_values_that_are_put_forget_their_vectors(store, database):
    await store.aput(NS, "k", {"text": "cat"})
    plain = DatabaseStore(database)
    await plain.open()
    await plain.aput(NS, "k", {"text": "dog"})
    assert await ranked(store, "cat") == [("k", None)]


async def test_what_the_function_cannot_do_is_refused_and_puts_nothing(store):
    service = StoreService(store)
    with pytest.raises(Refused, match="the model is away"):
        await service.put(ANYONE, ItemPut(["a"], "k", {"text": "broken"}))
    assert await store.aget(("a",), "k") is None
    with pytest.raises(Refused, match="the model is away"):
        await service.search(ANYONE, ItemSearch(query="broken"))


async def test_postgres_ranks_with_pgvector_or_says_that_it_cannot(postgres_uri):
    database = PostgresDatabase(postgres_uri)
    await database.open()
    try:
        offered = "SELECT 1 FROM pg_available_extensions WHERE name = 'vector'"
        if await database.read_one(offered) is not None:
            store = DatabaseStore(database, None, Embedder(ensure_embeddings(embed), 3, ["text"]))
            await store.open()
            await store.aput(NS, "dog", {"text": "dog"})
            await store.aput(NS, "cat", {"text": "cat"})
            assert await ranked(store, "cat") == [("cat", 1.0), ("dog", 0.0)]
        else:
            with pytest.raises(StartupError, match="needs the extension pgvector"):
                await open_store(database)
    finally:
        await database.close()
