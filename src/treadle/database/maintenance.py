"""A database as the commands of ``treadle db`` see it: one connection, no event loop.

It neither makes nor changes a schema: that is what opening a ``Database`` does.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Generator, Iterable, Sequence
from contextlib import AbstractContextManager, closing
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import psycopg

from treadle.database.migrations import migrations, pending
from treadle.errors import StartupError
from treadle.settings import Settings

ERRORS = (sqlite3.Error, psycopg.Error)
"""What either engine raises."""

VECTORS = "store_vectors"
"""The table that PostgreSQL has only where pgvector is used."""

Values = Sequence[Any]


class Table(NamedTuple):
    """A table as the catalog has it. Generated columns are left out: nobody writes them."""

    name: str
    columns: dict[str, str]
    """Kind by name: integer, boolean, real, text, bytes, vector (in rows it is bytes, a float of 32
    bits after the other), or the engine's own word for another."""
    key: tuple[str, ...]
    counter: str | None
    """The column that the database numbers by itself."""
    parents: frozenset[str]
    """The tables that this one refers to."""


class Maintenance(Protocol):
    """One connection for maintenance. In its SQL ``?`` stands for a value."""

    engine: str
    """Whose migrations it takes: sqlite or postgres."""
    shown: str
    """Where it is, for people: no password in it."""

    def close(self) -> None: ...

    def version(self) -> str:
        """Name and version of the engine."""
        ...

    def size_bytes(self) -> int:
        """The room that Treadle's tables take."""
        ...

    def tables(self) -> dict[str, Table]:
        """The tables that Treadle made here."""
        ...

    def make_vectors(self) -> str | None:
        """Make the table ``VECTORS`` if it is not there; why it cannot be had, if so."""
        ...

    def has_table(self, name: str) -> bool: ...

    def ask(self, sql: str, values: Values = ()) -> list[tuple[Any, ...]]:
        """All rows of a query."""
        ...

    def stream(self, sql: str, values: Values = ()) -> Generator[tuple[Any, ...]]:
        """The rows of a query one by one; they are never all in memory."""
        ...

    def execute(self, sql: str, values: Values = ()) -> None: ...

    def insert(self, table: str, columns: Sequence[str], rows: Iterable[Values]) -> None: ...

    def transaction(self) -> AbstractContextManager[None]:
        """What is executed inside is done together, or not at all."""
        ...

    def hold_still(self) -> AbstractContextManager[None]:
        """Inside, nobody writes to this database. Raises ``StartupError`` if somebody does."""
        ...

    def hold_alone(self) -> AbstractContextManager[None]:
        """Inside, no other command fills this database. Raises ``StartupError`` if one does."""
        ...

    def last_number(self, table: Table) -> int:
        """The last number that the database gave in ``table.counter``; 0 if none."""
        ...

    def set_last_number(self, table: Table, number: int) -> None: ...

    def refresh_statistics(self) -> None:
        """Let the database look at its tables anew, so that it plans queries well."""
        ...

    def vacuum(self) -> None:
        """Give back the room that deleted rows took."""
        ...


def open_maintenance(uri: str | None, folder: Path, *, writes: bool = False) -> Maintenance:
    """Connect to the database of a URI; a relative path counts from ``folder``.

    Raises ``StartupError`` if there is none, or none that lets us in.
    """
    settings = Settings(database_uri=uri)
    if settings.is_postgres:
        from treadle.database.postgres_maintenance import PostgresMaintenance

        return PostgresMaintenance(str(uri))
    from treadle.database.sqlite_maintenance import SQLiteMaintenance

    return SQLiteMaintenance(settings.database_path(folder), writes=writes)


def migrations_done(place: Maintenance) -> list[str]:
    """The names of the migrations that a database has had, none if it is empty.

    Raises ``StartupError`` if it is another program's.
    """
    if place.has_table("schema_migrations"):
        try:
            return [row[0] for row in place.ask("SELECT name FROM schema_migrations")]
        except ERRORS:
            raise _not_ours(place, "schema_migrations") from None
    if foreign := sorted(place.tables()):
        raise _not_ours(place, foreign[0])
    return []


def _not_ours(place: Maintenance, table: str) -> StartupError:
    return StartupError(
        f"{place.shown} is not a Treadle database: its table {table} is another program's."
    )


def require_treadle(place: Maintenance) -> list[str]:
    """The migrations done; raises ``StartupError`` if Treadle was never here."""
    done = migrations_done(place)
    if not done:
        raise StartupError(
            f"{place.shown} is not a Treadle database: it has none of its tables."
            " treadle db upgrade makes them."
        )
    return done


def pending_names(place: Maintenance, done: list[str]) -> list[str]:
    """The migrations that a database still needs; raises as ``pending`` does."""
    return [name for name, _ in pending(place.engine, done, place.shown)]


def upgrade(settings: Settings, folder: Path) -> list[str]:
    """Make the tables that are missing; the names of the migrations that did.

    Raises ``StartupError``: a server has the file, another program has the tables.
    """
    return asyncio.run(_upgrade(settings, folder))


async def _upgrade(settings: Settings, folder: Path) -> list[str]:
    from treadle.database.postgres import PostgresDatabase
    from treadle.database.postgres_link import first_connection
    from treadle.database.sqlite import SQLiteDatabase

    def done() -> list[str]:
        with closing(open_maintenance(settings.database_uri, folder)) as place:
            return migrations_done(place)

    if settings.is_postgres:
        uri, wait = str(settings.database_uri), settings.postgres_wait_secs
        await (await first_connection(uri, wait)).close()
        before, database = done(), PostgresDatabase(uri, wait_seconds=wait)
    else:
        path = settings.database_path(folder)
        before, database = done() if path.exists() else [], SQLiteDatabase(path)
    await database.open()
    await database.close()
    return [name for name in done() if name not in before]


def newest(engine: str) -> str:
    """The name of the last migration that this Treadle knows."""
    return migrations(engine)[-1][0]
