"""A database is copied into another one: all of it, exactly, and going on where it stopped."""

from __future__ import annotations

import random
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from uuid import uuid4

import psycopg
import pytest

from postgres_server import PREFIX, drop_databases, make_database
from treadle.clock import now_us
from treadle.database import copying, maintenance
from treadle.database.copying import NOT_COPIED, Copy, Report, Step
from treadle.database.maintenance import VECTORS, Maintenance, Table
from treadle.database.migrations import COPY_MARK
from treadle.errors import StartupError
from treadle.settings import Settings

LARGE = 2**62
LARGE_COLUMNS = {"id", "until_id", "last_seq"}
TEXTS = (
    "",
    "plain",
    "ümläut 漢字 🧵",
    'quotes " and \\ back',
    "tab\tline\nend\\N",
    "\\x00ff",
    "NULL",
)


@pytest.fixture(scope="module")
def postgres() -> Iterator[str]:
    """The URI of a database of this module's own."""
    name = f"{PREFIX}copy_{uuid4().hex[:8]}"
    yield make_database(name)
    drop_databases(name)


@pytest.fixture
def empty(tmp_path: Path, postgres: str) -> Callable[[str], str]:
    """``empty("sqlite")``: the URI of a database, or schema, that has nothing in it."""

    def empty(engine: str) -> str:
        name = f"copy_{uuid4().hex[:12]}"
        if engine == "sqlite":
            return f"sqlite:///{tmp_path / name}.db"
        with psycopg.connect(postgres) as connection:
            connection.execute(f"CREATE SCHEMA {name}".encode())
        separator = "&" if "?" in postgres else "?"
        return f"{postgres}{separator}options=-csearch_path%3D{name}"

    return empty


@pytest.fixture
def upgraded(empty: Callable[[str], str]) -> Callable[[str], str]:
    """``upgraded("sqlite")``: the same, with Treadle's tables."""

    def upgraded(engine: str) -> str:
        uri = empty(engine)
        maintenance.upgrade(Settings(database_uri=uri), Path())
        return uri

    return upgraded


def opened(uri: str) -> closing[Maintenance]:
    return closing(maintenance.open_maintenance(uri, Path(), writes=True))


def copy(source: str, target: str, hear: Callable[[Step], None] = lambda step: None) -> Report:
    work = Copy(source, target)
    with closing(work):
        work.prepare()
        return work.run(hear)


def fill(uri: str, rows: int, seed: int = 1) -> None:
    """Put ``rows`` rows with odd values into every table."""
    values = random.Random(seed)
    with opened(uri) as place, place.transaction():
        parents: list[str] = []
        for table in copying.in_order(place, place):
            if table.name == VECTORS:
                continue  # test_copying_vectors.py
            made = [_row(table, number, values, parents) for number in range(rows)]
            if table.name == "assistants":
                parents = [str(row[list(table.columns).index("assistant_id")]) for row in made]
            place.insert(table.name, list(table.columns), made)
            if table.counter is not None:
                place.set_last_number(table, rows * 3)


def _row(table: Table, number: int, values: random.Random, parents: list[str]) -> list[object]:
    row: list[object] = []
    for column, kind in table.columns.items():
        if column == table.counter:
            row.append(number * 3 + 1)
        elif column == "assistant_id" and "assistants" in table.parents:
            row.append(parents[number])
        elif kind == "text" and (column in table.key or column.endswith("_id")):
            row.append(f"{table.name[0]}{number} {values.choice(TEXTS)}")
        elif kind == "integer" and (column in LARGE_COLUMNS or column.endswith("_at")):
            row.append(LARGE + number)
        elif kind == "text":
            text = values.choice(TEXTS).replace("\\", "\\\\").replace('"', '\\"')
            text = text.replace("\t", "\\t").replace("\n", "\\n")
            row.append(f'{{"b": 1.50, "a":  "{text}"}}')
        elif kind == "bytes":
            row.append(values.randbytes(values.randrange(300)))
        elif kind == "real":
            row.append(values.choice([0.1, 1e300, 5.0, -0.25]))
        elif column == "seq":
            row.append(number + 1)
        else:
            row.append(number if column in table.key else number % 2)
    return row


