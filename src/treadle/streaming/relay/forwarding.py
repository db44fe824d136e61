"""The side that executes: the events of its runs go to the processes that watch their threads."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Sequence

import structlog

from treadle.cluster.signals import Signals
from treadle.database import Database, Row, Transaction
from treadle.streaming.entries import Entry
from treadle.streaming.log import BURST_SECONDS, ThreadLog
from treadle.streaming.relay import queries
from treadle.streaming.relay.batches import (
    END,
    EVENTS,
    NUMBERED,
    Chunk,
    Sent,
    pack,
    sent,
    sent_all,
)
from treadle.streaming.relay.relays import DatabaseRelay, Relay

logger = structlog.get_logger("treadle.relay")

CHUNK_ENTRIES = 500
LOOK_SECONDS = 20.0
EARLY_SECONDS = 10.0


class Forwarding:
    """A thread on which this process executes a run, and who watches it elsewhere."""

    def __init__(self, forwarder: Forwarder, log: ThreadLog, kept: bool) -> None:
        self.log, self.kept = log, kept
        self.targets: dict[str, int] = {}
        self._forwarder = forwarder
        self._told_begun: Entry | None = None

    def __call__(self, entry: Entry, after: int) -> None:
        """Send an entry that was published; ``after`` is the id of the one before."""
        for target, wants in self.targets.items():
            if wants & (EVENTS | NUMBERED):
                self._forwarder.put(target, self, entry, after)

    def begun(self, again: bool = False) -> Sent | None:
        """The beginning of the run, where that is not kept, if others do not know it yet."""
        entry = self.log.in_flight
        if entry is None or not entry.seq or (entry is self._told_begun and not again):
            return None
        self._told_begun = entry
        return sent(entry)

    def add(self, target: str, wants: int) -> None:
        self.targets[target] = self.targets.get(target, 0) | wants
        self._update()

    def set(self, targets: dict[str, int]) -> None:
        self.targets = targets
        self._update()

    def _update(self) -> None:
        wants = 0
        for one in self.targets.values():
            wants |= one
        self.log.forward = self if wants & ~END else None
        self.log.watch_elsewhere(bool(wants & EVENTS), bool(wants & NUMBERED))

    def end(self) -> None:
        self.set({})


class Forwarder:
    """Sends the events of the runs that this process executes to those who watch.

    It sends at once after a pause, and several events at a time in a burst.
    """

    def __init__(
        self, database: Database, signals: Signals, relay: Relay, ends: DatabaseRelay
    ) -> None:
        self._database, self._signals, self._relay, self._ends = database, signals, relay, ends
        self._forwardings: dict[str, Forwarding] = {}
        self._early: dict[str, tuple[float, str, int]] = {}
        self._outbox: dict[str, list[Chunk]] = {}
        self._when_durable = False
        self._due: asyncio.TimerHandle | asyncio.Handle | None = None
        self._sent_at = 0.0
        self._task: asyncio.Task[None] | None = None
        signals.on("watch", self._watch)
        signals.on("unwatch", self._unwatch)
        signals.on_missed(self._look_soon)
        self._look_now = asyncio.Event()

    def open(self) -> None:
        self._task = asyncio.create_task(self._look_forever(), name="forwarder")

    async def close(self) -> None:
        self.flush()
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
            self._task = None

    # -- runs ------------------------------------------------------------------------------

    def begin(self, log: ThreadLog, row: Row, kept: bool) -> Forwarding:
        """A run that was claimed with ``row`` begins. ``kept``: so are its events."""
        forwarding = self._forwardings[log.thread_id] = Forwarding(self, log, kept)
        if row["watchers"]:
            for watcher in row["watchers"].split(","):
                process, wants = watcher.split(" ")
                if process != self._signals.me:
                    forwarding.targets[process] = int(wants)
            forwarding.set(forwarding.targets)
        early = self._early.pop(log.thread_id, None)
        if early is not None and time.monotonic() - early[0] < EARLY_SECONDS:
            self._watch(log.thread_id, early[1], str(early[2]))
        return forwarding

    def end(self, forwarding: Forwarding) -> None:
        """A run that has begun is over."""
        thread_id = forwarding.log.thread_id
        if self._forwardings.get(thread_id) is forwarding:
            del self._forwardings[thread_id]
            forwarding.end()

    def executes(self, thread_id: str) -> bool:
        """Whether a run is executed here on a thread."""
        return thread_id in self._forwardings

    async def end_in(
        self,
        transaction: Transaction,
        thread_id: str,
        entries: Sequence[Entry],
        after: int,
        kept: bool,
    ) -> None:
        """Send the last events of a run, within the transaction that ends it."""
        chunk = Chunk(thread_id, after, sent_all(entries), kept, is_end=True)
        await self._ends.send_in(transaction, thread_id, pack([chunk]))

    async def tell_in(self, transaction: Transaction, thread_id: str, entry: Entry) -> None:
        """Tell all that watch a thread something that has no place in the order of events."""
        chunk = Chunk(thread_id, 0, [sent(entry)], aside=True)
        await self._ends.send_in(transaction, thread_id, pack([chunk]))

    def send_to_executor(self, process: str, thread_id: str, entry: Entry) -> None:
        """Let the process that executes a run append an entry."""
        chunk = Chunk(thread_id, 0, [sent(entry)], for_executor=True)
        self._ends.send([(process, pack([chunk]))])

    # -- sending ---------------------------------------------------------------------------

    def put(self, target: str, forwarding: Forwarding, entry: Entry, after: int) -> None:
        chunks = self._outbox.setdefault(target, [])
        thread_id = forwarding.log.thread_id
        if chunks and chunks[-1].thread_id == thread_id and len(chunks[-1].entries) < CHUNK_ENTRIES:
            chunks[-1].entries.append(sent(entry))
        else:
            begun = forwarding.begun()
            chunks.append(Chunk(thread_id, after, [sent(entry)], forwarding.kept, in_flight=begun))
        if self._due is None:
            loop = asyncio.get_running_loop()
            pause = loop.time() - self._sent_at
            if pause >= BURST_SECONDS:
                self._due = loop.call_soon(self.flush)
            else:
                self._due = loop.call_later(BURST_SECONDS - pause, self.flush)

    def flush(self) -> None:
        """Send what there is."""
        if self._due is not None:
            self._due.cancel()
            self._due = None
        if not self._outbox:
            return
        self._sent_at = asyncio.get_running_loop().time()
        # Who has heard of a kept event may ask anybody to replay it, or what came before.
        when_durable = self._when_durable or any(
            chunk.kept for chunks in self._outbox.values() for chunk in chunks
        )
        batches = [(target, pack(chunks)) for target, chunks in self._outbox.items()]
        self._outbox, self._when_durable = {}, False
        self._relay.send(batches, when_durable=when_durable)

    # -- who watches -----------------------------------------------------------------------

    def _watch(self, thread_id: str, process: str, wants: str) -> None:
        """Another process wants events of a thread, and to hear from where on it gets them."""
        forwarding = self._forwardings.get(thread_id)
        if forwarding is None:
            # Perhaps a run was claimed just now, and this process does not know it yet.
            self._forget_early()
            self._early[thread_id] = time.monotonic(), process, int(wants)
            return
        forwarding.add(process, int(wants))
        log = forwarding.log
        chunks = self._outbox.setdefault(process, [])
        begun = forwarding.begun(again=True)
        chunks.append(Chunk(thread_id, log.told_id, [], forwarding.kept, in_flight=begun))
        self._when_durable = True  # what comes before can be replayed then
        self.flush()

    def _unwatch(self, thread_id: str, process: str) -> None:
        forwarding = self._forwardings.get(thread_id)
        if forwarding is not None and process in forwarding.targets:
            del forwarding.targets[process]
            forwarding.set(forwarding.targets)

    def _forget_early(self) -> None:
        limit = time.monotonic() - EARLY_SECONDS
        for thread_id in [key for key, (at, *_) in self._early.items() if at < limit]:
            del self._early[thread_id]

    def _look_soon(self) -> None:
        self._look_now.set()

    async def _look_forever(self) -> None:
        """The safety net: who watches, as the database has it."""
        while True:
            missed = True
            try:
                async with asyncio.timeout(LOOK_SECONDS):
                    await self._look_now.wait()
            except TimeoutError:
                missed = False
            self._look_now.clear()
            try:
                await self._look(list(self._forwardings), missed)
            except Exception as error:
                logger.warning("who watches could not be read", error=repr(error))

    async def _look(self, thread_ids: Iterable[str], missed: bool) -> None:
        """Note who watches. After signals were ``missed``, some may be about to say so again."""
        for thread_id in thread_ids:
            params = {"thread_id": thread_id, "process": self._signals.me}
            rows = await self._database.read_all(queries.WATCHERS, params)
            forwarding = self._forwardings.get(thread_id)
            if forwarding is None:
                continue
            found = {row["process"]: row["wants"] for row in rows}
            for process in found.keys() - forwarding.targets.keys():
                self._watch(thread_id, process, str(found[process]))
            forwarding.set({**forwarding.targets, **found} if missed else found)
