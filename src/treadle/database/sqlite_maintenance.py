"""Maintenance of an SQLite file."""

from __future__ import annotations

import contextlib
import os
import re
import sqlite3
from collections.abc import Generator, Iterable, Sequence
from pathlib import Path
from typing import Any

from treadle.database.maintenance import Table, Values
from treadle.database.migrations import tables_made
from treadle.database.sqlite import take_lock
from treadle.errors import StartupError

BUSY_SECONDS = 5.0


class SQLiteMaintenance:
    """See ``treadle.database.maintenance.Maintenance``."""

    engine = "sqlite"

    def __init__(self, path: Path, *, writes: bool) -> None:
        self.path = path
        self.shown = str(path)
        if not path.exists():
            raise StartupError(
                f"There is no database {path}. A server makes it when it starts, or"
                " treadle db upgrade."
            )
        uri = f"{path.absolute().as_uri()}?mode={'rw' if writes else 'ro'}"
        try:
            with contextlib.ExitStack() as unless_it_works:
                self._connection = sqlite3.connect(
                    uri, uri=True, isolation_level=None, timeout=BUSY_SECONDS
                )
                unless_it_works.callback(self._connection.close)
                self._connection.execute("SELECT 1 FROM sqlite_master").fetchone()
                unless_it_works.pop_all()
        except sqlite3.Error as error:
            raise StartupError(f"The database {path} cannot be used: {error}.") from None

    def close(self) -> None:
        self._connection.close()

    def version(self) -> str:
        return f"SQLite {sqlite3.sqlite_version}"

    def size_bytes(self) -> int:
        files = [self.path, Path(f"{self.path}-wal")]
        return sum(file.stat().st_size for file in files if file.exists())

    # -- the catalog -----------------------------------------------------------------------

    def has_table(self, name: str) -> bool:
        sql = "SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = ?"
        return bool(self.ask(sql, [name]))

    def tables(self) -> dict[str, Table]:
        ours = tables_made(self.engine)
        found = self.ask("SELECT name, sql FROM sqlite_master WHERE type = 'table' ORDER BY name")
        return {name: self._table(name, sql) for name, sql in found if name in ours}

    def make_vectors(self) -> None:
        """Nothing to do: a migration has made it."""

    def _table(self, name: str, sql: str) -> Table:
        columns: dict[str, str] = {}
        key: dict[int, str] = {}
        info = self.ask("SELECT name, type, pk, hidden FROM pragma_table_xinfo(?)", [name])
        for column, declared, place, hidden in info:
            if not hidden:
                kind = str(declared)
                columns[column] = _KINDS.get(kind.upper(), kind)
                if place:
                    key[place] = column
        numbers = re.search(r"\bAUTOINCREMENT\b", sql, re.IGNORECASE) is not None
        parents = self.ask('SELECT "table" FROM pragma_foreign_key_list(?)', [name])
        return Table(
            name,
            columns,
            tuple(key[place] for place in sorted(key)),
            key[1] if numbers else None,
            frozenset(row[0] for row in parents),
        )

    def last_number(self, table: Table) -> int:
        rows = self.ask("SELECT seq FROM sqlite_sequence WHERE name = ?", [table.name])
        return rows[0][0] if rows else 0

    def set_last_number(self, table: Table, number: int) -> None:
        self.execute("DELETE FROM sqlite_sequence WHERE name = ?", [table.name])
        self.execute("INSERT INTO sqlite_sequence (name, seq) VALUES (?, ?)", [table.name, number])

    # -- rows ------------------------------------------------------------------------------

    def ask(self, sql: str, values: Values = ()) -> list[tuple[Any, ...]]:
        return self._connection.execute(sql, values).fetchall()

    def stream(self, sql: str, values: Values = ()) -> Generator[tuple[Any, ...]]:
        yield from self._connection.execute(sql, values)

    def execute(self, sql: str, values: Values = ()) -> None:
        self._connection.execute(sql, values)

    def insert(self, table: str, columns: Sequence[str], rows: Iterable[Values]) -> None:
        marks = ", ".join("?" * len(columns))
        sql = f"INSERT INTO {table} ({', '.join(columns)}) VALUES ({marks})"
        self._connection.executemany(sql, rows)

    @contextlib.contextmanager
    def transaction(self) -> Generator[None]:
        self.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            self.execute("ROLLBACK")
            raise
        self.execute("COMMIT")

    @contextlib.contextmanager
    def hold_still(self) -> Generator[None]:
        lock = take_lock(self.path)
        try:
            yield
        finally:
            os.close(lock)

    def hold_alone(self) -> contextlib.AbstractContextManager[None]:
        return self.hold_still()

    def refresh_statistics(self) -> None:
        """Nothing to do: SQLite plans without them. The log goes into the file."""
        self.execute("PRAGMA wal_checkpoint(TRUNCATE)")

    def vacuum(self) -> None:
        """Raises ``DatabaseInUse`` while a server has the file."""
        with self.hold_still():
            self.execute("VACUUM")
            self.execute("PRAGMA wal_checkpoint(TRUNCATE)")


_KINDS = {
    "INTEGER": "integer",
    "BIGINT": "integer",
    "SMALLINT": "integer",
    "BOOLEAN": "boolean",
    "REAL": "real",
    "TEXT": "text",
    "BLOB": "bytes",
}