def content(uri: str) -> dict[str, tuple[int, int]]:
    """Number of rows and checksum by table, with what counts on from them."""
    with opened(uri) as place:
        found: dict[str, tuple[int, int]] = {}
        for table in copying.in_order(place, place):
            if table.name == VECTORS:
                continue
            columns = {
                column: kind
                for column, kind in table.columns.items()
                if f"{table.name}.{column}" not in copying.ONE_SIDED
            }
            found[table.name] = copying.checksum(place, table._replace(columns=columns))
        for table in place.tables().values():
            if table.counter is not None:
                found[f"{table.name}.{table.counter}"] = (place.last_number(table), 0)
        return found


PAIRS = [("sqlite", "postgres"), ("postgres", "sqlite"), ("sqlite", "sqlite"), ("postgres",) * 2]


@pytest.mark.parametrize(("here", "there"), PAIRS)
def test_all_tables_are_equal_on_the_copy_and_on_its_copy(upgraded, empty, here, there):
    source, target, back = upgraded(here), empty(there), empty(here)
    fill(source, 40)
    report = copy(source, target)
    assert set(report.rows.values()) - {0} == {40}
    assert report.rows.get(VECTORS, 0) == 0
    copy(target, back)
    assert content(source) == content(target) == content(back)


def test_both_engines_have_the_same_tables_but_for_those_that_stay_behind(upgraded):
    with opened(upgraded("sqlite")) as here, opened(upgraded("postgres")) as there:
        names = {table.name for table in copying.in_order(here, there)}
        assert names == here.tables().keys() - NOT_COPIED - {VECTORS}
        assert names == there.tables().keys() - NOT_COPIED
        assert {"threads", "runs", "checkpoints", "store_items", "webhook_outbox"} <= names


def test_labels_of_threads_are_made_by_the_copy(upgraded, empty):
    source, target, back = upgraded("sqlite"), empty("postgres"), empty("sqlite")
    fill(source, 20)
    copy(source, target)
    copy(target, back)

    def labels(uri: str) -> list[tuple[object, ...]]:
        with opened(uri) as place:
            return place.ask("SELECT label, thread_seq FROM thread_labels ORDER BY 1, 2")

    assert labels(source) == labels(back) != []


@pytest.mark.parametrize(("here", "there"), PAIRS)
def test_numbers_go_on_behind_the_last_that_was_given(upgraded, empty, here, there):
    source, target = upgraded(here), empty(there)
    fill(source, 10)
    with opened(source) as place:  # the last one is gone, but its number must not come again
        place.execute("DELETE FROM threads WHERE seq = 28")
    copy(source, target)
    insert = "INSERT INTO threads (thread_id, created_at, updated_at, state_updated_at)"
    with opened(target) as place:
        place.execute(f"{insert} VALUES ('new', 1, 1, 1)")
        assert place.ask("SELECT seq FROM threads WHERE thread_id = 'new'") == [(31,)]


class CutOff(Exception):
    pass


@pytest.mark.parametrize(("here", "there"), PAIRS)
def test_a_copy_that_was_cut_off_goes_on_where_it_stopped(
    upgraded, empty, monkeypatch, here, there
):
    monkeypatch.setattr(copying, "BATCH_ROWS", 7)
    source, target = upgraded(here), empty(there)
    fill(source, 30)
    attempts = []
    while True:
        heard: list[Step] = []
        attempts.append(heard)

        def hear(step: Step, heard: list[Step] = heard) -> None:
            heard.append(step)
            if sum(not step.is_check for step in heard) > 9 * len(attempts):
                raise CutOff

        try:
            report = copy(source, target, hear)
            break
        except CutOff:
            with pytest.raises(StartupError, match="has not finished"):
                maintenance.upgrade(Settings(database_uri=target), Path())
    assert len(attempts) > 2
    assert set(report.rows.values()) - {0} == {30}
    assert report.rows.get(VECTORS, 0) == 0
    assert content(source) == content(target)
    copied = sum(step.rows for step in attempts[-1] if not step.is_check)
    assert copied == sum(report.rows.values())


