"""The writer of a process: all that it writes to PostgreSQL, in order, many bodies a commit.

While one transaction is under way, the bodies that are handed in wait for the next; that takes
all of them. In it, the bodies of different threads run beside each other: each round trip carries
a statement of every one. What is about the same thread, and what names none, keeps its turn. So
the cost of a commit, and of the way to the database, is shared by all.

A body that raises without having changed anything harms no other. If one fails in any other way
the transaction is rolled back, and each of its bodies gets one of its own. A connection that is
lost before the commit was sent costs nothing: all is done again on the next one. If it is lost
between the commit and its answer nobody knows what became of it: that raises ``UnclearCommit``.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from typing import Any, cast

from psycopg.errors import Error

from treadle.database import NO_PARAMS, Body, Params, Row
from treadle.database.postgres_link import Link
from treadle.database.postgres_pipeline import (
    STALE_PLANS,
    Answer,
    ConnectionLost,
    Pipeline,
    Skipped,
)

LINGER_SECONDS = 0.005
MOST_TOGETHER = 256
TRIES = 5
RETRY_SECONDS = 0.02
LOCK_MS = 200
"""How long a group waits for a row that another process has locked, before it is taken apart:
two groups that wait for each other would else stand still for a second (deadlock_timeout)."""
PATIENT = "SET LOCAL lock_timeout = '10s'"
NOTIFY = "SELECT pg_notify(:channel, :text)"
_RETRIED = ("40001", "40P01", "55P03", "23505", *STALE_PLANS)
"""Among them a key that is there already: another process was faster, which the next try sees."""
_READS = ("SELECT", "WITH")


class UnclearCommit(ConnectionLost):
    """The connection was lost while it committed: the changes may be there, all or none."""


class Job:
    """A body that was handed in, and who hears of its end."""

    __slots__ = ("body", "error", "future", "on_commit", "on_error", "result", "thread_id")

    def __init__(
        self,
        body: Body[Any],
        thread_id: str | None,
        future: asyncio.Future[Any] | None,
        on_error: Callable[[Exception], None] | None = None,
        on_commit: Callable[[], None] | None = None,
    ) -> None:
        self.body, self.thread_id = body, thread_id
        self.future, self.on_error, self.on_commit = future, on_error, on_commit
        self.result: Any = None
        self.error: Exception | None = None

    def settle(self) -> None:
        if self.future is not None:
            if self.future.done():
                return
            if self.error is not None:
                self.future.set_exception(self.error)
            else:
                self.future.set_result(self.result)
        elif self.error is None:
            if self.on_commit is not None:
                self.on_commit()
        elif self.on_error is not None:
            self.on_error(self.error)


class _Asking:
    """What a body awaits: the answer to a statement."""

    __slots__ = ("params", "sql")

    def __init__(self, sql: str, params: Params) -> None:
        self.sql, self.params = sql, params

    def __await__(self) -> Generator[_Asking, Answer, Answer]:
        return (yield self)


class PostgresTransaction:
    """See ``treadle.database.Transaction``: one run of a job's body within a group."""

    __slots__ = ("_coroutine", "_group", "changed", "job", "signals")

    def __init__(self, job: Job, group: _Group) -> None:
        self.job, self._group = job, group
        self.changed = False
        self.signals: list[tuple[str | None, str]] = []
        self._coroutine: Any = None

    async def execute(self, sql: str, params: Params = NO_PARAMS) -> int:
        count = (await _Asking(sql, params)).count
        self._see(sql, count)
        return count

    async def send(self, sql: str, params: Params = NO_PARAMS) -> None:
        self.changed = True
        self._group.send(sql, params, self._group.check)

    async def execute_many(self, sql: str, rows: Iterable[Params]) -> None:
        self.changed = True
        for params in rows:
            self._group.send(sql, params, self._group.check)

    async def fetch_one(self, sql: str, params: Params = NO_PARAMS) -> Row | None:
        rows = (await _Asking(sql, params)).rows
        self._see(sql, len(rows))
        return rows[0] if rows else None

    async def fetch_all(self, sql: str, params: Params = NO_PARAMS) -> Sequence[Row]:
        rows = (await _Asking(sql, params)).rows
        self._see(sql, len(rows))
        return rows

    def announce(self, text: str, to: str | None = None) -> None:
        self.signals.append((to, text))

    def _see(self, sql: str, count: int) -> None:
        if count and not self.changed:
            self.changed = not sql.lstrip()[:6].startswith(_READS)

    # -- driving the body ------------------------------------------------------------------

    def begin(self) -> None:
        self.job.result = self.job.error = None
        self._coroutine = cast("Any", self.job.body(self))
        self._go_on(None)

    def _hear(self, answer: Answer) -> None:
        if answer.error is not None:
            self._group.check(answer)
        self._go_on(answer)

    def _go_on(self, answer: Answer | None) -> None:
        """Run the body until it asks the next question, or to its end."""
        error: Exception | None = None
        while True:
            try:
                if error is None:
                    asking = self._coroutine.send(answer)
                else:
                    asking = self._coroutine.throw(error)
                if not isinstance(asking, _Asking):
                    self._coroutine.close()
                    raise RuntimeError(
                        "a transaction's body awaited something else than its transaction"
                    )
            except StopIteration as end:
                self.job.result = end.value
                return self._group.ended(self)
            except Exception as raised:
                self.job.error = raised
                return self._group.ended(self)
            try:
                return self._group.send(asking.sql, asking.params, self._hear)
            except Exception as raised:
                error = raised


