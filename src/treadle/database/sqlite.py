"""SQLite: one writer with group commit, readers beside it, WAL.

Writes that are handed in during one turn of the event loop are committed together at its end.
With ``synchronous=normal`` a commit is a copy into the page cache (about ten microseconds, and
it survives the death of the process), so it runs right on the event loop: a thread between
would cost several times the commit itself. With ``synchronous=full`` a commit waits for the
disk (it survives the death of the machine too), and runs on a thread of its own.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import sqlite3
import threading
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Literal, TypeVar, cast

import structlog

from treadle.database import NO_PARAMS, Body, Params, Row, connection_figures
from treadle.database.migrations import pending
from treadle.database.sqlite_dialect import FUNCTIONS, SQLiteDialect
from treadle.database.sqlite_vectors import enable_vectors
from treadle.errors import StartupError
from treadle.figures import Figure

T = TypeVar("T")

logger = structlog.get_logger("treadle.database")

LINGER_SECONDS = 0.005
BUSY_SECONDS = 30.0
SCAN_THREADS = 2
WAL_CHECK_SECONDS = 1.0
WAL_LIMIT_BYTES = 8 * 2**20
CACHED_STATEMENTS = 512
CACHE_KIB = 16 * 1024


class DatabaseInUse(StartupError):
    """Another process has the database open."""


def free_database(path: Path) -> Path:
    """``path``, or the first of ``name-2``, ``name-3``, ... that no process has open."""
    number, candidate = 1, path
    while _lock_file(candidate).exists():
        lock = os.open(_lock_file(candidate), os.O_RDWR)
        try:
            if _locked(lock):
                break
        finally:
            os.close(lock)
        number += 1
        candidate = path.with_stem(f"{path.stem}-{number}")
    return candidate


def take_lock(path: Path) -> int:
    """Take the lock of the database at ``path``; closing what this returns gives it back.

    It dies with the process. Two writers would not see each other's events. Raises
    ``DatabaseInUse``.
    """
    lock = os.open(_lock_file(path), os.O_RDWR | os.O_CREAT, 0o600)
    if not _locked(lock):
        holder = os.read(lock, 20).decode() or "another process"
        os.close(lock)
        raise DatabaseInUse(
            f"The database {path} is in use by process {holder}. Stop that server, or"
            " name another database with --db."
        )
    _sign(lock)
    return lock


def _sign(lock: int) -> None:
    os.ftruncate(lock, 0)
    os.pwrite(lock, str(os.getpid()).encode(), 0)


def _lock_file(path: Path) -> Path:
    return path.with_name(f"{path.name}.lock")


def _locked(lock: int) -> bool:
    """Take the lock, if nobody has it."""
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


class SQLiteTransaction:
    """See ``treadle.database.Transaction``. Nothing here ever suspends."""

    __slots__ = ("_connection",)

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    async def execute(self, sql: str, params: Params = NO_PARAMS) -> int:
        return self._connection.execute(sql, cast("Any", params)).rowcount

    async def send(self, sql: str, params: Params = NO_PARAMS) -> None:
        self._connection.execute(sql, cast("Any", params))

    async def execute_many(self, sql: str, rows: Iterable[Params]) -> None:
        self._connection.executemany(sql, cast("Any", rows))

    async def fetch_one(self, sql: str, params: Params = NO_PARAMS) -> Row | None:
        rows = self._connection.execute(sql, cast("Any", params)).fetchall()
        return rows[0] if rows else None

    async def fetch_all(self, sql: str, params: Params = NO_PARAMS) -> Sequence[Row]:
        return self._connection.execute(sql, cast("Any", params)).fetchall()

    def announce(self, text: str, to: str | None = None) -> None:
        """Nobody else has this file open."""


class _Job:
    """A body that was handed in, and who hears of its end."""

    __slots__ = ("body", "error", "future", "on_commit", "on_error", "result")

    def __init__(
        self,
        body: Body[Any],
        future: asyncio.Future[Any] | None,
        on_error: Callable[[Exception], None] | None = None,
        on_commit: Callable[[], None] | None = None,
    ) -> None:
        self.body, self.future = body, future
        self.on_error, self.on_commit = on_error, on_commit
        self.result: Any = None
        self.error: Exception | None = None

    def run(self, transaction: SQLiteTransaction) -> None:
        """Drive the body to its end; it may await nothing but its transaction."""
        coroutine = cast("Any", self.body(transaction))
        try:
            coroutine.send(None)
        except StopIteration as end:
            self.result = end.value
        else:
            coroutine.close()
            raise RuntimeError("a transaction's body awaited something else than its transaction")

    def settle(self) -> None:
        if self.future is not None:
            if not self.future.done():
                if self.error is not None:
                    self.future.set_exception(self.error)
                else:
                    self.future.set_result(self.result)
        elif self.error is None:
            if self.on_commit is not None:
                self.on_commit()
        elif self.on_error is not None:
            self.on_error(self.error)


class SQLiteDatabase:
    """One SQLite file; see ``treadle.database.Database``.

    ``path`` is made with its folder if it isn't there. One process at a time may have it open:
    another gets a ``DatabaseInUse`` that says so.
    """

    def __init__(self, path: Path, synchronous: Literal["normal", "full"] = "normal") -> None:
        self.path = path
        self.dialect = SQLiteDialect()
        self.channel = ""
        self._synchronous = synchronous
        self._jobs: list[_Job] = []
        self._linger: asyncio.TimerHandle | None = None
        self._due = False
        self._closed = False
        self._lock: int | None = None
        self._committing: asyncio.Future[None] | None = None
        self._thread = ThreadPoolExecutor(1, "treadle-writer") if synchronous == "full" else None
        self._scanners = ThreadPoolExecutor(SCAN_THREADS, "treadle-scan")
        self._mover = ThreadPoolExecutor(1, "treadle-wal")
        self._rest_due = False
        self._local = threading.local()
        self._opened: list[sqlite3.Connection] = []
        self._wal_task: asyncio.Task[None] | None = None
        self._has_vectors = False

    # -- opening and closing ---------------------------------------------------------------

    async def open(self, *, take_over: bool = False) -> None:
        """See ``Database.open``; ``take_over`` does not mind that another process has it open."""
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._lock = self._take_lock(take_over)
            self._writer = self._connect()
            self._transaction = SQLiteTransaction(self._writer)
            self._migrate()
            self._reader = self._connect(reads_only=True)
        except (OSError, sqlite3.Error, StartupError) as error:
            self._let_go()
            if isinstance(error, StartupError):
                raise
            raise StartupError(f"The database {self.path} cannot be used: {error}.") from error
        self._loop = asyncio.get_running_loop()
        self._closed = False
        self._wal_task = self._loop.create_task(self._tend_wal())

    async def close(self) -> None:
        if self._closed:
            return
        await self.flush()
        self._closed = True
        if self._wal_task is not None:
            self._wal_task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._wal_task
        self._scanners.shutdown()
        self._mover.shutdown()
        if self._thread is not None:
            self._thread.shutdown()
        with contextlib.suppress(sqlite3.OperationalError):
            self._writer.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        self._let_go()

    def _let_go(self) -> None:
        while self._opened:
            self._opened.pop().close()
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def _take_lock(self, take_over: bool) -> int:
        try:
            return take_lock(self.path)
        except DatabaseInUse:
            if not take_over:
                raise
        lock = os.open(_lock_file(self.path), os.O_RDWR)
        waiting = threading.Thread(
            target=fcntl.flock, args=(lock, fcntl.LOCK_EX), name="treadle-lock", daemon=True
        )
        waiting.start()
        _sign(lock)
        return lock

    def peek(self, sql: str, params: Params = NO_PARAMS) -> Sequence[Row]:
        """All rows of a query, without opening the database for anything else."""
        connection = sqlite3.connect(self.path, isolation_level=None, timeout=BUSY_SECONDS)
        connection.row_factory = sqlite3.Row
        try:
            return connection.execute(sql, cast("Any", params)).fetchall()
        finally:
            connection.close()

    def _connect(self, reads_only: bool = False) -> sqlite3.Connection:
        connection = sqlite3.connect(
            self.path,
            isolation_level=None,
            check_same_thread=False,
            cached_statements=CACHED_STATEMENTS,
            timeout=BUSY_SECONDS,
        )
        self._opened.append(connection)
        connection.row_factory = sqlite3.Row
        for name, (count, function) in FUNCTIONS.items():
            connection.create_function(name, count, function, deterministic=True)
        if self._has_vectors:
            enable_vectors(connection)
        for pragma in (
            "journal_mode = wal",
            f"synchronous = {self._synchronous}",
            "wal_autocheckpoint = 0",
            f"journal_size_limit = {WAL_LIMIT_BYTES}",
            f"cache_size = -{CACHE_KIB}",
            "temp_store = memory",
            "secure_delete = fast",
            f"query_only = {int(reads_only)}",
        ):
            connection.execute(f"PRAGMA {pragma}")
        return connection

    async def prepare_vectors(self) -> None:
        self._has_vectors = True
        enabled = [enable_vectors(connection) for connection in self._opened]
        if not all(enabled):
            logger.warning(
                "this Python cannot load extensions into SQLite: searches by meaning are computed"
                " without sqlite-vec, which is slow for more than some thousand items"
            )

    def _migrate(self) -> None:
        execute = self._writer.execute
        execute("CREATE TABLE IF NOT EXISTS schema_migrations (name TEXT PRIMARY KEY)")
        done = {row["name"] for row in execute("SELECT name FROM schema_migrations")}
        for name, script in pending("sqlite", done, str(self.path)):
            self._writer.executescript(
                f"BEGIN IMMEDIATE; {script}"
                f"; INSERT INTO schema_migrations VALUES ('{name}'); COMMIT;"
            )

    async def _tend_wal(self) -> None:
        """Move the log into the database file, off the event loop, whenever it has grown.

        The log begins anew once all of it has been moved, and while writes go on there is always
        something new in it. So most of it is moved beside them, and they wait for the rest.
        """
        while True:
            await asyncio.sleep(WAL_CHECK_SECONDS)
            if _size(f"{self.path}-wal") > WAL_LIMIT_BYTES:
                for _ in range(2):
                    await self._loop.run_in_executor(self._mover, self._move_log)
                self._rest_due = True
                self._commit_at_turns_end()

    def _move_log(self) -> None:
        with contextlib.suppress(sqlite3.Error):
            self._scan("PRAGMA wal_checkpoint(PASSIVE)", NO_PARAMS)

    # -- reading ---------------------------------------------------------------------------

    async def read_one(self, sql: str, params: Params = NO_PARAMS) -> Row | None:
        rows = self._reader.execute(sql, cast("Any", params)).fetchall()
        return rows[0] if rows else None

    async def read_all(self, sql: str, params: Params = NO_PARAMS) -> Sequence[Row]:
        return self._reader.execute(sql, cast("Any", params)).fetchall()

    async def scan(self, sql: str, params: Params = NO_PARAMS) -> Sequence[Row]:
        return await self._loop.run_in_executor(self._scanners, self._scan, sql, params)

    def _scan(self, sql: str, params: Params) -> Sequence[Row]:
        return self._own_connection().execute(sql, cast("Any", params)).fetchall()

    def figures(self) -> Sequence[Figure]:
        return connection_figures(len(self._jobs), 0, open=len(self._opened))

    def execute_outside(self, sql: str, params: Params = NO_PARAMS) -> int:
        return self._own_connection().execute(sql, cast("Any", params)).rowcount

    def _own_connection(self) -> sqlite3.Connection:
        """The connection of this thread."""
        connection: sqlite3.Connection | None = getattr(self._local, "connection", None)
        if connection is None:
            connection = self._local.connection = self._connect()
        return connection

    # -- writing ---------------------------------------------------------------------------

    async def write(self, body: Body[T], thread_id: str | None = None) -> T:
        if self._closed:
            raise RuntimeError(f"the database {self.path} is closed")
        future: asyncio.Future[T] = self._loop.create_future()
        self._jobs.append(_Job(body, future))
        self._commit_at_turns_end()
        return await future

    def write_soon(
        self,
        body: Body[object],
        on_error: Callable[[Exception], None],
        on_commit: Callable[[], None] | None = None,
        thread_id: str | None = None,
    ) -> None:
        self._jobs.append(_Job(body, None, on_error, on_commit))
        if self._linger is None and not self._due:
            self._linger = self._loop.call_later(LINGER_SECONDS, self._commit)

    def hurry(self) -> None:
        if self._jobs:
            self._commit_at_turns_end()

    async def listen(
        self, name: str, hear: Callable[[str], None], missed: Callable[[], None]
    ) -> None:
        """One process has the file: there is nobody to listen to."""

    async def flush(self) -> None:
        if self._jobs or self._committing is not None:
            await self.write(_nothing)

    def _commit_at_turns_end(self) -> None:
        if not self._due:
            self._due = True
            self._loop.call_soon(self._commit)

    def _commit(self) -> None:
        self._due = False
        if self._linger is not None:
            self._linger.cancel()
            self._linger = None
        if self._committing is not None:
            return  # a thread is at work: what waits is committed after it
        if self._rest_due:
            self._rest_due = False
            self._let_thread(self._mover, self._move_log, [])
            return
        jobs, self._jobs = self._jobs, []
        if self._thread is None:
            self._run(jobs)
            for job in jobs:
                job.settle()
        else:
            self._let_thread(self._thread, lambda: self._run(jobs), jobs)

    def _let_thread(
        self, thread: ThreadPoolExecutor, work: Callable[[], None], jobs: list[_Job]
    ) -> None:
        """Let a thread do ``work``; writes wait until it is done, and ``jobs`` with it."""
        self._committing = asyncio.ensure_future(self._loop.run_in_executor(thread, work))
        self._committing.add_done_callback(lambda _: self._committed(jobs))

    def _committed(self, jobs: list[_Job]) -> None:
        self._committing = None
        for job in jobs:
            job.settle()
        if self._jobs or self._rest_due:
            self._commit_at_turns_end()

    def _run(self, jobs: list[_Job]) -> None:
        """All jobs in one transaction, each whole or not at all."""
        execute = self._writer.execute
        several = len(jobs) > 1
        try:
            execute("BEGIN IMMEDIATE")
            for job in jobs:
                if several:
                    execute("SAVEPOINT job")
                try:
                    job.run(self._transaction)
                except Exception as error:
                    job.error = error
                    execute("ROLLBACK TO job" if several else "ROLLBACK")
                if several:
                    execute("RELEASE job")
            if self._writer.in_transaction:
                execute("COMMIT")
        except sqlite3.Error as error:
            if self._writer.in_transaction:
                execute("ROLLBACK")
            for job in jobs:
                job.error = job.error or error


def _size(path: str) -> int:
    """The bytes of a file; 0 if it isn't there."""
    try:
        return os.path.getsize(path)
    except OSError:
        return 0


async def _nothing(transaction: object) -> None:
    """The body of a flush."""
