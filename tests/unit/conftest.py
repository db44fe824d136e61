"""What all rooms' tests share."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from hashlib import sha1
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import sql

sys.path.insert(0, str(Path(__file__).parents[1]))  # for postgres_server.py

from outbound import pytest_configure, pytest_sessionfinish, pytest_unconfigure  # noqa: F401
from postgres_server import PREFIX, drop_databases, make_database
from treadle.database import Database
from treadle.database.postgres import PostgresDatabase
from treadle.database.sqlite import SQLiteDatabase

CLEARED_SECONDS = 10
OF_NO_THREAD = "SELECT count(*) AS n FROM {} WHERE thread_id NOT IN (SELECT thread_id FROM threads)"
ORPHANS = {
    **{
        table: OF_NO_THREAD.format(table)
        for table in (
            "runs",
            "events",
            "trimmed_events",
            "checkpoints",
            "checkpoint_values",
            "checkpoint_writes",
            "crons",
        )
    },
    "thread_labels": "SELECT count(*) AS n FROM thread_labels"
    " WHERE thread_seq NOT IN (SELECT seq FROM threads)",
    "writes of no checkpoint": "SELECT count(*) AS n FROM checkpoint_writes WHERE"
    " (thread_id, checkpoint_ns, checkpoint_id) NOT IN"
    " (SELECT thread_id, checkpoint_ns, checkpoint_id FROM checkpoints)",
    "values of no checkpoint": "SELECT count(*) AS n FROM checkpoint_values WHERE"
    " (thread_id, checkpoint_ns) NOT IN (SELECT thread_id, checkpoint_ns FROM checkpoints)",
    "vectors of no item": "SELECT count(*) AS n FROM store_vectors WHERE (namespace, key) NOT IN"
    " (SELECT namespace, key FROM store_items)",
    "deleted_threads": "SELECT count(*) AS n FROM deleted_threads",
}


OF_SQLITE = ("thread_labels", "vectors of no item")  # PostgreSQL has vectors with store.index only


@pytest.fixture(scope="session")
def postgres_uri() -> Iterator[str]:
    """A PostgreSQL database of this worker's own."""
    worker = os.environ.get("PYTEST_XDIST_WORKER", "alone")
    name = f"{PREFIX}unit_{sha1(__file__.encode()).hexdigest()[:8]}_{worker}"
    drop_databases(name)
    yield make_database(name)
    drop_databases(name)


@pytest.fixture(scope="session")
def empty_postgres(postgres_uri: str) -> Iterator[Callable[[], None]]:
    """Call it to remove all rows from ``postgres_uri``: much faster than a new database."""
    with psycopg.connect(postgres_uri, autocommit=True) as connection:

        def empty() -> None:
            names = connection.execute(
                "SELECT relkind::text, oid::regclass::text FROM pg_class"
                " WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'S')"
                " AND relname <> 'schema_migrations'"
            ).fetchall()
            tables = [sql.Identifier(name) for kind, name in names if kind == "r"]
            clear = [sql.SQL("DELETE FROM {}").format(table) for table in tables]
            clear += [sql.SQL("SELECT setval({}, 1, false)").format(sql.Literal(name))
                      for kind, name in names if kind == "S"]  # fmt: skip
            if clear:
                connection.execute(sql.SQL("; ").join(clear))

        yield empty


@pytest.fixture(params=["sqlite", "postgres"])
def new_database(request: Any, tmp_path: Path) -> Iterator[Callable[[], Database]]:
    """``new_database()``: a database that is still to be opened, always over the same data.

    Whoever asks for it is run on both engines.
    """
    if request.param == "sqlite":
        yield lambda: SQLiteDatabase(tmp_path / "treadle.db")
        return
    uri, empty = map(request.getfixturevalue, ("postgres_uri", "empty_postgres"))
    yield lambda: PostgresDatabase(uri)
    empty()


@pytest.fixture
async def database(new_database: Callable[[], Database]) -> AsyncIterator[Database]:
    database = new_database()
    await database.open()
    yield database
    await database.close()


@pytest.fixture
def orphans() -> Callable[[Database], Awaitable[dict[str, int]]]:
    """``await orphans(database)``: how many rows belong to nothing, by table; {} if all is well.

    What is on its way out gets the time to go.
    """

    async def orphans(database: Database) -> dict[str, int]:
        await database.flush()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(CLEARED_SECONDS):
                while await database.read_all("SELECT 1 FROM deleted_threads"):  # noqa: ASYNC110
                    await asyncio.sleep(0)
        found = {
            name: await database.read_one(sql)
            for name, sql in ORPHANS.items()
            if name not in OF_SQLITE or isinstance(database, SQLiteDatabase)
        }
        return {name: row["n"] for name, row in found.items() if row is not None and row["n"]}

    return orphans
