"""Copies a database into another one, of the same engine or not, and proves that it did.

Nothing here names a table that has data: tables and columns come from both catalogs, which have
to agree. Rows go over in batches, in the order of their keys; each batch is one transaction with
the note of how far it got, so a copy that was cut off goes on behind the last batch. At the end
both sides are read and compared, and only then may a server start on the copy.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, closing
from graphlib import TopologicalSorter
from hashlib import blake2b
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from treadle.clock import now_us
from treadle.database.maintenance import (
    ERRORS,
    VECTORS,
    Maintenance,
    Table,
    migrations_done,
    open_maintenance,
    pending_names,
    require_treadle,
    upgrade,
)
from treadle.database.migrations import COPY_MARK
from treadle.errors import StartupError
from treadle.settings import Settings

NOT_COPIED = {
    "schema_migrations": "each database has its own",
    "workers": "the leases of running servers: those of the copy take their own",
    "thread_labels": "an index of SQLite's, which its triggers fill",
    "watches": "who reads what at this moment",
    "live_batches": "events on their way between running servers",
    "leaving": "what running servers are still at work on",
}
"""The tables that stay behind, and why."""

ONE_SIDED = {"threads.last_event_id"}
"""Columns that are copied only where both sides have them: PostgreSQL's processes tell each other
there from where ids go on, which a file's one process knows by itself."""

PROGRESS = "copy_progress"
BATCH_ROWS = 5000
BATCH_BYTES = 4 * 2**20

Row = tuple[Any, ...]
Hear = Callable[["Step"], None]


class Step(NamedTuple):
    """How far the copy is: ``rows`` of ``table`` more have been copied, or compared."""

    table: str
    rows: int
    is_check: bool


class Report(NamedTuple):
    """What was copied: rows by table, and how many texts lost their NUL characters.

    ``without_vectors`` says why the vectors of store items were not: items are searched by
    meaning once they are put again.
    """

    rows: dict[str, int]
    replaced: int
    without_vectors: str | None


