"""One connection to PostgreSQL in libpq's pipeline mode, driven by the event loop.

Statements are sent without waiting for the answers to earlier ones: all that are sent in one
turn of the loop go in one packet. Each is prepared once. It stands on psycopg's connection and
its ``pq`` layer. One read costs 15 µs of processor time (26 alone), by psycopg's cursors 76.
"""

from __future__ import annotations

import asyncio
import select
from collections import deque
from collections.abc import Callable
from typing import Any

import structlog
from psycopg import AsyncConnection, OperationalError
from psycopg.errors import Error, error_from_result
from psycopg.pq import ConnStatus, ExecStatus
from psycopg.pq.abc import PGconn, PGresult

from treadle.database import NO_PARAMS, Params, Row
from treadle.database.postgres_sql import Columns, Sql, columns_of, encode, load_rows, translate
from treadle.errors import Unavailable

logger = structlog.get_logger("treadle.database")

_OK = (ExecStatus.TUPLES_OK, ExecStatus.COMMAND_OK)
_SYNC, _ABORTED = ExecStatus.PIPELINE_SYNC, ExecStatus.PIPELINE_ABORTED
STALE_PLANS = ("0A000", "26000")
"""What a statement fails with that has to be prepared anew: a table has got another column."""


class ConnectionLost(OperationalError, Unavailable):
    """The connection to PostgreSQL has ended; what was sent may have been done or not."""

    def __init__(self, message: str = "The connection to the database was lost") -> None:
        super().__init__(message)


class Skipped(Error):
    """The statement was not run, because one before it failed."""


class _Prepared:
    __slots__ = ("columns", "error", "name", "names")

    def __init__(self, name: bytes, names: tuple[str, ...]) -> None:
        self.name, self.names = name, names
        self.columns: Columns | None = None
        self.error: Error | None = None


class Answer:
    """What a statement came to: ``rows``, ``count`` (how many it touched), or ``error``."""

    __slots__ = ("_prepared", "_result", "error")

    def __init__(
        self, prepared: _Prepared | None, result: PGresult | None, error: Error | None
    ) -> None:
        self._prepared, self._result, self.error = prepared, result, error

    @property
    def rows(self) -> list[Row]:
        if self.error is not None:
            raise self.error
        assert self._prepared is not None
        assert self._result is not None
        if not self._result.ntuples:
            return []
        if self._prepared.columns is None:
            self._prepared.columns = columns_of(self._result)
        return load_rows(self._result, self._prepared.columns)  # pyright: ignore[reportReturnType]

    @property
    def count(self) -> int:
        if self.error is not None:
            raise self.error
        assert self._result is not None
        return self._result.command_tuples or 0

    @property
    def tag(self) -> bytes:
        """``COMMIT``, say, or ``ROLLBACK`` where that is what became of it."""
        if self.error is not None:
            raise self.error
        assert self._result is not None
        return self._result.command_status or b""


Hear = Callable[[Answer], None]


def watch_for_break(socket: int) -> Callable[[], bool]:
    """What tells whether the other side broke off (reset) a connection.

    uvloop calls a reader once when that happened, and never again. So who reads has to ask, and
    then to go on until libpq has come to the end: what came before can hide it.
    """
    if not hasattr(select, "poll"):  # Windows, where uvloop is not either
        return lambda: False
    watch = select.poll()
    watch.register(socket, 0)  # errors are told unasked
    return lambda: bool(watch.poll(0))


