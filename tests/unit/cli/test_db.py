"""``treadle db``; what copying does is in tests/unit/database/test_copying.py."""

from __future__ import annotations

import os
import re
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from uuid import uuid4

import psycopg
import pytest

from postgres_server import PREFIX, drop_databases, make_database
from treadle.clock import now_us
from treadle.database.migrations import migrations
from treadle.database.sqlite import take_lock

NEWEST = migrations("sqlite")[-1][0]


@pytest.fixture
def postgres() -> Iterator[str]:
    name = f"{PREFIX}db_{uuid4().hex[:8]}"
    yield make_database(name)
    drop_databases(name)


@pytest.fixture(params=["sqlite", "postgres"])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """What ``--db`` is given; nothing is there yet."""
    if request.param == "sqlite":
        return str(tmp_path / "deep" / "my.db")
    return request.getfixturevalue("postgres")


def execute(database: str, *statements: str) -> None:
    if database.startswith("postgresql"):
        with psycopg.connect(database) as connection:
            for statement in statements:
                connection.execute(statement.encode())
    else:
        with closing(sqlite3.connect(database)) as connection:
            for statement in statements:
                connection.execute(statement)
            connection.commit()


RUN = """
INSERT INTO runs (run_id, thread_id, assistant_id, graph_id, updated_at, metadata, kwargs,
                  multitask_strategy, status, created_at)
VALUES ('{0}', 't', 'a', 'g', 0, '{{}}', '{{}}', 'enqueue', '{1}', {2})
"""


def test_upgrade_makes_the_tables_once(treadle, tmp_path, database):
    options = ("--db", database, "--config", tmp_path / "none.json")
    result = treadle("db", "upgrade", *options)
    assert result.exit_code == 0, result.output
    assert ": done" in result.output
    result = treadle("db", "upgrade", *options)
    assert result.output.count("\n") == 1
    assert "is up to date" in result.output


def test_status(treadle, tmp_path, database):
    options = ("--db", database, "--config", tmp_path / "none.json")
    treadle("db", "upgrade", *options)
    now = now_us()
    execute(
        database,
        RUN.format("a", "running", now),
        RUN.format("b", "pending", now - 90_000_000),
        RUN.format("c", "pending", now - 1),
        RUN.format("d", "pending", now + 900_000_000),
        RUN.format("e", "success", now),
        f"INSERT INTO workers VALUES ('me:1', {now + 60_000_000}), ('gone:2', {now - 1})",
    )
    output = treadle("db", "status", *options).output
    assert re.search(r"Engine +(SQLite 3|PostgreSQL 1\d)", output)
    assert re.search(r"Size +[\d.]+ [KM]iB", output)
    assert re.search(r"Schema +up to date, at \d{4}_", output)
    assert re.search(r"2 due \(the oldest for 9\d s\), 1 for later, 1 running", output)
    assert re.search(r"Workers +1 alive: me:1 \([56]\d s\)", output)
    assert re.search(r"\bruns +5\n", output)
    assert re.search(r"\bthreads +0\n", output)


def test_status_names_what_is_pending_and_changes_nothing(treadle, tmp_path):
    database = tmp_path / "my.db"
    treadle("db", "upgrade", "--db", database, "--config", tmp_path / "none.json")
    execute(str(database), f"DELETE FROM schema_migrations WHERE name = '{NEWEST}'")
    for _ in range(2):
        output = treadle(
            "db", "status", "--db", database, "--config", tmp_path / "none.json"
        ).output
        assert f"to be upgraded (treadle db upgrade): {NEWEST}" in output


def test_the_database_is_found_as_serve_finds_it(treadle, project, tmp_path, monkeypatch):
    monkeypatch.setenv("DATABASE_URI", "")  # so that what the config sets goes away at the end
    monkeypatch.delenv("DATABASE_URI")
    config = project(env={"DATABASE_URI": "sqlite:///of-config.db"})
    assert treadle("db", "upgrade", "--config", config).exit_code == 0
    assert (tmp_path / "of-config.db").exists()
    monkeypatch.setenv("DATABASE_URI", "sqlite:///of-environ.db")
    assert treadle("db", "upgrade", "--config", config).exit_code == 0
    assert (tmp_path / "of-environ.db").exists()
    monkeypatch.delenv("DATABASE_URI")
    assert treadle("db", "upgrade", "--config", project()).exit_code == 0
    assert (tmp_path / ".treadle" / "treadle.db").exists()
    assert (tmp_path / ".treadle" / ".gitignore").exists()
    result = treadle("db", "status", "--config", tmp_path / "none.json")
    assert result.exit_code == 1
    assert "There is no config file" in result.output


def test_vacuum_gives_room_back(treadle, tmp_path):
    database, config = str(tmp_path / "my.db"), tmp_path / "none.json"
    treadle("db", "upgrade", "--db", database, "--config", config)
    big = "INSERT INTO store_items VALUES ('n', 'k', hex(zeroblob(2000000)), 1, 1, NULL, NULL)"
    execute(database, big, "DELETE FROM store_items")
    assert Path(database).stat().st_size > 4_000_000
    result = treadle("db", "vacuum", "--db", database, "--config", config)
    assert re.search(
        r"3\.\d MiB before, \d+\.\d KiB now|4\.\d MiB before, \d+\.\d KiB now", result.output
    )
    assert Path(database).stat().st_size < 1_000_000


def test_vacuum_goes_beside_servers_on_postgres(treadle, tmp_path, postgres):
    options = ("--db", postgres, "--config", tmp_path / "none.json")
    treadle("db", "upgrade", *options)
    with psycopg.connect(postgres) as server:
        server.execute("SELECT * FROM threads")
        result = treadle("db", "vacuum", *options)
    assert result.exit_code == 0, result.output
    with psycopg.connect(postgres) as connection:
        query = "SELECT count(*) FROM pg_stat_user_tables WHERE last_vacuum IS NULL"
        assert connection.execute(query).fetchone() == (1,)  # schema_migrations