def test_another_copy_does_not_go_on_with_it(upgraded, empty):
    source, other, target = upgraded("sqlite"), upgraded("sqlite"), empty("postgres")
    fill(source, 3)

    def stop(step: Step) -> None:
        raise CutOff

    with pytest.raises(CutOff):
        copy(source, target, stop)
    with pytest.raises(StartupError, match="is half filled by a copy of"):
        copy(other, target)


def test_a_row_that_changed_after_it_was_copied_is_noticed(upgraded, empty):
    source, target = upgraded("sqlite"), empty("postgres")
    fill(source, 10)

    def change(step: Step) -> None:
        with opened(source) as place:
            place.execute("UPDATE threads SET status = 'odd' WHERE seq = 1")

    with pytest.raises(StartupError, match="copy of threads differs: 10 rows"):
        copy(source, target, lambda step: change(step) if step.table == "threads" else None)
    with pytest.raises(StartupError, match="has not finished"):
        maintenance.upgrade(Settings(database_uri=target), Path())


@pytest.mark.parametrize("engine", ["sqlite", "postgres"])
def test_a_target_with_data_is_refused(upgraded, engine):
    source, target = upgraded("sqlite"), upgraded(engine)
    fill(target, 2)
    with pytest.raises(StartupError, match=r"has data already \(.*threads: 2"):
        copy(source, target)


def test_a_source_that_a_server_has_is_refused(upgraded, empty):
    source = upgraded("sqlite")
    in_use = pytest.raises(StartupError, match="is in use by process")
    with opened(source) as place, place.hold_still(), in_use:
        copy(source, empty("sqlite"))
    source = upgraded("postgres")
    with opened(source) as place:
        place.execute("INSERT INTO workers VALUES ('me:1', ?)", [now_us() + 9_000_000])
    with pytest.raises(StartupError, match=r"in use by me:1\. .* end in [89] s"):
        copy(source, empty("sqlite"))


def test_nobody_writes_to_a_source_meanwhile(upgraded, empty, monkeypatch):
    source = upgraded("postgres")
    fill(source, 2)
    with psycopg.connect(source, autocommit=True) as writer:
        writer.execute("SET lock_timeout = '50ms'")

        def write(step: Step) -> None:
            with pytest.raises(psycopg.errors.LockNotAvailable):
                writer.execute("UPDATE threads SET status = 'odd'")

        copy(source, empty("sqlite"), write)
    monkeypatch.setattr("treadle.database.postgres_maintenance.LOCK_WAIT", "50ms")
    with psycopg.connect(source) as writer:
        writer.execute("UPDATE threads SET status = 'odd'")
        with pytest.raises(StartupError, match="is being written to"):
            copy(source, empty("sqlite"))


def test_two_copies_do_not_fill_one_database(upgraded, empty):
    source, target = upgraded("sqlite"), upgraded("postgres")
    refused = pytest.raises(StartupError, match="is being filled by another")
    with opened(target) as place, place.hold_alone(), refused:
        copy(source, target)


def test_a_database_is_not_copied_to_itself(upgraded):
    source = upgraded("postgres")
    with pytest.raises(StartupError, match="to itself"):
        copy(source, source)


def test_a_column_that_one_side_lacks_is_named(upgraded):
    source, target = upgraded("sqlite"), upgraded("postgres")
    with opened(source) as place:
        place.execute("ALTER TABLE runs ADD COLUMN mood TEXT")
    with pytest.raises(StartupError, match=r"same columns in runs: only one has mood"):
        copy(source, target)


def test_a_column_that_one_engine_alone_needs_stays_behind(upgraded, empty, monkeypatch):
    monkeypatch.setattr(copying, "ONE_SIDED", {*copying.ONE_SIDED, "runs.mood"})
    source, target = upgraded("sqlite"), empty("postgres")
    with opened(source) as place:
        place.execute("ALTER TABLE runs ADD COLUMN mood TEXT DEFAULT 'good'")
    fill(source, 3)
    assert copy(source, target).rows["runs"] == 3


