"""One writer with group commit, pipelined readers; what a lost connection costs."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import psycopg
import pytest
from structlog.testing import capture_logs

from treadle.database import Transaction, postgres_link
from treadle.database import postgres as module
from treadle.database.migrations import migrations
from treadle.database.postgres import PostgresDatabase
from treadle.database.postgres_link import first_connection, shown
from treadle.database.postgres_pipeline import ConnectionLost
from treadle.database.postgres_writer import LINGER_SECONDS, UnclearCommit
from treadle.errors import StartupError

WORKERS = "SELECT owner FROM workers ORDER BY lease_until"
ADD = "INSERT INTO workers (owner, lease_until) VALUES (:owner, :number)"
END_ME = "SELECT pg_terminate_backend(pg_backend_pid())"


@pytest.fixture
async def database(
    postgres_uri: str, empty_postgres: Callable[[], None]
) -> AsyncIterator[PostgresDatabase]:
    database = PostgresDatabase(postgres_uri)
    await database.open()
    yield database
    await database.close()
    empty_postgres()


class Owners:
    """Rows of a table, for looking at how writes get there."""

    def __init__(self, database: PostgresDatabase) -> None:
        self.database = database
        self._count = 0

    def adding(self, owner: str, then: Exception | None = None) -> Callable[..., Any]:
        """A body that adds a row, and then raises."""
        self._count += 1
        params = {"owner": owner, "number": self._count}

        async def body(transaction: Transaction) -> str:
            assert await transaction.execute(ADD, params) == 1
            if then is not None:
                raise then
            return owner

        return body

    async def names(self) -> list[str]:
        return [row["owner"] for row in await self.database.read_all(WORKERS)]


@pytest.fixture
def owners(database: PostgresDatabase) -> Owners:
    return Owners(database)


async def transaction_id(transaction: Transaction) -> int:
    row = await transaction.fetch_one("SELECT pg_current_xact_id()::text AS id")
    assert row is not None
    return int(row["id"])


# -- writing -----------------------------------------------------------------------------------


@pytest.mark.parametrize("threads", [lambda n: None, str, lambda n: str(n % 3)])
async def test_writes_take_effect_in_the_order_in_which_they_were_handed_in(owners, threads):
    names = [f"{number:03}" for number in range(100)]
    write = owners.database.write
    answers = await asyncio.gather(*(write(owners.adding(n), threads(int(n))) for n in names))
    assert answers == names
    assert await owners.names() == names


async def test_writes_of_one_turn_are_one_commit(database):
    ids = await asyncio.gather(*(database.write(transaction_id, str(n % 7)) for n in range(50)))
    assert len(set(ids)) == 1


async def test_bodies_about_one_thread_run_one_after_the_other(database):
    going: dict[str, int] = {}
    together: list[int] = []

    def body_of(thread: str) -> Callable[..., Any]:
        async def body(transaction: Transaction) -> None:
            going[thread] = going.get(thread, 0) + 1
            await transaction.fetch_one("SELECT 1 AS one")
            assert going[thread] == 1
            together.append(sum(going.values()))
            going[thread] -= 1

        return body

    threads = [thread for thread in "abc" for _ in range(5)] + ["d"]
    await asyncio.gather(*(database.write(body_of(t), t) for t in threads))
    assert max(together) == 2
    await asyncio.gather(*(database.write(body_of(t), t) for t in "abcdefgh"))
    assert max(together) == 8


async def test_a_body_sees_what_it_changed(database):
    async def body(transaction: Transaction) -> Any:
        await transaction.execute_many(ADD, [{"owner": o, "number": 1} for o in "ab"])
        await transaction.send(ADD, {"owner": "c", "number": 2})
        rows = await transaction.fetch_all("SELECT owner FROM workers ORDER BY owner")
        changed = await transaction.execute("UPDATE workers SET owner = owner || '!'")
        returned = await transaction.fetch_all("DELETE FROM workers RETURNING owner")
        nothing = await transaction.fetch_one(WORKERS)
        return [r["owner"] for r in rows], changed, sorted(r["owner"] for r in returned), nothing

    assert await database.write(body) == (["a", "b", "c"], 3, ["a!", "b!", "c!"], None)


async def test_a_body_that_raises_changes_nothing_and_harms_no_other(owners):
    write, adding = owners.database.write, owners.adding
    answers = await asyncio.gather(
        write(adding("before"), "1"),
        write(adding("lost", KeyError("mine")), "2"),
        write(adding("after"), "3"),
        write(adding("before")),  # at odds with the primary key
        write(adding("last")),
        return_exceptions=True,
    )
    assert answers[0::2] == ["before", "after", "last"]
    assert isinstance(answers[1], KeyError)
    assert isinstance(answers[3], psycopg.errors.UniqueViolation)
    assert await owners.names() == ["before", "after", "last"]


async def test_who_raises_before_changing_anything_leaves_the_group_whole(database):
    async def refused(transaction: Transaction) -> None:
        if await transaction.fetch_one(WORKERS) is None:
            raise KeyError("mine")

    answers = await asyncio.gather(
        database.write(transaction_id),
        database.write(refused, "a"),
        database.write(transaction_id),
        return_exceptions=True,
    )
    assert isinstance(answers[1], KeyError)
    assert answers[0] == answers[2]


async def test_a_statement_that_fails_unseen_fails_the_write(owners):
    async def body(transaction: Transaction) -> str:
        await transaction.send(ADD, {"owner": "a", "number": 1})
        await transaction.execute_many(ADD, [{"owner": "a", "number": 2}])
        return "done"

    with pytest.raises(psycopg.errors.UniqueViolation):
        await owners.database.write(body)
    assert await owners.names() == []


async def test_a_body_may_not_wait_for_anything_else(owners):
    async def body(transaction: Transaction) -> None:
        await transaction.execute(ADD, {"owner": "half", "number": 1})
        await asyncio.sleep(0)

    one, other = await asyncio.gather(
        owners.database.write(body),
        owners.database.write(owners.adding("b")),
        return_exceptions=True,
    )
    assert isinstance(one, RuntimeError)
    assert other == "b"
    assert await owners.names() == ["b"]


async def test_a_commit_that_fails_is_told_and_harms_nobody_after(owners):
    """A deferred constraint is checked at the commit."""

    async def tables(transaction: Transaction) -> None:
        await transaction.execute(
            "CREATE TEMPORARY TABLE late (id TEXT UNIQUE DEFERRABLE INITIALLY DEFERRED)"
        )

    async def twice(transaction: Transaction) -> None:
        await transaction.execute("INSERT INTO late VALUES ('a'), ('a')")

    await owners.database.write(tables)
    answers = await asyncio.gather(
        owners.database.write(owners.adding("a")),
        owners.database.write(twice),
        return_exceptions=True,
    )
    assert answers[0] == "a"
    assert isinstance(answers[1], psycopg.errors.UniqueViolation)
    assert await owners.names() == ["a"]


async def test_a_caller_who_gives_up_does_not_take_back_what_was_handed_in(owners):
    task = asyncio.create_task(owners.database.write(owners.adding("a")))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await owners.database.write(owners.adding("b"))
    assert await owners.names() == ["a", "b"]


async def test_write_soon_keeps_its_place_and_is_committed_by_itself(owners):
    errors: list[Exception] = []
    write_soon = owners.database.write_soon
    write_soon(owners.adding("1"), errors.append)
    first = asyncio.create_task(owners.database.write(owners.adding("2")))
    await asyncio.sleep(0)
    write_soon(owners.adding("3"), errors.append)
    write_soon(owners.adding("lost", KeyError("mine")), errors.append)
    await first
    async with asyncio.timeout(1000 * LINGER_SECONDS):
        while not errors:  # noqa: ASYNC110
            await asyncio.sleep(0)
    await owners.database.flush()
    assert [str(error) for error in errors] == ["'mine'"]
    assert await owners.names() == ["1", "2", "3"]


async def test_closing_commits_what_waits(owners, postgres_uri):
    owners.database.write_soon(owners.adding("waiting"), pytest.fail)
    await owners.database.close()
    with psycopg.connect(postgres_uri) as other:
        assert other.execute("SELECT owner FROM workers").fetchall() == [("waiting",)]
    with pytest.raises(RuntimeError, match="closed"):
        await owners.database.write(owners.adding("late"))


# -- several processes -------------------------------------------------------------------------


@pytest.fixture
async def other(postgres_uri: str, database: PostgresDatabase) -> AsyncIterator[PostgresDatabase]:
    """The same database, as another process has it."""
    other = PostgresDatabase(postgres_uri)
    await other.open()
    yield other
    await other.close()


async def test_groups_that_wait_for_each_other_are_taken_apart(owners, other):
    """Each transaction changes what the other wants next: one alone would wait for ever."""
    await asyncio.gather(*(owners.database.write(owners.adding(name)) for name in "ab"))

    def touch(name: str) -> Callable[..., Any]:
        async def body(transaction: Transaction) -> int:
            sql = "UPDATE workers SET lease_until = lease_until + 1 WHERE owner = :name"
            return await transaction.execute(sql, {"name": name})

        return body

    for _ in range(3):
        changed = await asyncio.gather(
            *(owners.database.write(touch(name)) for name in "ab"),
            *(other.write(touch(name)) for name in "ba"),
        )
        assert changed == [1] * 4
    rows = await other.read_all("SELECT lease_until FROM workers ORDER BY owner")
    assert [row["lease_until"] for row in rows] == [7, 8]


async def test_what_a_write_acknowledges_another_process_sees(owners, other):
    for number in range(20):
        await owners.database.write(owners.adding(str(number)))
        row = await other.read_one("SELECT count(*) AS n FROM workers")
        assert row is not None
        assert row["n"] == number + 1


async def test_a_statement_whose_table_was_altered_is_prepared_anew(owners, other):
    async def read(transaction: Transaction) -> int:
        return len(await transaction.fetch_all("SELECT * FROM workers"))

    async def alter(transaction: Transaction) -> None:
        await transaction.execute("ALTER TABLE workers ADD COLUMN extra TEXT")

    async def mend(transaction: Transaction) -> None:
        await transaction.execute("ALTER TABLE workers DROP COLUMN extra")

    await owners.database.write(owners.adding("a"))
    for change in (alter, mend):
        for _ in range(2):
            await asyncio.gather(*(owners.database.write(read) for _ in range(2)))
            await asyncio.gather(
                *(owners.database.read_all("SELECT * FROM workers") for _ in range(4))
            )
        await other.write(change)
    assert await owners.database.write(read) == 1


# -- lost connections --------------------------------------------------------------------------


async def kill_all(postgres_uri: str) -> None:
    """End all connections of servers, as a restart does."""
    async with await psycopg.AsyncConnection.connect(postgres_uri, autocommit=True) as connection:
        await connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE datname = current_database() AND application_name = 'treadle'"
        )


async def test_reads_and_writes_go_on_with_new_connections(owners, postgres_uri):
    for number in range(3):
        await owners.database.write(owners.adding(str(number)))
        assert len(await owners.names()) == number + 1
        assert len(await owners.database.scan(WORKERS)) == number + 1
        changed = "UPDATE workers SET owner = owner"
        assert owners.database.execute_outside(changed) == number + 1
        await kill_all(postgres_uri)
        with pytest.raises(psycopg.OperationalError):
            owners.database.execute_outside(changed)


async def test_a_write_whose_connection_is_lost_before_its_commit_is_done_again(owners):
    runs: list[int] = []

    async def body(transaction: Transaction) -> str:
        runs.append(1)
        await transaction.execute(ADD, {"owner": "a", "number": 1})
        if len(runs) < 3:
            await transaction.fetch_one(END_ME)
        return "done"

    answers = await asyncio.gather(
        owners.database.write(owners.adding("b")), owners.database.write(body)
    )
    assert answers == ["b", "done"]
    assert sorted(await owners.names()) == ["a", "b"]


async def test_a_commit_whose_answer_is_lost_is_told_as_such(owners):
    async def deadly(transaction: Transaction) -> None:
        await transaction.execute(
            "CREATE FUNCTION pg_temp.end_me() RETURNS trigger LANGUAGE plpgsql AS"
            f" $$ BEGIN PERFORM {END_ME.removeprefix('SELECT ')}; RETURN NULL; END $$"
        )
        await transaction.execute(
            "CREATE CONSTRAINT TRIGGER end_me AFTER INSERT ON workers DEFERRABLE INITIALLY"
            " DEFERRED FOR EACH ROW EXECUTE FUNCTION pg_temp.end_me()"
        )
        await transaction.execute(ADD, {"owner": "unclear", "number": 1})

    with pytest.raises(UnclearCommit):
        await owners.database.write(deadly)
    await owners.database.write(owners.adding("a"))
    assert await owners.names() == ["a"]


async def test_without_a_server_reads_and_writes_fail_in_time(owners, monkeypatch):
    async def no_server(info: str, **settings: str) -> Any:
        raise psycopg.OperationalError("no server")

    monkeypatch.setattr(postgres_link, "PATIENCE_SECONDS", 0.05)
    monkeypatch.setattr(module, "connect", no_server)
    await owners.database.close()
    await owners.database.open()
    for doing in (owners.names, lambda: owners.database.write(owners.adding("a"))):
        with pytest.raises(ConnectionLost, match="does not answer"):
            await doing()
    monkeypatch.undo()
    assert await owners.names() == []


# -- values ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sql", "value", "expected"),
    [
        ("SELECT CAST(:it AS BIGINT) AS it", -(2**63), -(2**63)),
        ("SELECT CAST(:it AS DOUBLE PRECISION) AS it", 5e-324, 5e-324),
        ("SELECT CAST(:it AS TEXT) AS it", "é'\"\\:x\u2028😀", "é'\"\\:x\u2028😀"),
        ("SELECT CAST(:it AS TEXT) AS it", "a\0b", "a\ufffdb"),
        ("SELECT CAST(:it AS TEXT) AS it", None, None),
        ("SELECT CAST(:it AS BYTEA) AS it", b"\0\1\xff", b"\0\1\xff"),
        ("SELECT CAST(:it AS BOOLEAN) AS it", True, True),
        ("SELECT ':no' || :it::text || ':no' /* :no */ AS it -- :no", "x", ":nox:no"),
        ("SELECT :it::jsonb AS it", '{"a": 1}', '{"a": 1}'),
        ("SELECT x AS it FROM (VALUES ('a,\"{\\'), ('b')) t (x) WHERE x = ANY(:it)",
         ['a,"{\\', "c\0"], 'a,"{\\'),
        ("SELECT x AS it FROM (VALUES (1), (2)) t (x) WHERE x = ANY(:it)", [2, 3], 2),
        ("SELECT x AS it FROM (VALUES (1), (2)) t (x) WHERE x = :it LIMIT :it", 1, 1),
    ],
)  # fmt: skip
async def test_values_go_in_and_come_out(database, sql, value, expected):
    async def body(transaction: Transaction) -> Any:
        return await transaction.fetch_one(sql, {"it": value})

    params = {"it": value}
    (scanned,) = await database.scan(sql, params)
    for row in (await database.read_one(sql, params), await database.write(body), scanned):
        assert dict(row) == {"it": expected}


async def test_many_reads_at_once_get_their_own_answers(database):
    async def read(number: int) -> Any:
        if number % 10 == 5:
            with pytest.raises(psycopg.errors.DivisionByZero):
                await database.read_one("SELECT 1 / CAST(:n AS INTEGER) AS n", {"n": 0})
            return number
        row = await database.read_one("SELECT CAST(:n AS INTEGER) AS n", {"n": number})
        return row["n"]

    assert await asyncio.gather(*map(read, range(300))) == list(range(300))


async def test_a_statement_that_is_larger_than_the_socket_takes(database):
    large = "é" * 20_000_000
    sql = "SELECT length(:it) AS n, CAST(:it AS TEXT) AS it"
    row = await database.read_one(sql, {"it": large})
    assert row == {"n": 20_000_000, "it": large}


# -- opening -----------------------------------------------------------------------------------


def with_schema(uri: str, schema: str) -> str:
    return f"{uri}{'&' if '?' in uri else '?'}options=-csearch_path%3D{schema}"


@pytest.fixture
def schema(postgres_uri: str) -> Any:
    """The URI of an empty schema."""
    with psycopg.connect(postgres_uri, autocommit=True) as connection:
        connection.execute("CREATE SCHEMA other")
        yield with_schema(postgres_uri, "other")
        connection.execute("DROP SCHEMA other CASCADE")


async def test_however_many_open_an_empty_database_it_is_migrated_once(schema):
    databases = [PostgresDatabase(schema) for _ in range(5)]
    await asyncio.gather(*(database.open() for database in databases))
    names = "SELECT name FROM schema_migrations ORDER BY name"
    found = [await database.read_all(names) for database in databases]
    for rows in found:
        assert [row["name"] for row in rows] == [name for name, _ in migrations("postgres")]
    await asyncio.gather(*(database.close() for database in databases))


async def test_a_database_of_a_newer_treadle_is_refused_by_name(schema):
    with psycopg.connect(schema, autocommit=True) as connection:
        connection.execute("CREATE TABLE schema_migrations (name TEXT PRIMARY KEY)")
        connection.execute("INSERT INTO schema_migrations VALUES ('9999_from_tomorrow')")
    with pytest.raises(StartupError, match=r"newer Treadle \(it has 9999_from_tomorrow\)"):
        await PostgresDatabase(schema).open()


async def test_a_migration_that_fails_leaves_nothing(schema, monkeypatch):
    broken = [("0001_good", "CREATE TABLE good (x INT)"), ("0002_bad", "NONSENSE")]
    monkeypatch.setattr("treadle.database.migrations.migrations", lambda engine: broken)
    with pytest.raises(StartupError, match="NONSENSE"):
        await PostgresDatabase(schema).open()
    with psycopg.connect(schema) as connection:
        assert connection.execute("SELECT to_regclass('good')").fetchone() == (None,)


async def test_a_schema_that_is_not_there_is_refused(postgres_uri):
    with pytest.raises(StartupError, match="no schema has been selected"):
        await PostgresDatabase(with_schema(postgres_uri, "nowhere")).open()


async def test_a_database_that_is_not_there_is_refused_at_once(postgres_uri):
    name = psycopg.conninfo.conninfo_to_dict(postgres_uri)["dbname"]
    with pytest.raises(StartupError, match='database "nowhere" does not exist'):
        await PostgresDatabase(postgres_uri.replace(str(name), "nowhere")).open()


async def test_a_server_that_is_not_there_is_waited_for(monkeypatch):
    monkeypatch.setattr(postgres_link, "LONGEST_PAUSE_SECONDS", 0.01)
    uri = "postgresql://me:secret@127.0.0.1:1/treadle"
    with capture_logs() as logged, pytest.raises(StartupError) as raised:
        await first_connection(uri, wait_seconds=0.03)
    message = str(raised.value)
    assert "postgresql://me@127.0.0.1:1/treadle did not answer for 0.03 s" in message
    assert "TREADLE_POSTGRES_WAIT_SECS" in message
    assert [entry["event"] for entry in logged] == ["waiting for PostgreSQL"]
    assert "secret" not in message + repr(logged)


async def test_a_server_that_is_too_old_is_refused(postgres_uri, monkeypatch):
    monkeypatch.setattr(postgres_link, "OLDEST_VERSION", 99)
    with pytest.raises(StartupError, match="Treadle needs 99 or newer"):
        await PostgresDatabase(postgres_uri).open()


@pytest.mark.parametrize("uri", ["postgresql://a:se%cret@b/c", "postgresql://a:secret@[b/c",
                                 "postgresql://a:secret@b/c?nonsense=1"])  # fmt: skip
async def test_what_is_no_uri_is_refused_without_showing_it(uri):
    with pytest.raises(StartupError) as raised:
        await PostgresDatabase(uri).open()
    assert "cret" not in str(raised.value)


def test_a_uri_is_shown_without_its_password():
    assert shown("postgresql://me:secret@a:1,b:2/x?sslmode=require") == "postgresql://me@a,b:1,2/x"
    assert shown("postgresql:///x?host=/run&password=secret") == "postgresql:///run/x"


async def test_what_is_closed_connects_no_more(database):
    await database.read_one("SELECT 1 AS one")
    await database.close()
    with pytest.raises(ConnectionLost, match="is closed"):
        await database.read_one("SELECT 1 AS one")