class _Group:
    """Jobs that one transaction does. ``error``: why it cannot be committed."""

    def __init__(self, pipeline: Pipeline, channel: str, *, patient: bool = False) -> None:
        self._pipeline, self._channel = pipeline, channel
        self._patient = patient
        self._has_begun = False
        self._left = 0
        self._wave_over: asyncio.Future[None] | None = None
        self.error: Exception | None = None
        self.is_committing = False
        self.signals: dict[tuple[str | None, str], None] = {}
        """What the transaction announces, and to whom."""

    async def run(self, jobs: Sequence[Job]) -> None:
        """Do all jobs and commit; ``error`` tells if that failed."""
        for wave in _waves(jobs):
            self._left = len(wave)
            for job in wave:
                PostgresTransaction(job, self).begin()
            if self._left:
                self._wave_over = asyncio.get_running_loop().create_future()
                await self._wave_over
                self._wave_over = None
            if self.error is not None:
                break
        if self.error is None:
            self._announce()
        if not self._has_begun:
            return
        if self.error is None:
            self.is_committing = True
            answer = await self._once("COMMIT")
            self.check(answer)
            if self.error is None and answer.tag != b"COMMIT":
                self.error = Error("the transaction was rolled back")
            if self.error is None or answer.error is None:
                return
            self.is_committing = isinstance(answer.error, ConnectionLost)
        if not self._pipeline.is_lost:
            await self._once("ROLLBACK")

    def _announce(self) -> None:
        """Send the signals; there is nothing to commit if the connection is lost already."""
        try:
            for to, text in self.signals:
                channel = self._channel if to is None else f"{self._channel}.{to}"
                self.send(NOTIFY, {"channel": channel, "text": text}, self.check)
        except ConnectionLost as lost:
            self.error = lost
        if self._pipeline.is_lost:
            self.error = self.error or ConnectionLost()

    async def _once(self, sql: str) -> Answer:
        try:
            return await self._pipeline.ask_once(sql)
        except ConnectionLost as error:
            return Answer(None, None, error)

    def send(self, sql: str, params: Params, hear: Callable[[Answer], None]) -> None:
        if not self._has_begun:
            self._has_begun = True
            self._pipeline.send("BEGIN", NO_PARAMS, self.check)
            if self._patient:
                self._pipeline.send(PATIENT, NO_PARAMS, self.check)
        self._pipeline.send(sql, params, hear)

    def check(self, answer: Answer) -> None:
        """Note what makes this transaction fail; the first error is the one that tells."""
        if answer.error is not None and (self.error is None or isinstance(self.error, Skipped)):
            self.error = answer.error

    def ended(self, transaction: PostgresTransaction) -> None:
        error = transaction.job.error
        if error is None and transaction.signals:
            self.signals |= dict.fromkeys(transaction.signals)
        if isinstance(error, ConnectionLost) or transaction.changed:
            self.error = self.error or error
        self._left -= 1
        if not self._left and self._wave_over is not None and not self._wave_over.done():
            self._wave_over.set_result(None)