class Copy:
    """One copy, from database to database; ``prepare``, then ``run``. Close it after use.

    Both raise ``StartupError``. If ``run`` is cut off, the next copy between the same two goes on.
    """

    def __init__(self, source: str, target: str) -> None:
        self._source_uri, self._target_uri = source, target
        self._stack = ExitStack()
        self._replaced = 0
        self._without_vectors: str | None = None
        self._source: Maintenance
        self._target: Maintenance
        self._tables: list[Table] = []

    def close(self) -> None:
        self._stack.close()

    # -- before ----------------------------------------------------------------------------

    def prepare(self) -> int:
        """See that it can be done, and make the target's tables; how many steps there are."""
        source = self._source = self._open(self._source_uri, writes=False)
        self._require_current(source, require_treadle(source))
        _refuse_live_servers(source)
        self._stack.enter_context(source.hold_still())
        _refuse_live_servers(source)
        target = self._target = self._open_target()
        if target.shown == source.shown:
            raise StartupError(f"{source.shown} cannot be copied to itself.")
        self._stack.enter_context(target.hold_alone())
        done = migrations_done(target)
        if goes_on := COPY_MARK in done:
            self._require_same_source()
            done.remove(COPY_MARK)
        self._require_current(target, done)
        if VECTORS in source.tables() and count(source, VECTORS):
            self._without_vectors = target.make_vectors()
        self._tables = in_order(source, target)
        if not goes_on:
            self._require_empty()
        return 2 * sum(count(source, table.name) for table in self._tables)

    def _open(self, uri: str, *, writes: bool) -> Maintenance:
        place = open_maintenance(uri, Path(), writes=writes)
        self._stack.callback(place.close)
        return place

    def _open_target(self) -> Maintenance:
        """The target, its tables made if it is empty."""
        settings = Settings(database_uri=self._target_uri)
        if settings.is_postgres or settings.database_path(Path()).exists():
            target = self._open(self._target_uri, writes=True)
            if migrations_done(target):
                return target
        upgrade(settings, Path())
        return self._open(self._target_uri, writes=True)

    def _require_current(self, place: Maintenance, done: list[str]) -> None:
        if missing := pending_names(place, done):
            raise StartupError(
                f"{place.shown} has not got {missing[0]}: bring it up to date with"
                " treadle db upgrade first."
            )

    def _require_empty(self) -> None:
        rows = {table.name: count(self._target, table.name) for table in self._tables}
        if full := [f"{name}: {number}" for name, number in rows.items() if number]:
            raise StartupError(
                f"{self._target.shown} has data already ({', '.join(full)}). Name an empty"
                " database to copy to."
            )

    def _require_same_source(self) -> None:
        [[other]] = self._target.ask(f"SELECT position FROM {PROGRESS} WHERE name = ''")
        if other != self._source.shown:
            raise StartupError(
                f"{self._target.shown} is half filled by a copy of {other}. Go on with that one,"
                " or name an empty database."
            )

    # -- the copy itself -------------------------------------------------------------------

    def run(self, hear: Hear) -> Report:
        """Copy all that has not been copied, compare, and release the target to servers."""
        target = self._target
        if not target.has_table(PROGRESS):
            with target.transaction():
                target.execute(f"CREATE TABLE {PROGRESS} (name TEXT PRIMARY KEY, position TEXT)")
                self._note("", self._source.shown)
                target.execute("INSERT INTO schema_migrations (name) VALUES (?)", [COPY_MARK])
        for table in self._tables:
            self._copy(table, hear)
        rows = {table.name: self._compare(table, hear) for table in self._tables}
        with target.transaction():
            for table in self._tables:
                self._continue_numbers(table)
            target.execute("DELETE FROM schema_migrations WHERE name = ?", [COPY_MARK])
            target.execute(f"DROP TABLE {PROGRESS}")
        target.refresh_statistics()
        return Report(rows, self._replaced, self._without_vectors)

    def _note(self, name: str, position: str) -> None:
        target = self._target
        target.execute(f"DELETE FROM {PROGRESS} WHERE name = ?", [name])
        target.execute(f"INSERT INTO {PROGRESS} (name, position) VALUES (?, ?)", [name, position])

    def _copy(self, table: Table, hear: Hear) -> None:
        columns, keys = list(table.columns), ", ".join(table.key)
        sql, after = f"SELECT {', '.join(columns)} FROM {table.name}", []
        noted = f"SELECT position FROM {PROGRESS} WHERE name = ?"
        if found := self._target.ask(noted, [table.name]):
            after = json.loads(found[0][0])
            sql += f" WHERE ({keys}) > ({', '.join('?' * len(after))})"
            self._hear_of_earlier(table, after, hear)
        places = [columns.index(column) for column in table.key]
        try:
            with closing(self._source.stream(f"{sql} ORDER BY {keys}", after)) as rows:
                for batch in in_batches(rows):
                    position = json.dumps([batch[-1][place] for place in places])
                    with self._target.transaction():
                        self._target.insert(table.name, columns, self._fitting(table, batch))
                        self._note(table.name, position)
                    hear(Step(table.name, len(batch), False))
        except ERRORS as error:
            raise StartupError(
                f"The table {table.name} cannot be copied: {str(error).strip()}"
            ) from error

    def _hear_of_earlier(self, table: Table, until: list[Any], hear: Hear) -> None:
        """The rows that an earlier attempt has copied count as copied."""
        marks = ", ".join("?" * len(until))
        sql = f"SELECT count(*) FROM {table.name} WHERE ({', '.join(table.key)}) <= ({marks})"
        hear(Step(table.name, self._source.ask(sql, until)[0][0], False))

    def _fitting(self, table: Table, rows: Iterable[Row]) -> Iterator[Row]:
        fit = self._fit(table)
        for row in rows:
            fitted = fit(row)
            if fitted is not row:
                self._replaced += sum(a != b for a, b in zip(row, fitted, strict=True))
            yield fitted

    def _fit(self, table: Table) -> Callable[[Row], Row]:
        """How a row looks on both sides: truth as a number, and no NUL where PostgreSQL is."""
        has_truth = "boolean" in table.columns.values()
        has_postgres = "postgres" in (self._source.engine, self._target.engine)

        def fit(row: Row) -> Row:
            if has_truth:
                row = tuple(int(value) if isinstance(value, bool) else value for value in row)
            if has_postgres and any(isinstance(value, str) and "\0" in value for value in row):
                row = tuple(_without_nul(value) for value in row)
            return row

        return fit

    def _continue_numbers(self, table: Table) -> None:
        """New rows are numbered as they would have been in the source."""
        other = self._target.tables()[table.name]
        if other.counter is None:
            return
        given = self._source.last_number(table) if table.counter is not None else 0
        [[highest]] = self._target.ask(f"SELECT max({other.counter}) FROM {table.name}")
        self._target.set_last_number(other, max(given, highest or 0))

    # -- the proof -------------------------------------------------------------------------

    def _compare(self, table: Table, hear: Hear) -> int:
        """See that both sides have the same rows; how many."""
        fit = self._fit(table)
        here = checksum(self._source, table, fit, lambda rows: hear(Step(table.name, rows, True)))
        there = checksum(self._target, table, fit)
        if here != there:
            raise StartupError(
                f"The copy of {table.name} differs: {here[0]} rows with checksum {here[1]:032x},"
                f" but {there[0]} with {there[1]:032x} in {self._target.shown}. Was the source in"
                " use meanwhile? Copy again, into an empty database."
            )
        return here[0]


