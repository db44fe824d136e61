from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import psycopg
import pytest

from treadle.cluster.signals import Signals
from treadle.database.postgres import PostgresDatabase
from treadle.database.sqlite import SQLiteDatabase


@pytest.fixture
async def database(postgres_uri: str) -> AsyncIterator[PostgresDatabase]:
    database = PostgresDatabase(postgres_uri)
    await database.open()
    yield database
    await database.close()


class Ear:
    """The signals of one process, and what it has heard."""

    def __init__(self, database: Any) -> None:
        self.signals = Signals(database)
        self.heard: list[tuple[str, ...]] = []
        self.missed = 0
        self.signals.on("cat", lambda *words: self.heard.append(words))
        self.signals.on_missed(self._count)

    def _count(self) -> None:
        self.missed += 1


async def until(check: Callable[[], Any]) -> None:
    async with asyncio.timeout(5):
        while not check():  # noqa: ASYNC110
            await asyncio.sleep(0.005)


@pytest.fixture
async def ears(database: PostgresDatabase) -> AsyncIterator[tuple[Ear, Ear]]:
    one, other = Ear(database), Ear(database)
    await one.signals.open()
    await other.signals.open()
    yield one, other
    await one.signals.close()
    await other.signals.close()


async def test_a_signal_is_heard_by_others_once_it_is_committed(database, ears):
    one, other = ears

    async def body(transaction: Any) -> None:
        one.signals.tell(transaction, "cat", "a", "b")
        one.signals.tell(transaction, "cat", "a", "b")
        one.signals.tell(transaction, "dog")

    await database.write(body)
    await until(lambda: other.heard)
    assert other.heard == [("a", "b")]
    assert one.heard == []


async def test_a_signal_may_be_meant_for_one_process(database, ears):
    one, other = ears
    third = Ear(database)
    await third.signals.open()
    one.signals.tell_now("cat", "for other", to=other.signals.me)
    one.signals.tell_now("cat", "for", "all")
    await until(lambda: third.heard)
    assert third.heard == [("for", "all")]
    assert other.heard == [("for", "other"), ("for", "all")]
    await third.signals.close()


async def test_what_is_not_committed_is_not_told(database, ears):
    one, other = ears

    async def fails(transaction: Any) -> None:
        await transaction.execute("DELETE FROM workers WHERE owner = :owner", {"owner": "x"})
        one.signals.tell(transaction, "cat", "lost")
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        await database.write(fails)
    one.signals.tell_now("cat", "told")
    await until(lambda: ("told",) in other.heard)
    assert other.heard == [("told",)]


async def test_a_lost_connection_is_made_anew_and_others_look_again(postgres_uri, ears):
    one, other = ears
    with psycopg.connect(postgres_uri, autocommit=True) as connection:
        connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE datname = current_database() AND query LIKE 'LISTEN%'"
        )
    await until(lambda: one.missed and other.missed)
    one.signals.tell_now("cat", "again")
    await until(lambda: other.heard)


async def test_an_assistant_that_changes_is_told_by_the_database(database, ears):
    _, other = ears
    found: list[str] = []
    other.signals.on("assistant", found.append)

    async def change(transaction: Any) -> None:
        await transaction.execute(
            "INSERT INTO assistants (assistant_id, graph_id, version, name, name_folded, config,"
            " context, metadata, created_at, updated_at)"
            " VALUES ('a1', 'g', 1, 'n', 'n', '{}', '{}', '{}', 0, 0)"
        )
        await transaction.execute("UPDATE assistants SET version = 2 WHERE assistant_id = 'a1'")
        await transaction.execute("DELETE FROM assistants WHERE assistant_id = 'a1'")

    await database.write(change)
    await until(lambda: found)
    assert found == ["a1"]


async def test_with_sqlite_nobody_hears(tmp_path: Path):
    database = SQLiteDatabase(tmp_path / "t.db")
    await database.open()
    ear = Ear(database)
    await ear.signals.open()
    assert ear.signals.is_alone
    ear.signals.tell_now("cat", "x")
    await ear.signals.close()
    await database.close()