def _waves(jobs: Sequence[Job]) -> Iterator[list[Job]]:
    """What runs beside each other: jobs of different threads; one without a thread by itself."""
    wave: list[Job] = []
    threads: set[str] = set()
    for job in jobs:
        if job.thread_id is None or job.thread_id in threads:
            if wave:
                yield wave
            wave, threads = [], set()
        wave.append(job)
        if job.thread_id is None:
            yield wave
            wave = []
        else:
            threads.add(job.thread_id)
    if wave:
        yield wave


class Writer:
    """Does jobs in the order in which they were added. ``channel``: see ``Database.channel``."""

    def __init__(self, link: Link, channel: str) -> None:
        self._link, self._channel = link, channel
        self._jobs: list[Job] = []
        self._woken = asyncio.Event()
        self._linger: asyncio.TimerHandle | None = None
        self._task: asyncio.Task[None] | None = None
        self._is_busy = False

    def open(self) -> None:
        self._task = asyncio.create_task(self._work(), name="treadle-writer")

    async def close(self) -> None:
        """Stop; all that was added has to be done already."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
            self._task = None
        await self._link.close()

    @property
    def is_idle(self) -> bool:
        return not self._jobs and not self._is_busy

    @property
    def waiting(self) -> int:
        """How many jobs wait for the next transaction."""
        return len(self._jobs)

    def add(self, job: Job) -> None:
        """Do ``job`` at this turn's end, with all others that were added by then."""
        self._jobs.append(job)
        self._woken.set()

    def add_soon(self, job: Job) -> None:
        """Do ``job`` with the next that is added, or in ``LINGER_SECONDS``."""
        self._jobs.append(job)
        if self._linger is None and not self._woken.is_set():
            loop = asyncio.get_running_loop()
            self._linger = loop.call_later(LINGER_SECONDS, self._woken.set)

    def hurry(self) -> None:
        """Do what was added at this turn's end."""
        if self._jobs:
            self._woken.set()

    async def _work(self) -> None:
        while True:
            await self._woken.wait()
            self._woken.clear()
            if self._linger is not None:
                self._linger.cancel()
                self._linger = None
            while self._jobs:
                jobs, self._jobs = self._jobs[:MOST_TOGETHER], self._jobs[MOST_TOGETHER:]
                self._is_busy = True
                try:
                    await self._do(jobs)
                finally:
                    self._is_busy = False

    async def _do(self, jobs: Sequence[Job]) -> None:
        try:
            if len(jobs) > 1 and await self._do_together(jobs):
                return
            for job in jobs:
                await self._do_alone(job)
        except Exception as error:
            _fail(jobs, error)

    async def _do_together(self, jobs: Sequence[Job]) -> bool:
        """One transaction for all; False if that was undone."""
        group = _Group(await self._link.get(), self._channel)
        await group.run(jobs)
        if group.error is not None:
            if _is_unclear(group):
                _fail(jobs, _unclear())
                return True
            if getattr(group.error, "sqlstate", None) in STALE_PLANS:
                (await self._link.get()).forget_plans()
            return False
        for job in jobs:
            job.settle()
        return True

    async def _do_alone(self, job: Job) -> None:
        """A transaction for one, again if it fails by no fault of its own."""
        for attempt in range(TRIES):
            pipeline = await self._link.get()
            group = _Group(pipeline, self._channel, patient=attempt > 0)
            await group.run((job,))
            if group.error is None:
                break
            if _is_unclear(group):
                job.error = _unclear()
                break
            state = getattr(group.error, "sqlstate", None)
            if state in STALE_PLANS:
                pipeline.forget_plans()
            if job.error is None or isinstance(job.error, Skipped):
                job.error = group.error
            if not (state in _RETRIED or isinstance(group.error, ConnectionLost)):
                break
            await asyncio.sleep(RETRY_SECONDS * attempt)
        job.settle()


def _is_unclear(group: _Group) -> bool:
    return group.is_committing and isinstance(group.error, ConnectionLost)


def _unclear() -> UnclearCommit:
    return UnclearCommit(
        "The connection to the database was lost during a commit: what was asked for may have"
        " been done, or not"
    )


def _fail(jobs: Sequence[Job], error: Exception) -> None:
    for job in jobs:
        job.error = error
        job.settle()