@pytest.mark.parametrize("command", ["vacuum", "upgrade"])
def test_a_file_that_a_server_has_is_refused(treadle, tmp_path, command, monkeypatch):
    database, config = tmp_path / "my.db", tmp_path / "none.json"
    treadle("db", "upgrade", "--db", database, "--config", config)
    lock = take_lock(database)
    try:
        result = treadle("db", command, "--db", database, "--config", config)
        assert result.exit_code == 1
        assert f"is in use by process {os.getpid()}" in result.output
        assert treadle("db", "status", "--db", database, "--config", config).exit_code == 0
    finally:
        os.close(lock)


@pytest.mark.parametrize("command", ["status", "vacuum"])
def test_what_is_no_database_of_ours(treadle, tmp_path, postgres, command):
    config = tmp_path / "none.json"
    write = (tmp_path / "text.db").write_text
    write("This is no database.\n" * 100)
    execute(str(tmp_path / "other.db"), "CREATE TABLE notes (id INTEGER)")
    execute(str(tmp_path / "rails.db"), "CREATE TABLE schema_migrations (version TEXT)")
    for database, message in [
        (tmp_path / "missing.db", "There is no database"),
        (tmp_path / "text.db", "cannot be used: file is not a database"),
        (tmp_path / "other.db", "is not a Treadle database: it has none of its tables"),
        (tmp_path / "rails.db", "table schema_migrations is another program's"),
        (postgres, "is not a Treadle database"),
    ]:
        result = treadle("db", command, "--db", database, "--config", config)
        assert result.exit_code == 1
        assert message in result.output, database
    assert not (tmp_path / "missing.db").exists()


@pytest.mark.parametrize("command", ["upgrade", "status", "vacuum"])
def test_the_tables_of_another_program_are_left_alone(treadle, tmp_path, database, command):
    if "://" not in str(database):
        Path(database).parent.mkdir(exist_ok=True)
    execute(database, "CREATE TABLE runs (id INTEGER)")
    result = treadle("db", command, "--db", database, "--config", tmp_path / "none.json")
    assert result.exit_code == 1
    assert "its table runs is another program's" in result.output


def test_a_newer_schema(treadle, tmp_path, database):
    options = ("--db", database, "--config", tmp_path / "none.json")
    treadle("db", "upgrade", *options)
    execute(database, "INSERT INTO schema_migrations VALUES ('9999_from_tomorrow')")
    for command in ("status", "upgrade"):
        result = treadle("db", command, *options)
        assert result.exit_code == 1
        assert "newer Treadle (it has 9999_from_tomorrow)" in result.output


@pytest.mark.parametrize(
    ("database", "code", "message"),
    [
        ("postgresql://me:hush@127.0.0.1:1/x", 1, "does not answer"),
        ("postgresql://me:hush@127.0.0.1:1,127.0.0.1:2/x", 1, "does not answer"),
        ("postgresql://me:hush@[::1/x", 1, "no URI that PostgreSQL understands"),
        ("mysql://me:hush@localhost/x", 2, "other databases are not supported"),
        ("redis://:hush@localhost/x", 2, "other databases are not supported"),
    ],
)
def test_what_cannot_be_reached_is_told_without_the_password(
    treadle, tmp_path, monkeypatch, database, code, message
):
    monkeypatch.setenv("TREADLE_POSTGRES_WAIT_SECS", "0")
    for command in (["status"], ["vacuum"], ["upgrade"]):
        result = treadle("db", *command, "--db", database, "--config", tmp_path / "none.json")
        assert result.exit_code == code, command
        if command != ["upgrade"]:
            assert message in result.output
        assert "hush" not in result.output
    result = treadle("db", "copy", tmp_path / "none.db", database)
    assert result.exit_code == code
    assert "hush" not in result.output


def test_a_wrong_user_is_told(treadle, tmp_path, postgres):
    host = re.sub(r"//[^/]*/", "//nobody:hush@127.0.0.1:5432/", postgres)
    result = treadle("db", "status", "--db", host, "--config", tmp_path / "none.json")
    assert result.exit_code == 1
    assert "hush" not in result.output


def test_copy_shows_what_it_did(treadle, tmp_path, postgres):
    source, config = str(tmp_path / "my.db"), tmp_path / "none.json"
    treadle("db", "upgrade", "--db", source, "--config", config)
    item = "INSERT INTO store_items VALUES ('n', 'k', '\"a\" || char(0)', 1, 1, NULL, NULL)"
    execute(source, item)
    execute(source, "UPDATE store_items SET value = '\"a' || char(0) || '\"'")
    result = treadle("db", "copy", source, postgres)
    assert result.exit_code == 0, result.output
    assert re.search(r"store_items +1 rows, the same on both sides", result.output)
    assert re.search(r"workers +not copied: ", result.output)
    assert "1 texts held NUL" in result.output
    assert treadle("db", "status", "--db", postgres, "--config", config).exit_code == 0
    again = treadle("db", "copy", source, postgres)
    assert again.exit_code == 1
    assert "has data already (store_items: 1)" in again.output


def test_copy_that_is_stopped_says_how_to_go_on(treadle, tmp_path, monkeypatch):
    from treadle.database.copying import Copy

    source = str(tmp_path / "my.db")
    treadle("db", "upgrade", "--db", source, "--config", tmp_path / "none.json")

    def stop(self: Copy, hear: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Copy, "run", stop)
    result = treadle("db", "copy", source, tmp_path / "copy.db")
    assert result.exit_code == 1
    assert "The same command goes on from here" in result.output