class Pipeline:
    """A connection whose statements are answered in the order in which they were sent.

    ``send`` never waits; ``ask`` does, and may be called by any number of tasks at once. Once the
    connection has ended, all that waits hears ``ConnectionLost``, and ``is_lost`` is true.
    """

    def __init__(self, connection: AsyncConnection[Any]) -> None:
        self._connection = connection
        self._pg: PGconn = connection.pgconn
        self._loop = asyncio.get_running_loop()
        self._statements: dict[str, _Prepared] = {}
        self._prepared_count = 0
        self._waiting: deque[tuple[_Prepared | None, Hear]] = deque()
        self._syncs = 0
        self._flush_due = False
        self._is_writing = False
        self.is_lost = False
        self._why = ""
        self._pg.enter_pipeline_mode()
        self._socket = self._pg.socket
        self._has_broken = watch_for_break(self._socket)
        self._loop.add_reader(self._socket, self._read)

    async def close(self) -> None:
        """Let go of the connection. What still waits hears ``ConnectionLost``."""
        self._lose()
        await self._connection.close()

    # -- sending ---------------------------------------------------------------------------

    @property
    def load(self) -> int:
        """How many statements wait for their answers."""
        return len(self._waiting)

    def send(self, sql: str, params: Params, hear: Hear) -> None:
        """Send a statement; ``hear`` is called, on the event loop, with what it came to.

        Raises ``ConnectionLost`` if there is no connection.
        """
        if self.is_lost:
            raise ConnectionLost
        prepared = self._statements.get(sql)
        if prepared is None:
            prepared = self._prepare(sql, translate(sql))
        values, formats = encode(prepared.names, params)
        try:
            self._pg.send_query_prepared(prepared.name, values, formats, 1)
        except OperationalError as error:
            self._lose(error)
            raise ConnectionLost from None
        self._waiting.append((prepared, hear))
        if not self._flush_due:
            self._flush_due = True
            self._loop.call_soon(self._flush)

    async def ask(self, sql: str, params: Params = NO_PARAMS) -> Answer:
        """Send a statement and wait for what it comes to.

        If it could not run for a reason that is not its own (another statement of the same packet
        failed, or a plan is out of date), it is sent again: for what runs outside a transaction.
        """
        while True:
            answer = await self.ask_once(sql, params)
            stale = answer.error is not None and answer.error.sqlstate in STALE_PLANS
            if stale and self._statements.pop(sql, None) is not None:
                continue
            if not isinstance(answer.error, Skipped):
                return answer

    async def ask_once(self, sql: str, params: Params = NO_PARAMS) -> Answer:
        """Send a statement and wait for what it comes to; for what is part of a transaction."""
        heard: asyncio.Future[Answer] = self._loop.create_future()
        self.send(sql, params, lambda answer: _tell(heard, answer))
        return await heard

    def forget_plans(self) -> None:
        """Prepare everything anew: the schema has changed."""
        self._statements.clear()

    def _prepare(self, sql: str, translated: Sql) -> _Prepared:
        self._prepared_count += 1
        prepared = _Prepared(b"t%d" % self._prepared_count, translated.names)
        try:
            self._pg.send_prepare(prepared.name, translated.text)
        except OperationalError as error:
            self._lose(error)
            raise ConnectionLost from None

        def hear(answer: Answer) -> None:
            prepared.error = answer.error
            if answer.error is not None and self._statements.get(sql) is prepared:
                del self._statements[sql]

        self._waiting.append((None, hear))
        self._statements[sql] = prepared
        return prepared

    def _flush(self) -> None:
        if not self._flush_due:
            return
        self._flush_due = False
        if self.is_lost:
            return
        try:
            self._syncs += 1
            self._pg.pipeline_sync()
            if self._pg.flush():
                self._write_later()
        except OperationalError as error:
            self._lose(error)

    def _write_later(self) -> None:
        """The packet is larger than the socket takes: go on when it takes more."""
        if not self._is_writing:
            self._is_writing = True
            self._loop.add_writer(self._socket, self._write)

    def _write(self) -> None:
        try:
            if not self._pg.flush():
                self._is_writing = False
                self._loop.remove_writer(self._socket)
        except OperationalError as error:
            self._lose(error)

    # -- receiving -------------------------------------------------------------------------

    def _read(self) -> None:
        try:
            self._take_all()
            while self._has_broken():
                self._take_all()
        except OperationalError as error:
            self._lose(error)
            return
        if self._flush_due:
            self._flush()

    def _take_all(self) -> None:
        pg = self._pg
        pg.consume_input()
        while (self._waiting or self._syncs) and not pg.is_busy():
            result = pg.get_result()
            if result is None:
                if pg.status == ConnStatus.BAD:
                    raise OperationalError("the connection has ended")
                continue
            self._take(result)

    def _take(self, result: PGresult) -> None:
        status = result.status
        if status == _SYNC:
            self._syncs -= 1
            return
        if not self._waiting:
            raise OperationalError(str(error_from_result(result)))
        prepared, hear = self._waiting.popleft()
        if status in _OK:
            hear(Answer(prepared, result, None))
        elif status == _ABORTED:
            error = None if prepared is None else prepared.error
            hear(Answer(prepared, None, error or Skipped("a statement before it failed")))
        else:
            error = error_from_result(result)
            if error.sqlstate is None or error.sqlstate.startswith(("57P", "08")):
                self._why = str(error).strip()
                error = ConnectionLost()
            hear(Answer(prepared, None, error))

    def _lose(self, error: Exception | None = None) -> None:
        """The connection has ended: by itself, with an ``error``, or because it was closed."""
        if self.is_lost:
            return
        self.is_lost = True
        if error is not None:
            why = self._why or str(error).strip()
            logger.warning("the connection to the database was lost", error=why)
        self._loop.remove_reader(self._socket)
        if self._is_writing:
            self._loop.remove_writer(self._socket)
        lost = ConnectionLost()
        while self._waiting:
            _, hear = self._waiting.popleft()
            hear(Answer(None, None, lost))


def _tell(future: asyncio.Future[Answer], answer: Answer) -> None:
    if not future.done():
        future.set_result(answer)
