"""Hearing what other processes announce: a connection of its own that LISTENs."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import structlog
from psycopg import AsyncConnection, OperationalError, sql
from psycopg.pq import ConnStatus

from treadle.database.postgres_link import FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS, connect
from treadle.database.postgres_pipeline import watch_for_break

logger = structlog.get_logger("treadle.database")

PING_SECONDS = 5.0


async def channel_of(connection: AsyncConnection[Any]) -> str:
    """The channel of the schema that a connection uses; other schemas have others."""
    found = await connection.execute("SELECT 'treadle.' || left(md5(current_schema()), 12)")
    row = await found.fetchone()
    assert row is not None
    return row[0]


class PostgresListener:
    """See ``Database.listen``. It connects again by itself, as often as need be."""

    def __init__(
        self,
        info: str,
        channels: tuple[str, ...],
        hear: Callable[[str], None],
        missed: Callable[[], None],
    ) -> None:
        self._info, self._hear, self._missed = info, hear, missed
        listen = [sql.SQL("LISTEN {}").format(sql.Identifier(name)) for name in channels]
        # In one: a notification that came between two would be lost.
        self._listen = sql.SQL("; ").join(listen)
        self._connection: AsyncConnection[Any] | None = None
        self._socket: int | None = None
        self._lost = asyncio.Event()
        self._is_answered = True
        self._task: asyncio.Task[None] | None = None

    async def open(self) -> None:
        """Begin to listen; as soon as that can be, if not now."""
        try:
            await self._connect()
        except OperationalError:
            self._lost.set()
        self._task = asyncio.create_task(self._keep(), name="treadle-listener")

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
            self._task = None
        await self._disconnect()

    async def _connect(self) -> None:
        connection = await connect(self._info, idle_in_transaction_session_timeout="0")
        try:
            await connection.execute(self._listen)
        except BaseException:
            await connection.close()
            raise
        self._connection = connection
        self._lost.clear()
        self._is_answered = True
        self._socket = connection.pgconn.socket
        self._has_broken = watch_for_break(self._socket)
        asyncio.get_running_loop().add_reader(self._socket, self._read)

    async def _disconnect(self) -> None:
        self._stop_reading()
        if self._connection is not None:
            await self._connection.close()
            self._connection = None

    def _stop_reading(self) -> None:
        """At once when libpq may have closed the socket, whose number may soon be another's."""
        if self._socket is not None:
            asyncio.get_running_loop().remove_reader(self._socket)
            self._socket = None

    async def _keep(self) -> None:
        """Ask now and then whether the server is there, and connect again when it was lost."""
        while True:
            try:
                async with asyncio.timeout(PING_SECONDS):
                    await self._lost.wait()
            except TimeoutError:
                self.ping()
                continue
            logger.warning("signals of other processes are not heard: connecting again")
            await self._disconnect()
            pause = FIRST_PAUSE_SECONDS
            while self._connection is None:
                try:
                    await self._connect()
                except OperationalError:
                    await asyncio.sleep(pause)
                    pause = min(pause * 2, LONGEST_PAUSE_SECONDS)
            self._missed()

    def ping(self) -> None:
        """Ask whether the server is there; it was lost if the last time has no answer yet."""
        assert self._connection is not None
        if not self._is_answered:
            self._lost.set()
            return
        self._is_answered = False
        try:
            self._connection.pgconn.send_query(b"SELECT 1")
            self._connection.pgconn.flush()
        except OperationalError:
            self._stop_reading()
            self._lost.set()

    def _read(self) -> None:
        try:
            self._take_all()
            while self._has_broken():
                self._take_all()
        except OperationalError:
            self._stop_reading()
            self._lost.set()

    def _take_all(self) -> None:
        assert self._connection is not None
        pg = self._connection.pgconn
        pg.consume_input()
        while not pg.is_busy() and pg.get_result() is not None:
            self._is_answered = True
        if pg.status == ConnStatus.BAD:
            raise OperationalError("the connection was lost")
        while (told := pg.notifies()) is not None:
            self._hear(told.extra.decode())
