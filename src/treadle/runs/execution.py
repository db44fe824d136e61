"""The execution of one claimed run: it is started, perhaps stopped, and its end is written once.

Invariants: everything that is written for it (checkpoints, the end) is refused by the database
once the run belongs to another attempt; the end's entry is appended to the thread's log after
the end is durable, so whoever reads it finds the run and its thread settled.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import structlog

from treadle.clock import SECOND_US, now_us
from treadle.database import Body, Row, Transaction
from treadle.errors import Unavailable
from treadle.log_context import LOG_CONTEXT
from treadle.runs import queries
from treadle.runs.driving import Claim, Drive
from treadle.runs.loops import LoopPool
from treadle.runs.merging import NAMES_THREAD, ORIGIN
from treadle.runs.outcome import END, EVENT, GONE, GONE_KIND, Outcome
from treadle.serialization import dump_text, dumps, error_object, loads
from treadle.streaming import queries as event_queries
from treadle.streaming.entries import Entry
from treadle.streaming.protocol.envelope import Emission, lifecycle

if TYPE_CHECKING:
    from treadle.runs.rooms import Rooms

logger = structlog.get_logger("treadle.runs")

CANCELLED = "UserInterrupt", "interrupt requested via POST /threads/{}/runs/{}/cancel"
Error = dict[str, str] | None

END_TRIES = 3
ABANDON_SECONDS = 0.1
"""How long a stopped graph on a loop of its own may take to end, before it is left behind."""


class _Stopped(Exception):
    """The run was told to end otherwise while it ended: that counts."""


class _Unsaved(Exception):
    """What the run has told is still to be saved, since a commit of it failed: that comes first."""


class Execution:
    """One attempt at one run. ``thread_waits`` tells at the end whether more runs wait for it."""

    def __init__(self, row: Row, rooms: Rooms) -> None:
        self.claim = Claim(row)
        self.thread_waits = False
        self._rooms = rooms
        self._log = rooms.events.log(self.claim.thread_id)
        self._drive = Drive(
            self.claim,
            rooms,
            self._emit,
            self._send,
            lambda: self._log.watched > 0,
            self._is_told,
        )
        self._announced = False
        self._drive.stopped = row["stop"]
        self._task: asyncio.Task[None] | None = None
        self._loop = asyncio.get_running_loop()
        self._told_to_stop = self._loop.create_future()
        self._before: Execution | None = None
        self._left_behind: asyncio.Future[None] | None = None
        self._is_watched = False
        self._calls_out = False
        self._ended_in = "lost"
        self.may_linger = False
        """Whether other processes know that its graph may be at work after the run is over."""

    # -- from outside ----------------------------------------------------------------------

    def start(self, before: Execution | None = None) -> asyncio.Task[None]:
        """Begin, once the one ``before`` on the thread is over, or to end at once if stopped.

        The task ends when the run's end is announced.
        """
        self._before = before
        self._log = self._rooms.events.log(self.claim.thread_id)
        self._log.hold()
        if (relay := self._rooms.events.relay) is not None:
            self._forwarding = relay.begin(self._log, self.claim.row, self.claim.resumable)
        self._task = asyncio.create_task(self._perform(), name=f"run {self.claim.run_id}")
        self._task.add_done_callback(self._leave)
        return self._task

    def _leave(self, task: asyncio.Task[None]) -> None:
        if (relay := self._rooms.events.relay) is not None:
            relay.end(self._forwarding)
        self._log.release()

    def drain(self) -> None:
        """Hand the run back at its next superstep boundary, to be gone on with elsewhere.

        A stateless run has no checkpoint to go on from: it goes on here.
        """
        if not self.claim.temporary:
            self._drive.control.request_drain()

    def stop(self, how: str) -> None:
        """End the run from outside: interrupt, rollback, delete, timeout, hand_back or lose.

        The first call counts; nothing happens once the run is ending by itself. ``lose`` writes
        nothing: the run is another worker's.
        """
        drive = self._drive
        if drive.stopped is not None or drive.ending or self._task is None:
            return
        drive.stopped = how
        if drive.task is None:
            # It sees that when it begins: a task that is cancelled before never would.
            self._told_to_stop.set_result(None)
            return
        if self._rooms.loops is None:
            self._task.cancel()
        else:
            drive.task.get_loop().call_soon_threadsafe(drive.task.cancel)
            self._loop.call_later(ABANDON_SECONDS, self._abandon)

    def _abandon(self) -> None:
        """Leave a graph behind that blocks its loop: what it still writes is refused."""
        if not self._drive.ending and self._task is not None:
            self._task.cancel()

    # -- the course of a run ---------------------------------------------------------------

    @property
    def was_lost(self) -> bool:
        """Whether the run was left as it stood, for another attempt."""
        return self._drive.stopped == "lose"

    @property
    def is_over(self) -> bool:
        """Whether no graph is at work any more, of this execution and of those before it.

        A graph may be, after the run's end: one that blocks a loop of its own is left behind.
        """
        return (
            self._before is None
            and self._task is not None
            and self._task.done()
            and (self._left_behind is None or self._left_behind.done())
        )

    async def over(self) -> None:
        """Return once this ``is_over``."""
        if self._before is not None:
            await self._before.over()
            self._before = None
        if self._task is not None:
            await asyncio.wait([self._task])
        if self._left_behind is not None:
            await asyncio.wait([self._left_behind])

    async def _perform(self) -> None:
        names = self.claim.names()
        LOG_CONTEXT.set(names)
        if (telemetry := self._rooms.telemetry) is None:
            await self._go()
            return
        origin = self.claim.kwargs["config"]["configurable"].get(ORIGIN)
        trace = telemetry.start_run(names, origin)
        self._drive.callbacks.append(trace.handler)
        try:
            await self._go()
        finally:
            trace.end(self._ended_in, self._drive.failure)

    async def _go(self) -> None:
        claim = self.claim
        if self._before is not None and self._drive.stopped is None:
            over = asyncio.create_task(self._before.over())
            await asyncio.wait([over, self._told_to_stop], return_when="FIRST_COMPLETED")
            if over.done():
                self._before = None
            over.cancel()
        timer = self._loop.call_later(
            self._rooms.settings.bg_job_timeout_secs, self.stop, "timeout"
        )
        try:
            if (relay := self._rooms.events.relay) is not None:
                await relay.catch_up(self._log, claim.row)
            begun = dumps({"run_id": claim.run_id, "attempt": claim.tries})
            self._append(Emission("metadata", begun))
            await self._announce_if_wanted()
            if NAMES_THREAD in claim.kwargs["config"]["configurable"]:
                await self._rooms.database.write(self._name_thread, claim.thread_id)
            if self._rooms.loops is None:
                await self._drive.run()
            else:
                await self._drive_elsewhere(self._rooms.loops)
            await self._end()
        finally:
            timer.cancel()

    async def _name_thread(self, transaction: Transaction) -> None:
        """Let the thread say whose graph runs on it now."""
        claim = self.claim
        params: dict[str, Any] = {
            "run_id": claim.run_id, "attempt": claim.attempt, "thread_id": claim.thread_id
        }  # fmt: skip
        await transaction.send(queries.LOCK_THREAD, params)
        if await transaction.fetch_one(queries.OWNED, params) is None:
            return
        thread = await transaction.fetch_one(queries.THREAD_FOR_RUN, params)
        assert thread is not None
        names = {"graph_id": claim.graph_id, "assistant_id": claim.row["assistant_id"]}
        metadata = dump_text({**loads(thread["metadata"]), **names})
        await transaction.send(queries.NAME_THREAD, {**params, "metadata": metadata})

    async def _drive_elsewhere(self, loops: LoopPool) -> None:
        """Drive the graph on a loop of its own, so that it may block."""
        driven = asyncio.wrap_future(loops.run(self._drive.run()))
        try:
            await asyncio.shield(driven)
        except asyncio.CancelledError as error:
            if self._drive.stopped is None:
                raise
            driven.add_done_callback(lambda done: done.cancelled() or done.exception())
            self._left_behind = driven
            self._drive.abandon(error)

    def _emit(self, emission: Emission) -> None:
        """An event of the graph, from whichever loop it is driven on."""
        if self._rooms.loops is None:
            self._append(emission)
        else:
            self._loop.call_soon_threadsafe(self._append, emission)

    def _send(self, name: str, data: bytes) -> None:
        """An event that protocol v2 has no use for: the way of every token, so a short one."""
        if self._rooms.loops is None and self._left_behind is None:
            claim = self.claim
            self._log.append(claim.run_id, EVENT, name, data, claim.resumable, claim.attempt)
        else:
            self._emit(Emission(name, data))

    def _append(self, emission: Emission) -> Entry | None:
        """The entry of an event; None if the run has ended without it."""
        if self._left_behind is not None:
            return None
        claim = self.claim
        return self._log.append(
            claim.run_id,
            emission.kind,
            emission.name,
            emission.data,
            keep=claim.resumable,
            attempt=claim.attempt,
            last=emission.urgent,
            numbered=emission.numbered,
            label=emission.label,
            params=emission.params,
        )

    # -- protocol v2 -----------------------------------------------------------------------

    def _is_told(self) -> bool:
        """Whether events of protocol v2 are wanted: for replay, or by somebody now."""
        return self.claim.resumable or self._log.numbered_watched > 0

    async def _announce_if_wanted(self) -> None:
        """Tell that the run begins: now, or as soon as somebody comes who wants to know."""
        claim = self.claim
        if claim.resumable and claim.attempt > 1:
            # What an earlier attempt has told need not be told again.
            told = event_queries.IS_TOLD
            row = await self._rooms.database.read_one(told, {"run_id": claim.run_id})
            self._announced = row is not None
        if self._is_told():
            self._announce()
        if not claim.resumable:
            self._log.on_numbered_reader = self._announce

    def _announce(self) -> None:
        if not self._announced:
            self._announced = True
            entry = self._append(lifecycle("running", self.claim.graph_id))
            if not self.claim.resumable:
                self._log.in_flight = entry

    def _last_words(self, status: str, error: Error) -> list[Entry]:
        """What becomes of the run, for readers of protocol v2."""
        if not (self._announced or self._is_told()):
            return []
        claim, drive = self.claim, self._drive
        event, text = "completed", None
        if status in ("error", "timeout"):
            event, text = "failed", error["message"] if error else None
        elif drive.stopped is not None or drive.asks:
            event = "interrupted"
        told = [*drive.requests()] if status == "success" and event == "interrupted" else []
        told += [*drive.children_left(event, text), lifecycle(event, claim.graph_id, text)]
        return [self._numbered(emission) for emission in told]

    def _numbered(self, emission: Emission) -> Entry:
        return self._log.entry(
            self.claim.run_id,
            emission.kind,
            emission.name,
            emission.data,
            numbered=True,
            label=emission.label,
        )

    # -- the end ---------------------------------------------------------------------------

    async def _end(self) -> None:
        claim, stopped = self.claim, self._drive.stopped
        if stopped == "lose":
            return
        if stopped == "hand_back":
            self._ended_in = "handed back"
            self._send_on()
            await self._rooms.database.write(self._hand_back, claim.thread_id)
            return
        status, thread_status, error = self._verdict()
        self._send_on()
        after = self._log.handed_id
        told = self._told_last(status, error)
        try:
            thread = await self._surely(
                lambda transaction: self._write_end(
                    transaction, status, thread_status, error, told, after
                )
            )
        except _Stopped as stop:
            self._drive.stopped = str(stop)
            await self._end()
            return
        while self._log.waiting:  # its commit was unclear: readers hear of that first
            await self._flush()
        if stopped == "rollback" or self._drive.input_refused:
            await self._forget_run()
        if thread is None:
            self.may_linger = True
            self._log.append(claim.run_id, GONE_KIND, "error", dumps(GONE), last=True)
            return
        self._ended_in = status
        seconds = (now_us() - claim.row["started_at"]) / SECOND_US
        self._rooms.figures.count_ended(claim.graph_id, status, seconds)
        self.thread_waits = thread["status"] == "busy"
        self._log.on_numbered_reader = self._log.in_flight = None
        for entry in told:
            self._log.publish(entry, last=True, forwarded=True)
        if self._calls_out:
            self._rooms.webhooks.wake()

    async def _surely(self, end: Body[Row | None]) -> Row | None:
        """Write the run's end; again if the database was lost, unless it has been written."""
        database, claim = self._rooms.database, self.claim
        own = {"run_id": claim.run_id, "attempt": claim.attempt}
        tries = 0
        while True:
            try:
                if tries and await database.read_one(queries.UNENDED, own) is None:
                    row = await database.read_one(queries.ENDED, own)
                    return {"status": "gone"} if row is None and claim.temporary else row
                return await database.write(end, claim.thread_id)
            except _Unsaved:
                await self._flush()
            except Unavailable as error:
                tries += 1
                logger.warning("a run's end is written again", **own, error=str(error))
                if tries == END_TRIES:
                    raise

    async def _flush(self) -> None:
        """Wait until what is being written was written, or could not be."""
        with contextlib.suppress(Unavailable):
            await self._rooms.database.flush()
        await asyncio.sleep(0)  # what was written is told on the next turn

    async def _forget_run(self) -> None:
        """Remove what the run has kept outside of the database, if it can be."""
        try:
            await self._rooms.forget_runs([self.claim.run_id])
        except Exception as error:
            self._rooms.log_failure(self.claim, error)

    def _told_last(self, status: str, error: Error) -> list[Entry]:
        """What the readers of the run hear at its end."""
        run_id, outcome = self.claim.run_id, Outcome(status, self._drive.output, error)
        failed = error is not None and status == "error"
        told = [self._log.entry(run_id, EVENT, "error", dumps(error))] if failed else []
        told += self._last_words(status, error)
        done = dumps({"status": "run_done", "run_id": run_id})
        return [*told, self._log.entry(run_id, END, "metadata", done, outcome)]

    async def _hand_back(self, transaction: Transaction) -> None:
        params = {"run_id": self.claim.run_id, "attempt": self.claim.attempt}
        if await transaction.execute(queries.HAND_BACK, params):
            # What it has told so far is no later than this: see LAST_EVENT_ID.
            thread = {"thread_id": self.claim.thread_id, "now": now_us()}
            await transaction.execute(queries.TOUCH_THREAD, thread)
        if (relay := self._rooms.events.relay) is not None:
            await relay.hand_back_in(transaction, self._log)
            self._rooms.tell(transaction, "runs")

    def _send_on(self) -> None:
        """Let other processes have what there is, before what is written next."""
        if (relay := self._rooms.events.relay) is not None:
            relay.flush()

    async def _write_end(
        self,
        transaction: Transaction,
        status: str,
        thread_status: str,
        error: Error,
        told: Sequence[Entry],
        after: int,
    ) -> Row | None:
        """See ``_settle_in``. Those who watch elsewhere hear of it with the commit."""
        if self._log.unsaved:
            raise _Unsaved
        self._is_watched = self._calls_out = False
        row = await self._settle_in(transaction, status, thread_status, error, told)
        if row is not None:
            await self._put_notifications(transaction)
        if row is not None and self._is_watched:
            relay, claim = self._rooms.events.relay, self.claim
            assert relay is not None
            await relay.end_in(transaction, claim.thread_id, told, after, claim.resumable)
        return row

    async def _settle_in(
        self,
        transaction: Transaction,
        status: str,
        thread_status: str,
        error: Error,
        told: Sequence[Entry],
    ) -> Row | None:
        """End the run and settle its thread; the thread's row, None if the run has moved on.

        ``told`` is kept in the same transaction: no crash comes between an end and its event.
        Of a run that is rolled back only its end is kept, for those who saw it begin.
        """
        claim, summary, events = self.claim, self._drive.summary, self._rooms.events
        now = now_us()
        params = {
            "run_id": claim.run_id,
            "thread_id": claim.thread_id,
            "attempt": claim.attempt,
            "now": now,
            "error": dump_text(error) if error else None,
            "keep": summary is None,
            "state_values": summary.values if summary else None,
            "interrupts": summary.interrupts if summary else None,
            "process": self._rooms.me,
            "last_event_id": told[-1].id,
        }
        await transaction.send(queries.LOCK_THREAD, params)
        owned = await transaction.fetch_one(queries.OWNED_TO_END, params)
        if owned is None:
            return None
        if self._rooms.events.relay is not None:
            self._is_watched = owned["watched"]
        if owned["stop"] not in (None, self._drive.stopped):
            raise _Stopped(owned["stop"])
        await transaction.send(queries.END_RUN, {**params, "status": status})
        if self._left_behind is not None and self._rooms.events.relay is not None:
            self.may_linger = True
            leaves = {"thread_id": claim.thread_id, "owner": claim.row["owner"]}
            await transaction.send(queries.LEAVES, leaves)
        if claim.kwargs["webhook"]:
            await self._put_webhook(transaction, status, error, now)
            self._will_call_out(transaction)
        if claim.temporary:
            await events.keep_in(transaction, claim.thread_id, told, keep=False)
            gone = await self._rooms.delete_temporary(transaction, claim.thread_id, claim.run_id)
            if gone:
                return {"status": "gone"}
            return await transaction.fetch_one(queries.THREAD_AS_BEFORE, params)
        if self._drive.stopped == "rollback":
            await self._rooms.delete_run(transaction, claim.thread_id, claim.run_id)
            end = [entry for entry in told if entry.seq is not None]
            await events.keep_in(transaction, claim.thread_id, end, keep=claim.resumable)
            return await transaction.fetch_one(queries.THREAD_AS_BEFORE, params)
        await events.keep_in(transaction, claim.thread_id, told, keep=claim.resumable)
        if self._drive.untouched:
            return await transaction.fetch_one(queries.THREAD_AS_BEFORE, params)
        if self._drive.input_refused:
            await self._rooms.delete_checkpoints(transaction, claim.run_id)
        settled = {**params, "status": thread_status}
        return await transaction.fetch_one(queries.THREAD_AFTER_RUN, settled)

    def _will_call_out(self, transaction: Transaction) -> None:
        """The transaction puts something into the outbox."""
        self._calls_out = True
        if not self._rooms.webhooks.is_open:
            self._rooms.tell(transaction, "webhooks")

    async def _put_notifications(self, transaction: Transaction) -> None:
        """Tell those who want to hear of the task that the run is of, if it is an agent's."""
        claim, tell_in = self.claim, self._rooms.tell_end_in
        if tell_in is None or "a2a" not in claim.kwargs["config"]["metadata"]:
            return
        if await tell_in(transaction, claim.thread_id, claim.run_id):
            self._will_call_out(transaction)

    async def _put_webhook(
        self, transaction: Transaction, status: str, error: Error, ended_us: int
    ) -> None:
        drive = self._drive
        if drive.stopped == "rollback":
            status, values = "rollback", None
        else:
            values = drive.summary.values if drive.summary is not None else drive.output
        await self._rooms.webhooks.put(
            transaction,
            self.claim.row,
            self.claim.kwargs["webhook"],
            status=status,
            values=values,
            error=error,
            ended_us=ended_us,
        )

    def _verdict(self) -> tuple[str, str, Error]:
        """The run's status, the thread's, and the error of both."""
        claim, drive = self.claim, self._drive
        if drive.stopped == "timeout":
            seconds = self._rooms.settings.bg_job_timeout_secs
            message = f"The run took longer than {seconds:g} s (BG_JOB_TIMEOUT_SECS)"
            return "timeout", "error", {"error": "TimeoutError", "message": message}
        if drive.stopped is not None:
            kind, message = CANCELLED
            text = message.format(claim.thread_id, claim.run_id)
            return "interrupted", "interrupted", {"error": kind, "message": text}
        if drive.failure is not None:
            self._rooms.log_failure(claim, drive.failure)
            return "error", "error", error_object(drive.failure)
        return "success", drive.summary.status if drive.summary else "idle", None