def test_a_table_that_one_side_lacks_is_named(upgraded):
    source, target = upgraded("sqlite"), upgraded("postgres")
    with opened(target) as place:
        place.execute("DROP TABLE store_items")
    with pytest.raises(StartupError, match=r"same tables: only one has store_items"):
        copy(source, target)


def test_a_column_of_another_kind_is_named(upgraded):
    source, target = upgraded("sqlite"), upgraded("postgres")
    with opened(target) as place:
        place.execute("ALTER TABLE store_items ALTER COLUMN value TYPE jsonb USING value::jsonb")
    with pytest.raises(StartupError, match=r"store_items\.value cannot be copied: .*jsonb"):
        copy(source, target)


def test_both_sides_have_to_be_up_to_date(upgraded):
    source, target = upgraded("sqlite"), upgraded("sqlite")
    newest = maintenance.newest("sqlite")
    for uri in (source, target):
        with opened(uri) as place:
            place.execute("DELETE FROM schema_migrations WHERE name = ?", [newest])
        with pytest.raises(StartupError, match=f"has not got {newest}: .* db upgrade"):
            copy(source, target)
        with opened(uri) as place:
            place.execute("INSERT INTO schema_migrations VALUES (?)", [newest])


@pytest.mark.parametrize("engine", ["sqlite", "postgres"])
def test_the_schema_of_a_newer_treadle_is_refused(upgraded, engine):
    source, target = upgraded("sqlite"), upgraded(engine)
    with opened(target) as place:
        place.execute("INSERT INTO schema_migrations VALUES ('9999_from_tomorrow')")
    for here, there in ((source, target), (target, source)):
        with pytest.raises(StartupError, match="newer Treadle"):
            copy(here, there)


def test_no_target_is_made_for_a_source_that_is_none(tmp_path):
    with pytest.raises(StartupError, match="There is no database"):
        copy(f"sqlite:///{tmp_path / 'none.db'}", f"sqlite:///{tmp_path / 'target.db'}")
    assert not list(tmp_path.iterdir())


def test_nul_becomes_what_postgres_can_hold_and_is_counted(upgraded, empty):
    source, target = upgraded("sqlite"), empty("postgres")
    insert = "INSERT INTO store_items VALUES (?, 'k', ?, 1, 1, NULL, NULL)"
    with opened(source) as place:
        place.execute(insert, ["a\0b", '"c\0d"'])
        place.execute(insert, ["e", '"f"'])
    assert copy(source, target).replaced == 2
    with opened(target) as place:
        rows = place.ask("SELECT namespace, value FROM store_items ORDER BY namespace")
    assert rows == [("a\ufffdb", '"c\ufffdd"'), ("e", '"f"')]


def test_a_value_that_the_other_engine_cannot_hold_is_told_with_its_table(upgraded, empty):
    source, target = upgraded("sqlite"), empty("postgres")
    with opened(source) as place:
        place.execute("INSERT INTO store_items VALUES ('n', 'k', '1', 'noon', 1, NULL, NULL)")
    with pytest.raises(StartupError, match=r"The table store_items cannot be copied: .*noon"):
        copy(source, target)


def test_batches_are_bounded_in_rows_and_bytes():
    rows = [("x" * size,) for size in (1, 1, 5 * 2**20, 1, 3 * 2**20, 2**20)]
    sizes = [[len(row[0]) for row in batch] for batch in copying.in_batches(rows)]
    assert sizes == [[1, 1, 5 * 2**20], [1, 3 * 2**20, 2**20]]
    assert [len(batch) for batch in copying.in_batches([(1,)] * 12_000)] == [5000, 5000, 2000]


def test_the_mark_of_a_copy_is_no_migration(upgraded):
    uri = upgraded("sqlite")
    with closing(sqlite3.connect(uri.removeprefix("sqlite:///"))) as connection:
        names = {row[0] for row in connection.execute("SELECT name FROM schema_migrations")}
    assert COPY_MARK not in names
