"""PostgreSQL: one writer with group commit, readers and scanners beside it.

A process has one connection that writes (``postgres_writer``), ``READERS`` that answer short
reads, any number of them at once (``postgres_pipeline``), one for the heartbeat, and a pool for
scans. Together they are never more than ``connections``.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable, Sequence
from importlib.resources import files
from typing import Any, TypeVar

from psycopg import AsyncConnection, AsyncRawCursor, Connection, Error, OperationalError, RawCursor
from psycopg_pool import AsyncConnectionPool, PoolTimeout

from treadle.database import NO_PARAMS, Body, Params, Row, connection_figures
from treadle.database.migrations import pending
from treadle.database.postgres_dialect import PostgresDialect
from treadle.database.postgres_link import (
    Link,
    connect,
    conninfo,
    first_connection,
    plan_each_time,
    shown,
)
from treadle.database.postgres_listener import PostgresListener, channel_of
from treadle.database.postgres_pipeline import Answer, ConnectionLost
from treadle.database.postgres_sql import columns_of, load_rows, translate, without_nul
from treadle.database.postgres_writer import LOCK_MS, Job, Writer
from treadle.errors import StartupError
from treadle.figures import Figure

T = TypeVar("T")

READERS = 2
APART = READERS + 3
"""Connections that are no scanner's: the readers', the writer's, the heartbeat's, and one that
listens to other processes."""
FEWEST_CONNECTIONS = APART + 1
DEFAULT_CONNECTIONS = 10
SCAN_WAIT_SECONDS = 30.0
WAIT_SECONDS = 60.0
SCAN_RECONNECT_SECONDS = 1.0
_MIGRATION_LOCK = "SELECT pg_advisory_xact_lock(hashtext('treadle ' || current_schema()))"


class PostgresDatabase:
    """A PostgreSQL database, or the schema that its ``search_path`` names; see ``Database``.

    ``wait_seconds`` is how long ``open`` waits for a server that does not answer.
    """

    def __init__(
        self,
        uri: str,
        *,
        connections: int = DEFAULT_CONNECTIONS,
        wait_seconds: float = WAIT_SECONDS,
    ) -> None:
        self.dialect = PostgresDialect()
        self.channel = ""
        self._uri = uri
        self._scanners = max(connections, FEWEST_CONNECTIONS) - APART
        self._wait_seconds = wait_seconds
        self._readers: list[Link] = []
        self._writer: Writer
        self._pool: AsyncConnectionPool[AsyncConnection[Any]]
        self._closed = True
        self._local = threading.local()
        self._outside: list[Connection[Any]] = []
        self._outside_lock = threading.Lock()

    # -- opening and closing ---------------------------------------------------------------

    async def open(self) -> None:
        connection = await first_connection(self._uri, self._wait_seconds)
        try:
            await self._migrate(connection)
            self.channel = await channel_of(connection)
        except Error as error:
            raise StartupError(
                f"PostgreSQL at {shown(self._uri)} cannot be used: {str(error).strip()}."
            ) from error
        finally:
            await connection.close()
        self._info = info = conninfo(self._uri)
        self._loop = asyncio.get_running_loop()
        self._readers = [Link(lambda: connect(info)) for _ in range(READERS)]
        writing = Link(lambda: connect(info, lock_timeout=f"{LOCK_MS}ms"))
        self._writer = Writer(writing, self.channel)
        self._writer.open()
        self._pool = AsyncConnectionPool(
            info,
            kwargs={"autocommit": True, "cursor_factory": AsyncRawCursor},
            configure=plan_each_time,
            min_size=0,
            max_size=self._scanners,
            max_idle=60.0,
            timeout=SCAN_WAIT_SECONDS,
            reconnect_timeout=SCAN_RECONNECT_SECONDS,
            reconnect_failed=_try_again,
            open=False,
            name="treadle-scan",
        )
        await self._pool.open()
        self._closed = False

    async def close(self) -> None:
        if self._closed:
            return
        await self.flush()
        self._closed = True
        await self._writer.close()
        for reader in self._readers:
            await reader.close()
        await self._pool.close()
        with self._outside_lock:
            for connection in self._outside:
                connection.close()

    async def prepare_vectors(self) -> None:
        script = (files(__package__ or "") / "postgres_vectors.sql").read_bytes()
        try:
            async with (
                await AsyncConnection.connect(self._info, autocommit=True) as connection,
                connection.transaction(),
            ):
                await connection.execute(_MIGRATION_LOCK)
                await connection.execute(script)
        except Error as error:
            reason = error.diag.message_primary or str(error).strip()
            raise StartupError(
                f"store.index needs the extension pgvector, which PostgreSQL at {shown(self._uri)}"
                f" does not offer ({reason}). Install pgvector there, let a superuser run CREATE"
                " EXTENSION vector, or take store.index out of the config: everything else works"
                " without it."
            ) from error

    async def _migrate(self, connection: AsyncConnection[Any]) -> None:
        """Bring the schema up to date: one process at a time, all of it or nothing."""
        async with connection.transaction():
            await connection.execute(_MIGRATION_LOCK)
            await connection.execute(
                "CREATE TABLE IF NOT EXISTS schema_migrations (name TEXT PRIMARY KEY)"
            )
            found = await connection.execute("SELECT name FROM schema_migrations")
            done = {row[0] for row in await found.fetchall()}
            for name, script in pending("postgres", done, shown(self._uri)):
                await connection.execute(script.encode())
                await connection.execute(
                    "INSERT INTO schema_migrations (name) VALUES (%s)", (name,)
                )

    # -- reading ---------------------------------------------------------------------------

    async def read_one(self, sql: str, params: Params = NO_PARAMS) -> Row | None:
        rows = (await self._ask(sql, params)).rows
        return rows[0] if rows else None

    async def read_all(self, sql: str, params: Params = NO_PARAMS) -> Sequence[Row]:
        return (await self._ask(sql, params)).rows

    async def _ask(self, sql: str, params: Params) -> Answer:
        """Ask the reader that has the least to do; once more if its connection was lost."""
        link = min(self._readers, key=_load)
        pipeline = await link.get()
        with contextlib.suppress(ConnectionLost):
            answer = await pipeline.ask(sql, params)
            if not isinstance(answer.error, ConnectionLost):
                return answer
        return await (await link.get()).ask(sql, params)

    async def scan(self, sql: str, params: Params = NO_PARAMS) -> Sequence[Row]:
        translated = translate(sql)
        values = [_scanned(params[name]) for name in translated.names]
        try:
            try:
                return await self._scan(translated.text, values)
            except ConnectionLost:
                await self._pool.check()
                return await self._scan(translated.text, values)
        except PoolTimeout:
            raise ConnectionLost("The database does not answer") from None

    async def _scan(self, sql: bytes, values: list[Any]) -> Sequence[Row]:
        async with self._pool.connection() as connection:
            try:
                found = (await connection.execute(sql, values, binary=True)).pgresult
            except OperationalError as error:
                if connection.closed:
                    raise ConnectionLost from error
                raise
            return load_rows(found, columns_of(found)) if found is not None else []

    # -- writing ---------------------------------------------------------------------------

    async def write(self, body: Body[T], thread_id: str | None = None) -> T:
        if self._closed:
            raise RuntimeError(f"the database {shown(self._uri)} is closed")
        future: asyncio.Future[T] = self._loop.create_future()
        self._writer.add(Job(body, thread_id, future))
        return await future

    def write_soon(
        self,
        body: Body[object],
        on_error: Callable[[Exception], None],
        on_commit: Callable[[], None] | None = None,
        thread_id: str | None = None,
    ) -> None:
        self._writer.add_soon(Job(body, thread_id, None, on_error, on_commit))

    def hurry(self) -> None:
        self._writer.hurry()

    async def flush(self) -> None:
        if not self._writer.is_idle:
            await self.write(_nothing)

    def figures(self) -> Sequence[Figure]:
        pool = self._pool.get_stats()
        apart = APART - 1 + len(self._outside)
        return connection_figures(
            self._writer.waiting,
            pool.get("requests_waiting", 0),
            max=self._scanners + APART,
            open=pool.get("pool_size", 0) + apart,
            idle=pool.get("pool_available", 0),
        )

    def execute_outside(self, sql: str, params: Params = NO_PARAMS) -> int:
        translated = translate(sql)
        values = [params[name] for name in translated.names]
        connection = self._own_connection()
        try:
            return connection.execute(translated.text, values).rowcount
        except OperationalError:
            connection.close()
            raise

    def _own_connection(self) -> Connection[Any]:
        """The connection of this thread."""
        connection: Connection[Any] | None = getattr(self._local, "connection", None)
        if connection is None or connection.closed:
            connection = Connection.connect(self._info, autocommit=True, cursor_factory=RawCursor)
            self._local.connection = connection
            with self._outside_lock:
                self._outside = [other for other in self._outside if not other.closed]
                self._outside.append(connection)
                if self._closed:
                    connection.close()
        return connection

    async def listen(
        self, name: str, hear: Callable[[str], None], missed: Callable[[], None]
    ) -> PostgresListener:
        channels = self.channel, f"{self.channel}.{name}"
        listener = PostgresListener(self._info, channels, hear, missed)
        await listener.open()
        return listener


async def _try_again(pool: AsyncConnectionPool[AsyncConnection[Any]]) -> None:
    """Connect as long as somebody waits for it, without the pauses that grow in an outage."""
    if pool.get_stats().get("requests_waiting"):
        await pool.check()


def _load(link: Link) -> int:
    return link.load


def _scanned(value: Any) -> Any:
    """A parameter of a scan: like all text in PostgreSQL without NUL."""
    if isinstance(value, list):
        return [_scanned(element) for element in value]
    return without_nul(value) if isinstance(value, str) else value


async def _nothing(transaction: object) -> None:
    """The body of a flush."""
