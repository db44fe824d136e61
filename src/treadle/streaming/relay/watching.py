"""The side that has readers: says what it wants to hear of, and puts in order what it hears.

What is heard of a thread is published in its log here, as if the run were executed here: with the
same ids, each event once. A piece that follows on something that was not heard waits for a
moment, since it may have overtaken it; then the gap is filled with what is kept.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Any

import structlog

from treadle.cluster.run_rows import is_kept, process_of
from treadle.cluster.signals import Signals
from treadle.database import Database, Row, Transaction
from treadle.streaming.entries import Entry
from treadle.streaming.log import ThreadLog
from treadle.streaming.relay import queries
from treadle.streaming.relay.batches import EVENTS, NUMBERED, Chunk, Sent, unpack, wants_of

if TYPE_CHECKING:
    from treadle.streaming.log import EventHub

logger = structlog.get_logger("treadle.relay")

HOLD_SECONDS = 1.0
"""How long a piece waits for what it follows on."""
ARRIVE_SECONDS = 0.1
"""How long a run that begins waits for what was told before it, where that can be read too."""
HELLO_SECONDS = 1.0
"""How long a reader waits for word from the process that executes the thread's run."""
IDLE_SECONDS = 2.0
RENEW_SECONDS = 20.0
UNWATCH_SECONDS = 1.0

Unpack = Callable[[bytes], Any]
OutcomeOf = Callable[[str, str], Awaitable[Any]]
"""``outcome_of(thread_id, run_id)``: how a run has ended; None if it is not there."""


class Watch:
    """A thread of which this process wants to hear.

    ``is_live``: all events of it come here, so a gap can be told.
    """

    def __init__(self, log: ThreadLog) -> None:
        self.log = log
        self.wants = 0
        self.is_live = False
        self.lock = asyncio.Lock()
        self.heard = asyncio.Event()
        self.held: list[Chunk] = []
        self.mending: asyncio.Task[None] | None = None
        self.idle_since: float | None = None
        self.unwatched_at = 0.0
        log.hold()

    def lacks(self, chunk: Chunk) -> bool:
        """Whether something is missing before a piece."""
        if self.lacks_numbers(chunk):
            return True
        if self.is_live:
            return not chunk.aside and chunk.after > self.log.told_id
        return chunk.is_end

    def lacks_numbers(self, chunk: Chunk) -> bool:
        """Whether the numbers of a piece do not follow on what was told."""
        told = self.log.told_seq
        return (
            told > 0
            and self.log.numbered_watched > 0
            and next((one.seq for one in chunk.entries if one.seq), 0) > told + 1
        )

    @property
    def follows(self) -> bool:
        """Whether a reader here would miss an event."""
        return self.log.watched > 0 or self.log.numbered_watched > 0


