"""One writer with group commit; whole bodies, in order, durable when acknowledged."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from database_notes import Notes

from treadle.database import Transaction
from treadle.database.sqlite import LINGER_SECONDS, SQLiteDatabase
from treadle.errors import StartupError


async def until(condition: Callable[[], bool]) -> None:
    """Let the loop turn until ``condition()``."""
    async with asyncio.timeout(5):
        while not condition():  # noqa: ASYNC110  it may come true on another thread
            await asyncio.sleep(0)


# -- writing -----------------------------------------------------------------------------------


async def test_writes_take_effect_in_the_order_in_which_they_were_handed_in(notes):
    texts = [f"{number:03}" for number in range(200)]
    answers = await asyncio.gather(*(notes.database.write(notes.adding(text)) for text in texts))
    assert answers == texts
    assert await notes.texts() == texts


async def test_writes_of_one_turn_are_one_commit(notes):
    commits: list[str] = []
    notes.database._writer.set_trace_callback(
        lambda sql: commits.append(sql) if sql in ("COMMIT", "BEGIN IMMEDIATE") else None
    )
    await asyncio.gather(*(notes.database.write(notes.adding(str(n))) for n in range(50)))
    assert commits == ["BEGIN IMMEDIATE", "COMMIT"]


async def test_what_a_write_acknowledges_another_connection_sees(notes, path):
    with sqlite3.connect(path) as other:
        await notes.database.write(notes.adding("told"))
        assert other.execute("SELECT text FROM notes").fetchall() == [("told",)]
    other.close()


async def test_a_body_sees_what_it_changed(notes):
    async def body(transaction: Transaction) -> Any:
        await transaction.execute_many(
            "INSERT INTO notes (text) VALUES (:text)", [{"text": "a"}, {"text": "b"}]
        )
        rows = await transaction.fetch_all("SELECT text FROM notes ORDER BY seq")
        changed = await transaction.execute("UPDATE notes SET text = text || '!'")
        returned = await transaction.fetch_all("DELETE FROM notes RETURNING text")
        return [row["text"] for row in rows], changed, sorted(row["text"] for row in returned)

    assert await notes.database.write(body) == (["a", "b"], 2, ["a!", "b!"])
    assert await notes.texts() == []


async def test_fetch_one_gives_the_first_row_or_none(notes):
    async def body(transaction: Transaction) -> Any:
        nothing = await transaction.fetch_one("SELECT text FROM notes")
        sql = "INSERT INTO notes (text) VALUES ('a') RETURNING seq, text"
        row = await transaction.fetch_one(sql)
        return nothing, (row["seq"], row["text"])

    assert await notes.database.write(body) == (None, (1, "a"))


async def test_a_body_that_raises_changes_nothing_and_harms_no_other(notes):
    write, adding = notes.database.write, notes.adding
    answers = await asyncio.gather(
        write(adding("before")),
        write(adding("lost", KeyError("mine"))),
        write(adding("after")),
        write(adding("before")),  # at odds with the UNIQUE column
        write(adding("last")),
        return_exceptions=True,
    )
    assert answers[0::2] == ["before", "after", "last"]
    assert isinstance(answers[1], KeyError)
    assert isinstance(answers[3], sqlite3.IntegrityError)
    assert await notes.texts() == ["before", "after", "last"]


async def test_a_body_that_raises_alone_changes_nothing(notes):
    with pytest.raises(KeyError):
        await notes.database.write(notes.adding("lost", KeyError("mine")))
    assert await notes.database.write(notes.adding("next")) == "next"
    assert await notes.texts() == ["next"]


async def test_a_body_may_not_wait_for_anything_else(notes):
    async def body(transaction: Transaction) -> None:
        await transaction.execute("INSERT INTO notes (text) VALUES ('half')")
        await asyncio.sleep(0)

    one, other = await asyncio.gather(
        notes.database.write(body), notes.database.write(notes.adding("b")), return_exceptions=True
    )
    assert isinstance(one, RuntimeError)
    assert other == "b"
    assert await notes.texts() == ["b"]


async def test_a_commit_that_fails_fails_everyone_in_it_and_no_one_after(notes):
    """A deferred constraint is checked at the commit: all who share it are told."""

    async def tables(transaction: Transaction) -> None:
        await transaction.execute("PRAGMA defer_foreign_keys = 1")
        await transaction.execute("CREATE TABLE parents (id INTEGER PRIMARY KEY)")
        await transaction.execute(
            "CREATE TABLE children (id REFERENCES parents (id) DEFERRABLE INITIALLY DEFERRED)"
        )

    async def orphan(transaction: Transaction) -> None:
        await transaction.execute("INSERT INTO children VALUES (1)")

    await notes.database.write(tables)
    notes.database._writer.execute("PRAGMA foreign_keys = 1")
    answers = await asyncio.gather(
        notes.database.write(notes.adding("a")),
        notes.database.write(orphan),
        return_exceptions=True,
    )
    assert [type(answer) for answer in answers] == [sqlite3.IntegrityError] * 2
    assert await notes.texts() == []
    assert await notes.database.write(notes.adding("b")) == "b"


async def test_a_caller_who_gives_up_does_not_take_back_what_was_handed_in(notes):
    task = asyncio.create_task(notes.database.write(notes.adding("a")))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await notes.database.write(notes.adding("b"))
    assert await notes.texts() == ["a", "b"]


async def test_with_full_synchronous_the_loop_turns_while_a_commit_is_under_way(path):
    database = SQLiteDatabase(path, "full")
    await database.open()
    begun, go_on = threading.Event(), threading.Event()

    async def slow(transaction: Transaction) -> str:
        begun.set()
        assert go_on.wait(5)
        return threading.current_thread().name

    writing = asyncio.create_task(database.write(slow))
    await until(begun.is_set)
    later = asyncio.create_task(database.write(slow))
    await asyncio.sleep(0)
    assert not writing.done()
    go_on.set()
    assert (await writing).startswith("treadle-writer")
    await later
    await database.close()


# -- writing soon ------------------------------------------------------------------------------


def errors_of() -> tuple[list[Exception], Any]:
    errors: list[Exception] = []
    return errors, errors.append


async def test_write_soon_is_committed_by_itself(notes):
    notes.database.write_soon(notes.adding("soon"), pytest.fail)
    assert await notes.texts() == []
    async with asyncio.timeout(200 * LINGER_SECONDS):
        while not await notes.texts():  # noqa: ASYNC110
            await asyncio.sleep(0)
    assert await notes.texts() == ["soon"]


async def test_write_soon_keeps_its_place_and_goes_with_the_next_write(notes):
    errors, report = errors_of()
    notes.database.write_soon(notes.adding("1"), report)
    first = asyncio.create_task(notes.database.write(notes.adding("2")))
    await asyncio.sleep(0)
    notes.database.write_soon(notes.adding("3"), report)
    await notes.database.write(notes.adding("4"))
    await first
    assert await notes.texts() == ["1", "2", "3", "4"]
    assert errors == []


async def test_flush_returns_once_all_is_there(notes):
    errors, report = errors_of()
    await notes.database.flush()
    notes.database.write_soon(notes.adding("a"), report)
    notes.database.write_soon(notes.adding("b"), report)
    await notes.database.flush()
    assert await notes.texts() == ["a", "b"]
    assert errors == []


async def test_flush_waits_for_a_commit_that_is_under_way(notes):
    writing = asyncio.create_task(notes.database.write(notes.adding("a")))
    await asyncio.sleep(0)
    await notes.database.flush()
    assert await notes.texts() == ["a"]
    await writing


async def test_write_soon_tells_of_a_body_that_raised(notes):
    errors, report = errors_of()
    notes.database.write_soon(notes.adding("a"), report)
    notes.database.write_soon(notes.adding("lost", KeyError("mine")), report)
    notes.database.write_soon(notes.adding("b"), report)
    await notes.database.flush()
    assert [str(error) for error in errors] == ["'mine'"]
    assert await notes.texts() == ["a", "b"]


async def test_closing_commits_what_waits(path, synchronous):
    database = SQLiteDatabase(path, synchronous)
    await database.open()
    notes = Notes(database)
    await notes.make()
    database.write_soon(notes.adding("waiting"), pytest.fail)
    await database.close()
    with sqlite3.connect(path) as other:
        assert other.execute("SELECT text FROM notes").fetchall() == [("waiting",)]
    other.close()


# -- reading -----------------------------------------------------------------------------------


async def test_reads_see_what_was_committed_and_change_nothing(notes):
    await notes.database.write(notes.adding("a"))
    assert (await notes.database.read_one("SELECT text FROM notes"))["text"] == "a"
    assert await notes.database.read_one("SELECT text FROM notes WHERE text = 'b'") is None
    with pytest.raises(sqlite3.OperationalError):
        await notes.database.read_one("INSERT INTO notes (text) VALUES ('b') RETURNING text")
    assert await notes.texts() == ["a"]


async def test_a_scan_does_not_hold_up_the_loop(notes):
    """Its query runs on a thread: the loop turns as often as it likes meanwhile."""
    await notes.database.write(notes.adding("a"))
    slow = """
        WITH RECURSIVE numbers (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM numbers LIMIT 400000)
        SELECT count(*) AS many, (SELECT text FROM notes) AS text FROM numbers
    """
    scan = asyncio.create_task(notes.database.scan(slow))
    turns = 0
    while not scan.done():
        await asyncio.sleep(0)
        turns += 1
        if turns == 10:
            await notes.database.write(notes.adding("b"))
    assert turns > 10
    assert tuple((await scan)[0]) == (400000, "a")
    assert await notes.texts() == ["a", "b"]


async def test_scans_see_what_was_committed(notes):
    await notes.database.write(notes.adding("a"))
    rows = await notes.database.scan("SELECT text FROM notes WHERE text = :text", {"text": "a"})
    assert [row["text"] for row in rows] == ["a"]


async def test_the_log_moves_into_the_file_once_it_has_grown(path, monkeypatch):
    monkeypatch.setattr("treadle.database.sqlite.WAL_CHECK_SECONDS", 0.001)
    monkeypatch.setattr("treadle.database.sqlite.WAL_LIMIT_BYTES", 0)
    database = SQLiteDatabase(path)
    await database.open()
    notes = Notes(database)
    await notes.make()
    await database.write(notes.adding("x" * 100_000))
    await until(lambda: path.stat().st_size >= 100_000)
    await database.close()


@pytest.fixture
def small_log(monkeypatch: pytest.MonkeyPatch) -> int:
    """The log is looked at all the time, and may have this many bytes."""
    monkeypatch.setattr("treadle.database.sqlite.WAL_CHECK_SECONDS", 0.001)
    monkeypatch.setattr("treadle.database.sqlite.WAL_LIMIT_BYTES", 2**18)
    return 2**18


async def test_the_log_begins_anew_though_writes_never_pause(path, synchronous, small_log):
    database = SQLiteDatabase(path, synchronous)
    await database.open()
    notes = Notes(database)
    await notes.make()
    log = path.with_name(f"{path.name}-wal")

    def beginning() -> bytes:
        """The number of the log in its header: SQLite counts how often it has begun anew."""
        with log.open("rb") as file:
            return file.read(16)[12:]

    number, first = 0, beginning()
    writing: set[asyncio.Task[Any]] = set()
    async with asyncio.timeout(20):
        while len(writing) < 4 or beginning() == first:
            writing.add(asyncio.create_task(database.write(notes.adding(f"{number:4000}"))))
            number += 1
            if len(writing) == 8:
                _, writing = await asyncio.wait(writing, return_when="FIRST_COMPLETED")
    await asyncio.gather(*writing)
    assert len(await notes.texts()) == number
    await database.close()


async def test_who_reads_does_not_wait_for_the_log(path, small_log, monkeypatch):
    """While the rest of the log is moved, writes wait and nothing else does."""
    database, moving, may_end = SQLiteDatabase(path), threading.Event(), threading.Event()
    await database.open()
    notes = Notes(database)
    await notes.make()
    move = database._move_log

    def slowly() -> None:
        if database._committing is not None:
            moving.set()
            assert may_end.wait(10)
        move()

    monkeypatch.setattr(database, "_move_log", slowly)
    await database.write(notes.adding("x" * 2 * small_log))
    await until(moving.is_set)
    write = asyncio.ensure_future(database.write(notes.adding("late")))
    assert len(await notes.texts()) == 1
    assert not write.done()
    may_end.set()
    await write
    await database.close()


# -- opening -----------------------------------------------------------------------------------


async def test_opening_makes_the_folder_and_the_schema(database, path):
    assert path.is_file()
    row = await database.read_one("SELECT count(*) AS n FROM threads")
    assert row["n"] == 0


async def test_opening_again_changes_nothing(path, synchronous):
    schemas: list[Any] = []
    for _ in range(3):
        database = SQLiteDatabase(path, synchronous)
        await database.open()
        rows = await database.read_all(
            "SELECT name, sql FROM sqlite_master UNION ALL"
            " SELECT name, 'done' FROM schema_migrations ORDER BY name"
        )
        schemas.append([tuple(row) for row in rows])
        await database.close()
    assert schemas[0] == schemas[1] == schemas[2]


async def test_a_database_of_a_newer_treadle_is_refused_by_name(path):
    database = SQLiteDatabase(path)
    await database.open()
    await database.close()
    with sqlite3.connect(path) as other:
        other.execute("INSERT INTO schema_migrations VALUES ('9999_from_tomorrow')")
    other.close()
    with pytest.raises(StartupError, match=r"newer Treadle \(it has 9999_from_tomorrow\)"):
        await SQLiteDatabase(path).open()


async def test_what_is_no_database_is_refused(path):
    path.parent.mkdir()
    path.write_text("this is a letter, and not a database at all " * 100)
    with pytest.raises(StartupError, match=r"treadle\.db cannot be used: file is not a database"):
        await SQLiteDatabase(path).open()


async def test_a_folder_that_cannot_be_made_is_refused(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(StartupError, match="cannot be used"):
        await SQLiteDatabase(tmp_path / "file" / "treadle.db").open()


async def test_a_migration_that_fails_leaves_no_half(path, monkeypatch):
    broken = [
        ("0001_good", "CREATE TABLE good (x)"),
        ("0002_bad", "CREATE TABLE bad (x); NONSENSE"),
    ]
    monkeypatch.setattr("treadle.database.migrations.migrations", lambda engine: broken)
    with pytest.raises(StartupError, match='near "NONSENSE"'):
        await SQLiteDatabase(path).open()
    with sqlite3.connect(path) as other:
        names = other.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()
        done = other.execute("SELECT name FROM schema_migrations").fetchall()
    other.close()
    assert ("bad",) not in names
    assert done == [("0001_good",)]


HOLDER = """
import asyncio, sys
from pathlib import Path
from treadle.database.sqlite import SQLiteDatabase

async def main():
    database = SQLiteDatabase(Path(sys.argv[1]))
    try:
        await database.open()
    except Exception as error:
        print(type(error).__name__, error)
    else:
        print("open")
        await database.close()

asyncio.run(main())
"""


def open_elsewhere(path: Path) -> str:
    """Open the database in another process; what it says."""
    done = subprocess.run(
        [sys.executable, "-c", HOLDER, str(path)], capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


async def test_a_second_process_is_told_who_has_it(path):
    database = SQLiteDatabase(path)
    await database.open()
    refusal = open_elsewhere(path)
    process = os.getpid()
    assert f"The database {path} is in use by process {process}" in refusal
    await database.close()


async def test_after_closing_anyone_may_open(path):
    for _ in range(2):
        database = SQLiteDatabase(path)
        await database.open()
        with pytest.raises(StartupError, match="in use by process"):
            await SQLiteDatabase(path).open()
        await database.close()