def in_order(source: Maintenance, target: Maintenance) -> list[Table]:
    """The tables to copy, as the source has them; those that others refer to come first.

    Vectors are among them if both sides have a table for them.
    Raises ``StartupError`` naming what only one side has, or what they have differently.
    """
    here, there = (
        {name: table for name, table in place.tables().items() if name not in NOT_COPIED}
        for place in (source, target)
    )
    if VECTORS not in here.keys() & there.keys():
        here.pop(VECTORS, None)
        there.pop(VECTORS, None)
    sides = f"{source.shown} and {target.shown}"
    if odd := sorted(here.keys() ^ there.keys()):
        raise StartupError(f"{sides} do not have the same tables: only one has {', '.join(odd)}.")
    for name, table in here.items():
        here[name] = _common(table, there[name])
        _require_alike(here[name], _common(there[name], table), sides)
    graph = {
        name: (table.parents | there[name].parents) - {name} for name, table in sorted(here.items())
    }
    return [here[name] for name in TopologicalSorter(graph).static_order()]


def _common(table: Table, other: Table) -> Table:
    """``table`` without the columns that ``other`` may lack, and does."""
    columns = {
        column: kind
        for column, kind in table.columns.items()
        if column in other.columns or f"{table.name}.{column}" not in ONE_SIDED
    }
    return table._replace(columns=columns)


def _require_alike(table: Table, other: Table, sides: str) -> None:
    if odd := sorted(table.columns.keys() ^ other.columns.keys()):
        raise StartupError(
            f"{sides} do not have the same columns in {table.name}: only one has {', '.join(odd)}."
        )
    for column, kind in table.columns.items():
        kinds = {kind, other.columns[column]}
        if not (len(kinds) == 1 or kinds in ALIKE) or kinds - COPIED_KINDS:
            raise StartupError(
                f"{table.name}.{column} cannot be copied: it is {' here, '.join(sorted(kinds))}."
            )
    if not table.key or set(table.key) != set(other.key):
        raise StartupError(f"{sides} do not have the same primary key of {table.name}.")


COPIED_KINDS = {"integer", "boolean", "real", "text", "bytes", "vector"}
ALIKE = ({"integer", "boolean"}, {"bytes", "vector"})
"""Kinds whose values look the same in rows."""


def in_batches(rows: Iterable[Row]) -> Iterator[list[Row]]:
    """Rows in lists that stay below ``BATCH_ROWS`` and, but for the last of each, the bytes."""
    batch, size = list[Row](), 0
    for row in rows:
        batch.append(row)
        size += sum(len(value) for value in row if isinstance(value, str | bytes))
        if len(batch) >= BATCH_ROWS or size >= BATCH_BYTES:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def checksum(
    place: Maintenance,
    table: Table,
    fit: Callable[[Row], Row] = lambda row: row,
    hear: Callable[[int], None] = lambda rows: None,
) -> tuple[int, int]:
    """How many rows a table has, and the sum of their hashes, in which order makes no odds."""
    number, total = 0, 0
    with closing(place.stream(f"SELECT {', '.join(table.columns)} FROM {table.name}")) as rows:
        for row in rows:
            digest = blake2b(msgspec.msgpack.encode(fit(row)), digest_size=16).digest()
            total += int.from_bytes(digest, "big")
            number += 1
            if number % BATCH_ROWS == 0:
                hear(BATCH_ROWS)
    hear(number % BATCH_ROWS)
    return number, total % 2**128


def count(place: Maintenance, table: str) -> int:
    return place.ask(f"SELECT count(*) FROM {table}")[0][0]


def _refuse_live_servers(place: Maintenance) -> None:
    """Raises ``StartupError`` if a server's lease shows that it is at work."""
    now = now_us()
    live = place.ask("SELECT owner, lease_until FROM workers WHERE lease_until > ?", [now])
    if place.engine == "postgres" and live:
        names = ", ".join(owner for owner, _ in live)
        seconds = max(until for _, until in live) - now
        raise StartupError(
            f"{place.shown} is in use by {names}. Stop these servers; if they were killed, their"
            f" leases end in {seconds / 1e6:.0f} s."
        )


def _without_nul(value: Any) -> Any:
    return value.replace("\0", "\ufffd") if isinstance(value, str) else value
