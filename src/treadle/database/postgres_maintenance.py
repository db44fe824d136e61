"""Maintenance of a PostgreSQL database, or of the schema that its ``search_path`` names."""

from __future__ import annotations

import contextlib
import sys
from array import array
from collections.abc import Generator, Iterable, Iterator, Sequence
from importlib.resources import files
from typing import Any

import psycopg
from psycopg.abc import Buffer
from psycopg.adapt import Loader
from psycopg.pq import Format
from psycopg.sql import SQL, Identifier

from treadle.database.maintenance import VECTORS, Table, Values
from treadle.database.migrations import tables_made
from treadle.database.postgres_link import conninfo, shown
from treadle.errors import StartupError

LOCK_WAIT = "5s"

_COLUMNS = """
SELECT table_name, column_name,
       CASE data_type WHEN 'USER-DEFINED' THEN udt_name ELSE data_type END,
       is_generated = 'ALWAYS',
       pg_get_serial_sequence(format('%I.%I', table_schema, table_name), column_name)
FROM information_schema.columns
WHERE table_schema = current_schema() ORDER BY table_name, ordinal_position
"""

_KEYS = """
SELECT c.relname, a.attname
FROM pg_index AS i JOIN pg_class AS c ON c.oid = i.indrelid
JOIN pg_attribute AS a ON a.attrelid = c.oid AND a.attnum = ANY (i.indkey)
WHERE i.indisprimary AND c.relnamespace = current_schema()::regnamespace
ORDER BY c.relname, array_position(i.indkey::int[], a.attnum::int)
"""

_PARENTS = """
SELECT c.relname, p.relname
FROM pg_constraint AS f JOIN pg_class AS c ON c.oid = f.conrelid
JOIN pg_class AS p ON p.oid = f.confrelid
WHERE f.contype = 'f' AND c.relnamespace = current_schema()::regnamespace
"""


