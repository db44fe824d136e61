"""The worker: claims runs that are due and executes them, each in a task of its own.

It is woken by whoever makes a run claimable: a run created, a run ended with others behind it, a
due time reached. A sweep every few seconds takes up the runs of workers whose lease has ended.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Sequence
from typing import Any

import structlog

from treadle.clock import SECOND_US, now_us
from treadle.cluster.signals import Signals
from treadle.database import Row, Transaction
from treadle.errors import Unavailable
from treadle.runs import queries
from treadle.runs.execution import Execution
from treadle.runs.lease import Lease
from treadle.runs.rooms import Rooms

logger = structlog.get_logger("treadle.runs")

SWEEP_SECONDS = 5.0
LONGEST_TIMER_SECONDS = 86_400.0
NEVER_US = 2**62
ANY_NUMBER = 2**31
HAND_BACK_SECONDS = 5.0
RETRY_SECONDS = 1.0
LET_GO_SECONDS = 30.0
CLAIMS_A_ROUND = 16
"""A share of the slots this large is worth a claim at once; a smaller one waits for more."""
CLAIM_SECONDS = 0.01
SETTLE_SECONDS = 5.0
"""How long everybody has to renew a lease after the database was away."""
SHARE_FROM = 16
"""With fewer runs at work than this, a process takes new ones by itself."""


class Worker:
    """Executes runs, ``slots`` at a time.

    ``on_lost`` is called if another worker has taken over this one's runs: nothing more of them
    is written here.
    """

    def __init__(self, rooms: Rooms, slots: int, on_lost: Callable[[], None]) -> None:
        self.slots = slots
        self._rooms = rooms
        self._on_lost = on_lost
        self._leases = 0
        self._lease = self._new_lease()
        self._executions: dict[str, Execution] = {}
        self._on_thread: dict[str, Execution] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._leaving: set[asyncio.Task[None]] = set()
        self._woken, self._look_now = asyncio.Event(), asyncio.Event()
        self._stopped_wait = True
        self._more_wait = False  # runs for which no slot was free, as far as is known
        self._soon: asyncio.TimerHandle | None = None
        self._duties: tuple[asyncio.Task[None], ...] = ()
        # Held while runs are claimed and started, or looked for in vain: no run that has just
        # been claimed is taken for lost.
        self._books = asyncio.Lock()
        self._is_open = False
        self._graphs = frozenset(rooms.registry.ids)
        self._renewing: asyncio.Task[None] | None = None
        self._in_touch_since = time.monotonic()
        self._failed: set[str] = set()  # runs whose end could not be written

    def _new_lease(self) -> Lease:
        self._leases += 1
        return Lease(self._rooms.database, self._lose, self._rooms.me, self._leases)

    # -- life ------------------------------------------------------------------------------

    async def open(self, alone: bool) -> None:
        """Take up what dead workers left, and begin to claim.

        ``alone``: no other process can have the database open, so all other workers are dead.
        """
        if (signals := self._rooms.signals) is not None and not signals.is_alone:
            self._listen_to(signals)
        await self._lease.open()
        self._is_open = True
        if self._rooms.events.relay is None:
            await self._rooms.database.write(_make_due)
        await self._take_up_lost(NEVER_US if alone else now_us())
        later = await self._rooms.database.scan(queries.PENDING_LATER, {"now": now_us()})
        for row in later:
            self.wake_at(row["created_at"])
        self._woken.set()
        self._duties = (
            asyncio.create_task(self._claim_forever()),
            asyncio.create_task(self._sweep_forever()),
        )

    async def close(self, grace_seconds: float) -> None:
        """Stop claiming, and let runs come to an end or to a superstep's boundary.

        What has done neither after ``grace_seconds`` is cut off. Whatever did not end is handed
        back to the queue, to be gone on with by the next worker. Harmless when repeated.
        """
        if not self._duties:
            return
        async with self._books:
            for duty in self._duties:
                duty.cancel()
        self._duties = ()
        self._is_open = False
        if self._renewing is not None:
            self._renewing.cancel()
        for how, seconds in (("drain", grace_seconds), ("cut off", HAND_BACK_SECONDS)):
            for execution in list(self._executions.values()):
                execution.drain() if how == "drain" else execution.stop("hand_back")
            if self._tasks:
                await asyncio.wait(self._tasks, timeout=seconds)
        await self._lease.close()

    def _lose(self) -> None:
        for execution in list(self._executions.values()):
            execution.stop("lose")
        if self._rooms.signals is None or self._rooms.signals.is_alone:
            self._on_lost()
        elif self._is_open:
            self._renewing = asyncio.create_task(self._begin_anew(), name="new lease")

    async def _begin_anew(self) -> None:
        """Go on under a new lease, once nothing goes on that was begun under the old one.

        Nothing of that is written: its runs are others' now.
        """
        logger.error("out of touch for longer than a lease: other workers go on with the runs")
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=LET_GO_SECONDS)
        if self._tasks:
            logger.error("runs that are others' now do not stop")
            self._on_lost()
            return
        self._lease = self._new_lease()
        while True:
            try:
                await self._lease.open()
                break
            except Exception as error:
                logger.warning("no new lease yet", error=repr(error))
                self._lease = self._new_lease()
                await asyncio.sleep(RETRY_SECONDS)
        logger.warning("runs are claimed again, under a new lease", owner=self._lease.owner)
        self.wake_for_stopped()

    def _listen_to(self, signals: Signals) -> None:
        """Follow what other processes tell of runs."""
        signals.on("runs", self._wake_if_free)
        signals.on("due", self._wake_when_due)
        signals.on("stopped", self.wake_for_stopped)
        signals.on("stop", self._stop)
        signals.on_missed(self._look_again)

    def _wake_if_free(self) -> None:
        if len(self._executions) < self.slots:
            self.wake()

    def _wake_when_due(self, due_us: str) -> None:
        self.wake_at(int(due_us))

    def _stop(self, run_id: str, how: str) -> None:
        if (execution := self._executions.get(run_id)) is not None:
            execution.stop(how)
        else:
            self._look_if_claiming()

    def _look_if_claiming(self) -> None:
        """What is to be stopped may have been claimed, and not be known here yet: look then."""
        if self._books.locked():
            self._look_now.set()

    def _look_again(self) -> None:
        """Signals were missed: look for runs, and for those here that are to stop."""
        self._in_touch_since = time.monotonic()
        self.wake_for_stopped()
        self._look_now.set()

    # -- waking ----------------------------------------------------------------------------

    def wake(self) -> None:
        """Look for runs now."""
        self._woken.set()

    def wake_for_stopped(self) -> None:
        """Look now for runs that wait to go on, only to end: they need no free slot."""
        self._stopped_wait = True
        self._woken.set()

    def wake_at(self, due_us: int) -> None:
        """Look for runs when ``due_us`` has come."""
        seconds = (due_us - now_us()) / SECOND_US
        if seconds <= 0:
            self.wake()
        else:
            asyncio.get_running_loop().call_later(
                min(seconds + 0.001, LONGEST_TIMER_SECONDS), self.wake_at, due_us
            )

    # -- runs in this process --------------------------------------------------------------

    @property
    def active(self) -> int:
        return len(self._executions)

    @property
    def slots_open(self) -> int:
        """How many runs at a time are executed here: none, unless this worker is open."""
        return self.slots if self._is_open else 0

    @property
    def wants_help(self) -> bool:
        """Whether other processes should look for runs too."""
        return not self._is_open or len(self._executions) >= min(SHARE_FROM, self.slots)

    def serves(self, graph_id: str) -> bool:
        """Whether runs of a graph can be executed here."""
        return graph_id in self._graphs

    def execution(self, run_id: str) -> Execution | None:
        """The execution of a run, if it goes on in this process."""
        return self._executions.get(run_id)

    def stop_thread(self, thread_id: str) -> None:
        """End the executions on a thread that is no more."""
        for execution in list(self._executions.values()):
            if execution.claim.thread_id == thread_id:
                execution.stop("delete")
        self._look_if_claiming()

    # -- claiming --------------------------------------------------------------------------

    async def _claim_forever(self) -> None:
        while True:
            await self._woken.wait()
            self._woken.clear()
            try:
                async with self._books:
                    if self._stopped_wait:
                        self._stopped_wait = False
                        await self._claim(queries.CLAIM_STOPPED, ANY_NUMBER)
                    free = self.slots - len(self._executions)
                    self._more_wait = free <= 0 or (await self._claim(queries.CLAIM, free) == free)
                    self._claim_more()  # some have ended meanwhile
            except Exception as error:
                logger.error("runs could not be claimed", exc_info=error)
                self.wake_for_stopped()
                await asyncio.sleep(RETRY_SECONDS)

    async def _sweep_forever(self) -> None:
        """The safety net: runs whose worker is dead, and runs that nobody was woken for."""
        while True:
            self._look_now.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(SWEEP_SECONDS):
                    await self._look_now.wait()
            try:
                await self._take_up_lost(now_us())
                await self._stop_stopped()
                due = {"now": now_us()}
                if await self._rooms.database.read_one(queries.ANY_DUE, due) is not None:
                    self.wake()
            except Exception as error:
                logger.error("the queue could not be swept", exc_info=error)

    async def _stop_stopped(self) -> None:
        """Stop runs that were to be stopped, and for which no signal came; and deleted ones."""
        if self._rooms.events.relay is None:
            return
        async with self._books:  # no run is claimed and not yet known here
            known = {
                row["run_id"]: row["stop"]
                for row in await self._rooms.database.read_all(
                    queries.OWN_RUNS, {"owner": self._lease.owner}
                )
            }
            for run_id, execution in list(self._executions.items()):
                if run_id not in known:
                    execution.stop("delete")
                elif (how := known[run_id]) is not None:
                    execution.stop(how)
        own = {"owner": self._lease.owner}
        for row in await self._rooms.database.read_all(queries.LEAVING, own):
            if row["thread_id"] not in self._on_thread:
                self._has_left(row["thread_id"])

        async def forget(transaction: Transaction) -> None:
            await transaction.send(queries.FORGET_LEAVING)

        await self._rooms.database.write(forget)

    async def _take_up_lost(self, now: int) -> None:
        """Declare workers dead whose lease ended before ``now``: they end if they still live.

        Put back into the queue what they were executing, and what this worker owns and does not
        execute: the database cut it off, perhaps as it was claimed. That does not count as a try.
        """
        database, owner = self._rooms.database, self._lease.owner
        settled = self._has_settled()
        async with self._books:
            lost = [
                row
                for row in await database.read_all(queries.RUNNING, {"now": now})
                if (
                    row["run_id"] not in self._executions
                    if row["owner"] == owner
                    else row["late"] and settled
                )
            ]
            params = {"owner": owner, "now": now}
            if not lost and (
                not settled or await database.read_one(queries.LATE_WORKER, params) is None
            ):
                return

            async def take_up(transaction: Transaction) -> int:
                if settled:
                    await transaction.execute(queries.FORGET_LATE_WORKERS, params)
                taken = 0
                for row in lost:
                    run_id: str = row["run_id"]
                    innocent = int(row["owner"] == owner and run_id not in self._failed)
                    run = {"run_id": run_id, "owner": owner, "innocent": innocent}
                    taken += await transaction.execute(queries.TAKE_UP_RUN, run)
                return taken

            taken = await database.write(take_up)
        if taken:
            self._rooms.figures.taken_up += taken
            logger.warning("runs whose worker was lost go on", runs=taken)
            self.wake()
            if self._rooms.signals is not None:
                self._rooms.signals.tell_now("runs")

    def _claim_more(self) -> None:
        """Look for the runs that wait for free slots: for several at a time, or in a moment."""
        free = self.slots - len(self._executions)
        if not self._more_wait or free <= 0:
            return
        if free * CLAIMS_A_ROUND >= self.slots:
            self._woken.set()
        elif self._soon is None:
            self._soon = asyncio.get_running_loop().call_later(CLAIM_SECONDS, self._claim_now)

    def _claim_now(self) -> None:
        self._soon = None
        self._woken.set()

    def _has_settled(self) -> bool:
        """Whether the database has been there for so long that who has no lease is dead."""
        if self._rooms.signals is None or self._rooms.signals.is_alone:
            return True
        since = max(self._in_touch_since, self._lease.in_touch_since)
        return time.monotonic() - since >= SETTLE_SECONDS

    async def _claim(self, which: str, limit: int) -> int:
        """Claim runs, and start them; how many there were."""
        params: dict[str, Any] = {"now": now_us(), "owner": self._lease.owner, "limit": limit}
        if self._rooms.events.relay is not None:
            condition, graphs = self._rooms.database.dialect.any_of(
                "r.graph_id", sorted(self._graphs), "graph"
            )
            which, params = which.replace(queries.ANY_GRAPH, f"AND {condition}"), params | graphs

        async def claim(transaction: Transaction) -> Sequence[Row]:
            return await transaction.fetch_all(which, params)

        rows = await self._rooms.database.write(claim)
        for row in sorted(rows, key=lambda row: (row["created_at"], row["seq"])):
            self._start(row)
        return len(rows)

    def _start(self, row: Row) -> None:
        execution = Execution(row, self._rooms)
        self._executions[execution.claim.run_id] = execution
        self._failed.discard(execution.claim.run_id)
        if row["attempt"] == 1:
            waited = (row["started_at"] - row["created_at"]) / SECOND_US
            self._rooms.figures.count_started(execution.claim.graph_id, waited)
        # A run that was ended may still be on its way out of a node: the next one waits.
        thread_id = execution.claim.thread_id
        task = execution.start(before=self._on_thread.get(thread_id))
        self._on_thread[thread_id] = execution
        self._tasks.add(task)
        task.add_done_callback(lambda task: self._ended(execution, task))

    def _ended(self, execution: Execution, task: asyncio.Task[None]) -> None:
        del self._executions[execution.claim.run_id]
        self._tasks.discard(task)
        if execution.is_over:
            self._over(execution)
        else:
            leaving = asyncio.create_task(execution.over())
            self._leaving.add(leaving)
            leaving.add_done_callback(self._leaving.discard)
            leaving.add_done_callback(lambda _: self._over(execution))
        if not task.cancelled() and (error := task.exception()) is not None:
            logger.error(
                "a run's end could not be written", run_id=execution.claim.run_id, exc_info=error
            )
            if isinstance(error, Unavailable):
                self._look_now.set()
            else:
                self._failed.add(execution.claim.run_id)
        elif execution.was_lost:
            self._look_now.set()
        if execution.thread_waits:
            self._woken.set()
        self._claim_more()
        if execution.thread_waits and self._rooms.signals is not None:
            self._rooms.signals.tell_now("runs")  # perhaps of a graph that is served elsewhere

    def _over(self, execution: Execution) -> None:
        if self._on_thread.get(execution.claim.thread_id) is execution:
            del self._on_thread[execution.claim.thread_id]
        if execution.may_linger and self._rooms.events.relay is not None:
            self._has_left(execution.claim.thread_id)

    def _has_left(self, thread_id: str) -> None:
        """Tell other workers that nothing is at work here any more on a thread."""
        params = {"thread_id": thread_id, "owner": self._lease.owner}

        async def note(transaction: Transaction) -> None:
            if await transaction.execute(queries.HAS_LEFT, params):
                self._rooms.tell(transaction, "runs")

        def failed(error: Exception) -> None:
            logger.warning("a thread is still kept for a run that is over", error=repr(error))

        self._rooms.database.write_soon(note, failed)
        self._rooms.database.hurry()


async def _make_due(transaction: Transaction) -> None:
    await transaction.execute(queries.MAKE_DUE, {"now": now_us()})