class Watches:
    """All threads of which this process wants to hear.

    ``unpack`` reads the payload of an entry; ``outcome_of`` finds how a run ended, for those whose
    end was missed. ``append(thread_id, entry)`` puts an entry of another process into the log of
    a run that is executed here.
    """

    def __init__(
        self,
        hub: EventHub,
        database: Database,
        signals: Signals,
        unpack: Unpack,
        append: Callable[[str, Entry], None],
    ) -> None:
        self.outcome_of: OutcomeOf
        self._hub, self._database, self._signals = hub, database, signals
        self._unpack, self._append = unpack, append
        self._watches: dict[str, Watch] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._renew_now = asyncio.Event()
        signals.on_missed(self._renew_now.set)

    def open(self) -> None:
        self._begin(self._tidy_forever())
        self._begin(self._renew_forever())

    async def close(self) -> None:
        for task in list(self._tasks):
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)

        async def forget(transaction: Transaction) -> None:
            await transaction.send(queries.UNWATCH_ALL, {"process": self._signals.me})

        await self._database.write(forget)

    def _begin(self, work: Any) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    # -- wanting ---------------------------------------------------------------------------

    async def watch(self, log: ThreadLog, watches: bool, numbered: bool) -> None:
        """Hear of a thread from now on: what was told before is in the database by now.

        The log's ``told_id`` lies between the two.
        """
        wants = wants_of(watches, numbered)
        watch = self._watch(log)
        if watch.is_live and watch.wants & wants == wants:
            return
        async with watch.lock:
            if watch.is_live and watch.wants & wants == wants:
                return
            executor, last_id = await self._register(watch, wants)
            if numbered:
                log.told_seq = 0  # until the next one comes
            if not wants & (EVENTS | NUMBERED):
                return
            if executor is not None and executor != self._signals.me:
                await self._hear_from(watch, executor)
            if not watch.is_live:
                log.told_id = max(log.told_id, last_id)
                watch.is_live = True

    def expect(self, log: ThreadLog, watches: bool) -> bool:
        """A run is about to be created that is read here; whether ``watch_in`` is needed."""
        wants = wants_of(watches, False)
        return self._watch(log).wants & wants != wants

    async def watch_in(self, transaction: Transaction, thread_id: str, watches: bool) -> None:
        """Hear of the run that is created in this transaction, from its first event on."""
        params = {"thread_id": thread_id, "process": self._signals.me}
        await transaction.send(queries.WATCH, {**params, "wants": wants_of(watches, False)})

    def created(self, log: ThreadLog, watches: bool) -> None:
        """The transaction of ``watch_in`` is committed."""
        self._watch(log).wants |= wants_of(watches, False)

    def _watch(self, log: ThreadLog) -> Watch:
        watch = self._watches.get(log.thread_id)
        if watch is None:
            watch = self._watches[log.thread_id] = Watch(log)
        watch.idle_since = None
        return watch

    async def _register(self, watch: Watch, wants: int) -> tuple[str | None, int]:
        """Write down what is wanted; who executes a run there, and the last event of all."""
        thread_id = watch.log.thread_id
        watch.wants |= wants
        watch.heard.clear()

        async def register(transaction: Transaction) -> tuple[str | None, int]:
            thread = await transaction.fetch_one(queries.LOOK_AT_THREAD, {"thread_id": thread_id})
            params = {"thread_id": thread_id, "process": self._signals.me, "wants": watch.wants}
            await transaction.send(queries.WATCH, params)
            runs = await transaction.fetch_all(queries.LOOK_AT_RUNS, {"thread_id": thread_id})
            executor = None
            for run in runs:
                if run["status"] == "running":
                    executor = process_of(run["owner"])
            if executor is not None:
                words = thread_id, self._signals.me, str(watch.wants)
                self._signals.tell(transaction, "watch", *words, to=executor)
            elif runs:
                self._signals.tell(transaction, "runs")  # those locked here were passed over
            return executor, (thread["last_id"] if thread else 0) or 0

        return await self._database.write(register, thread_id)

    async def _hear_from(self, watch: Watch, executor: str) -> None:
        """Wait until the process that executes the run says from where on it sends events."""
        try:
            async with asyncio.timeout(HELLO_SECONDS):
                await watch.heard.wait()
        except TimeoutError:
            logger.warning("no word from the process that executes a run", process=executor)

    # -- hearing ---------------------------------------------------------------------------

    def receive(self, origin: str, data: bytes) -> None:
        """Take a batch of another process."""
        for chunk in unpack(data):
            try:
                self._take(origin, chunk)
            except Exception:
                logger.exception("events of another process could not be told")

    def _take(self, origin: str, chunk: Chunk) -> None:
        watch = self._watches.get(chunk.thread_id)
        if chunk.for_executor:
            for one in chunk.entries:
                self._append(chunk.thread_id, self._entry(one))
        elif watch is None:
            if not chunk.aside:
                self._signals.tell_now("unwatch", chunk.thread_id, self._signals.me, to=origin)
        elif watch.follows and watch.lacks(chunk):
            watch.held.append(chunk)
            watch.held.sort(key=_after)
            if watch.mending is None:
                watch.mending = self._begin(self._mend(watch))
        else:
            self._publish(watch, chunk)
            while watch.held and not watch.lacks(watch.held[0]):
                self._publish(watch, watch.held.pop(0))

    def _publish(self, watch: Watch, chunk: Chunk) -> None:
        log = watch.log
        if chunk.aside:
            for one in chunk.entries:
                log.publish_aside(self._entry(one))
            return
        if not watch.is_live and watch.wants & (EVENTS | NUMBERED):
            watch.is_live = True
            log.told_id = max(log.told_id, chunk.after)
        if chunk.in_flight is not None:
            log.in_flight = self._entry(chunk.in_flight)
        elif chunk.is_end:
            log.in_flight = None
        entries = [self._entry(one) for one in chunk.entries]
        for entry in entries:
            if entry.id > log.told_id:
                log.publish(entry, last=entry is entries[-1], forwarded=True)
            elif entry.payload is not None:  # an end that somebody may still wait for
                late = Entry(log.told_id, entry.run_id, entry.kind, "", b"", entry.payload)
                log.publish_aside(late)
        watch.heard.set()

    def _entry(self, one: Sent) -> Entry:
        payload = None if one.payload is None else self._unpack(one.payload)
        return Entry(
            one.id, one.run_id, one.kind, one.name, one.data, payload, one.seq, one.label,
            one.params,
        )  # fmt: skip

    # -- gaps ------------------------------------------------------------------------------

    async def _mend(self, watch: Watch) -> None:
        """Wait for what is missing; if it does not come, fill the gap with what is kept."""
        try:
            while watch.held:
                first = watch.held[0]
                await asyncio.sleep(HOLD_SECONDS)
                if watch.held and watch.held[0] is first:
                    if watch.is_live and first.after > watch.log.told_id:
                        await self._fill(watch, first.after, first.kept)
                    if watch.lacks_numbers(first):
                        await self._fill_numbers(watch, first)
                    watch.log.told_id = max(watch.log.told_id, first.after)
                    self._publish(watch, watch.held.pop(0))
                while watch.held and not watch.lacks(watch.held[0]):
                    self._publish(watch, watch.held.pop(0))
        except Exception:
            logger.exception("a stream could not be mended")
            watch.log.cut_off_readers()
        finally:
            watch.mending = None

    async def _fill(self, watch: Watch, until: int, kept: bool) -> None:
        """Publish the kept events up to ``until``; break off streams that have others too."""
        log = watch.log
        if not kept:
            logger.warning("events were missed: streams break off", thread_id=log.thread_id)
            log.cut_off_readers()
            return
        logger.info("events were missed: they are read again", thread_id=log.thread_id)
        while log.told_id < until:
            page = await self._hub.replay(log.thread_id, None, log.told_id, until)
            for entry in page:
                await self._complete(entry, log.thread_id)
                if entry.id > log.told_id:
                    log.publish(entry, last=True, forwarded=True)
            if not page:
                return

    async def _fill_numbers(self, watch: Watch, chunk: Chunk) -> None:
        """Publish the kept events with numbers up to those of a piece, or break streams off."""
        log = watch.log
        until = next(one.seq for one in chunk.entries if one.seq) - 1
        while log.told_seq < until:
            page = await self._hub.replay_numbered(log.thread_id, log.told_seq, until)
            if not page or page[0].seq != log.told_seq + 1:
                log.cut_off_readers()
                break
            for entry in page:
                log.publish_aside(entry)
        log.told_seq = until

    async def _complete(self, entry: Entry, thread_id: str) -> None:
        if entry.kind == "end" and entry.payload is None:
            entry.payload = await self.outcome_of(thread_id, entry.run_id)

    def is_behind(self, log: ThreadLog, last_id: int) -> bool:
        """Whether readers here have still to hear of events up to ``last_id``."""
        watch = self._watches.get(log.thread_id)
        return watch is not None and watch.is_live and watch.follows and log.told_id < last_id

    async def catch_up(self, log: ThreadLog, row: Row) -> None:
        """Publish what others have told of a thread, before the run of ``row`` begins here.

        It is on its way, or was lost on it.
        """
        watch, last_id = self._watches[log.thread_id], row["last_event_id"]
        try:
            before: Row | None = row
            if row["attempt"] == 1:
                params = {"thread_id": log.thread_id, "run_id": row["run_id"]}
                before = await self._database.read_one(queries.RUN_BEFORE, params)
            kept = before is not None and is_kept(before["kwargs"])
            await self._await(watch, last_id, ARRIVE_SECONDS if kept else HOLD_SECONDS)
            if log.told_id < last_id:
                await self._fill(watch, last_id, kept)
        except Exception as error:
            logger.warning("streams break off: they cannot be mended", error=repr(error))
            log.cut_off_readers()
        log.told_id = max(log.told_id, last_id)

    @staticmethod
    async def _await(watch: Watch, last_id: int, seconds: float) -> None:
        """Wait for what is told up to ``last_id``, but no longer than that."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while watch.log.told_id < last_id:
                    watch.heard.clear()
                    await watch.heard.wait()

    async def _begin_anew(self, watch: Watch) -> None:
        """What this process wanted was forgotten, and something may have been missed.

        If a run goes on elsewhere, its process says where it is, which tells the gap.
        """
        log = watch.log
        params = {"thread_id": log.thread_id}
        async with watch.lock:
            executor, last_id = await self._register(watch, watch.wants)
        silent = executor is None or executor == self._signals.me
        if silent and watch.is_live and watch.follows and last_id > log.told_id:
            row = await self._database.read_one(queries.LATEST_RUN, params)
            await self._fill(watch, last_id, row is not None and is_kept(row["kwargs"]))
            log.told_id = max(log.told_id, last_id)
        if await self._database.read_one(queries.THREAD_IS_THERE, params) is None:
            log.cut_off_readers(all=True)
            return
        for row in await self._database.read_all(queries.ENDED_RUNS, params):
            outcome = await self.outcome_of(log.thread_id, row["run_id"])
            log.publish_aside(Entry(log.told_id, row["run_id"], "end", "", b"", outcome))

    # -- the passing of time ---------------------------------------------------------------

    async def _tidy_forever(self) -> None:
        """Want no more what nobody here reads any more."""
        while True:
            await asyncio.sleep(UNWATCH_SECONDS)
            now = time.monotonic()
            over: list[Watch] = []
            for watch in self._watches.values():
                if watch.log.has_readers or watch.lock.locked() or watch.mending is not None:
                    watch.idle_since = None
                elif watch.idle_since is None:
                    watch.idle_since = now
                elif now - watch.idle_since >= IDLE_SECONDS:
                    over.append(watch)
            if over:
                self._unwatch(over)

    def _unwatch(self, over: Sequence[Watch]) -> None:
        for watch in over:
            del self._watches[watch.log.thread_id]
            watch.log.release()
        thread_ids = [watch.log.thread_id for watch in over]

        async def unwatch(transaction: Transaction) -> None:
            rows = [{"process": self._signals.me, "thread_id": one} for one in thread_ids]
            await transaction.execute_many(queries.UNWATCH, rows)

        self._database.write_soon(unwatch, _ignore)

    async def _renew_forever(self) -> None:
        while True:
            missed = self._renew_now.is_set()
            self._renew_now.clear()
            try:
                await self._renew()
            except Exception as error:
                logger.warning("what is watched could not be renewed", error=repr(error))
                if missed:
                    self._renew_now.set()
                await asyncio.sleep(1)
            try:
                async with asyncio.timeout(RENEW_SECONDS):
                    await self._renew_now.wait()
            except TimeoutError:
                pass

    async def _renew(self) -> None:
        """Say that this process lives, and look whether all that it wants is still known."""
        before = dict(self._watches)
        if not before:
            return
        since = {thread_id: watch.wants for thread_id, watch in before.items()}

        async def renew(transaction: Transaction) -> set[str]:
            params = {"process": self._signals.me}
            rows = await transaction.fetch_all(queries.RENEW_WATCHES, params)
            return {row["thread_id"] for row in rows}

        known = await self._database.write(renew)
        forgotten = [
            watch
            for thread_id, watch in before.items()
            if thread_id not in known and since[thread_id] and self._watches.get(thread_id) is watch
        ]
        if forgotten:
            logger.warning("threads are watched anew", threads=len(forgotten))
            await asyncio.gather(*(self._begin_anew(watch) for watch in forgotten))


def _after(chunk: Chunk) -> int:
    return chunk.after


def _ignore(error: Exception) -> None:
    logger.warning("a thread is still watched in vain", error=repr(error))