class PostgresMaintenance:
    """See ``treadle.database.maintenance.Maintenance``."""

    engine = "postgres"

    def __init__(self, uri: str) -> None:
        info = conninfo(uri)
        self.shown = shown(uri)
        try:
            self._connection = psycopg.connect(info, autocommit=True)
        except psycopg.OperationalError as error:
            why = " ".join(str(error).split())
            verb = "refuses" if "FATAL" in str(error) else "does not answer"
            raise StartupError(f"PostgreSQL at {self.shown} {verb}: {why}") from None
        [[schema]] = self.ask("SELECT current_schema()")
        if schema is None:
            self.close()
            raise StartupError(
                f"PostgreSQL at {self.shown} has no schema for this user: none of those that its"
                " search_path names is there."
            )
        if schema != "public":
            self.shown = f"{self.shown} (schema {schema})"

    def close(self) -> None:
        self._connection.close()

    def version(self) -> str:
        [[version]] = self.ask("SHOW server_version")
        return f"PostgreSQL {version}"

    def size_bytes(self) -> int:
        query = "SELECT coalesce(sum(pg_total_relation_size(to_regclass(quote_ident(name)))), 0)"
        [[size]] = self.ask(f"{query}::bigint FROM unnest(?::text[]) AS name", [[*self.tables()]])
        return size

    # -- the catalog -----------------------------------------------------------------------

    def has_table(self, name: str) -> bool:
        query = "SELECT 1 FROM pg_tables WHERE schemaname = current_schema() AND tablename = ?"
        return bool(self.ask(query, [name]))

    def tables(self) -> dict[str, Table]:
        ours = {*tables_made(self.engine), VECTORS}
        keys, parents = _grouped(self.ask(_KEYS)), _grouped(self.ask(_PARENTS))
        columns: dict[str, dict[str, str]] = {}
        counters: dict[str, str] = {}
        for table, column, kind, is_generated, sequence in self.ask(_COLUMNS):
            if table in ours and not is_generated:
                columns.setdefault(table, {})[column] = _KINDS.get(str(kind), str(kind))
                if sequence is not None:
                    counters[table] = column
        if list(columns.get(VECTORS, ())) == _VECTOR_COLUMNS:
            self._read_vectors()
        else:
            columns.pop(VECTORS, None)  # another program has a table of this name too
        return {
            name: Table(
                name,
                columns[name],
                tuple(keys.get(name, ())),
                counters.get(name),
                frozenset(parents.get(name, ())),
            )
            for name in columns
        }

    def _read_vectors(self) -> None:
        """Let rows have vectors as SQLite keeps them."""
        of_column = "attrelid = to_regclass(quote_ident(?)) AND attname = 'vector'"
        [[oid]] = self.ask(f"SELECT atttypid FROM pg_attribute WHERE {of_column}", [VECTORS])
        self._connection.adapters.register_loader(oid, _VectorLoader)

    def make_vectors(self) -> str | None:
        if VECTORS in self.tables():
            return None
        try:
            with self._connection.transaction():
                self._connection.execute(
                    (files(__package__ or "") / "postgres_vectors.sql").read_bytes()
                )
        except psycopg.Error as error:
            return error.diag.message_primary or str(error).strip()
        return None if VECTORS in self.tables() else f"another program has a table {VECTORS}"

    def _sequence(self, table: Table) -> str:
        query = "SELECT pg_get_serial_sequence(quote_ident(current_schema()) || '.' || ?, ?)"
        [[name]] = self.ask(query, [table.name, table.counter])
        return name

    def last_number(self, table: Table) -> int:
        [[number, is_used]] = self.ask(f"SELECT last_value, is_called FROM {self._sequence(table)}")
        return number if is_used else 0

    def set_last_number(self, table: Table, number: int) -> None:
        values = [self._sequence(table), max(number, 1), number > 0]
        self.execute("SELECT setval(?::regclass, ?, ?)", values)

    # -- rows ------------------------------------------------------------------------------

    def ask(self, sql: str, values: Values = ()) -> list[tuple[Any, ...]]:
        return self._connection.execute(_own(sql, values), values or None).fetchall()

    def stream(self, sql: str, values: Values = ()) -> Generator[tuple[Any, ...]]:
        with self._connection.cursor() as cursor:
            yield from cursor.stream(_own(sql, values), values or None, binary=True)

    def execute(self, sql: str, values: Values = ()) -> None:
        self._connection.execute(_own(sql, values), values or None)

    def insert(self, table: str, columns: Sequence[str], rows: Iterable[Values]) -> None:
        names = SQL(", ").join(map(Identifier, columns))
        command = SQL("COPY {} ({}) FROM STDIN").format(Identifier(table), names)
        if table == VECTORS:
            rows = _with_vectors_as_text(rows, columns.index("vector"))
        with self._connection.cursor() as cursor, cursor.copy(command) as copy:
            for row in rows:
                copy.write_row(row)

    @contextlib.contextmanager
    def transaction(self) -> Generator[None]:
        with self._connection.transaction():
            yield

    @contextlib.contextmanager
    def hold_still(self) -> Generator[None]:
        """Writers wait for the locks that this takes, and reads are of one moment."""
        tables = SQL(", ").join(map(Identifier, self.tables()))
        with self._connection.transaction():
            self.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
            self.execute("SET LOCAL idle_in_transaction_session_timeout = 0")
            self.execute(f"SET LOCAL lock_timeout = '{LOCK_WAIT}'")
            try:
                self._connection.execute(SQL("LOCK TABLE {} IN SHARE MODE").format(tables))
            except psycopg.errors.LockNotAvailable:
                raise StartupError(
                    f"{self.shown} is being written to: stop the servers that use it."
                ) from None
            yield

    @contextlib.contextmanager
    def hold_alone(self) -> Generator[None]:
        key = "hashtext('treadle copy ' || current_schema())"
        [[is_ours]] = self.ask(f"SELECT pg_try_advisory_lock({key})")
        if not is_ours:
            raise StartupError(f"{self.shown} is being filled by another treadle db copy.")
        try:
            yield
        finally:
            if not self._connection.closed:
                self.execute(f"SELECT pg_advisory_unlock({key})")

    def refresh_statistics(self) -> None:
        self._each_table("ANALYZE {}")

    def vacuum(self) -> None:
        self._each_table("VACUUM (ANALYZE) {}")

    def _each_table(self, command: str) -> None:
        for name in self.tables():
            self._connection.execute(SQL(command).format(Identifier(name)))  # pyright: ignore[reportArgumentType]


def _own(sql: str, values: Values) -> bytes:
    """psycopg's marks for values; without values it takes a query as it is."""
    return (sql.replace("?", "%s") if values else sql).encode()


class _VectorLoader(Loader):
    """pgvector's binary form, two numbers of 16 bits and big-endian floats, as SQLite's bytes."""

    format = Format.BINARY

    def load(self, data: Buffer) -> bytes:
        return _native(array("f", bytes(data)[4:])).tobytes()


def _native(floats: array[float]) -> array[float]:
    if sys.byteorder == "little":
        floats.byteswap()
    return floats


def _with_vectors_as_text(rows: Iterable[Values], place: int) -> Iterator[Values]:
    for row in rows:
        text = f"[{','.join(map(repr, array('f', row[place])))}]"
        yield [*row[:place], text, *row[place + 1 :]]


def _grouped(pairs: list[tuple[Any, ...]]) -> dict[str, list[str]]:
    groups: dict[str, list[str]] = {}
    for name, value in pairs:
        groups.setdefault(name, []).append(value)
    return groups


_KINDS = {
    "bigint": "integer",
    "integer": "integer",
    "smallint": "integer",
    "boolean": "boolean",
    "double precision": "real",
    "real": "real",
    "text": "text",
    "character varying": "text",
    "bytea": "bytes",
    "vector": "vector",
}
_VECTOR_COLUMNS = ["namespace", "key", "position", "dims", "vector"]
