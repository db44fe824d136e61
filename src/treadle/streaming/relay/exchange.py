"""Both sides of the relay, as the rooms of a process use it."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Sequence
from typing import Any

import structlog

from treadle.cluster.run_rows import process_of
from treadle.cluster.signals import Signals
from treadle.database import Database, Row, Transaction
from treadle.streaming.entries import ASIDE_BIT, COUNTER_BITS, Entry
from treadle.streaming.log import EventHub, ThreadLog
from treadle.streaming.relay import queries
from treadle.streaming.relay.batches import Chunk, pack, sent
from treadle.streaming.relay.forwarding import Forwarder, Forwarding
from treadle.streaming.relay.relays import DatabaseRelay, Relay
from treadle.streaming.relay.watching import OutcomeOf, Unpack, Watches

logger = structlog.get_logger("treadle.relay")


class Exchange:
    """What this process tells others of its threads, and hears of theirs.

    Events go through ``relay``, which falls back on ``ends``, the database's own way. The ends of
    runs always go there.
    """

    def __init__(
        self,
        hub: EventHub,
        database: Database,
        signals: Signals,
        ends: DatabaseRelay,
        relay: Relay | None,
        unpack: Unpack,
    ) -> None:
        self._hub, self._database, self._signals = hub, database, signals
        self._ends, self._relay = ends, relay
        self._forwarder = Forwarder(database, signals, relay or ends, ends)
        self._watches = Watches(hub, database, signals, unpack, self._append)
        self._tasks: set[asyncio.Task[None]] = set()

    async def open(self, outcome_of: OutcomeOf) -> None:
        self._watches.outcome_of = outcome_of
        self._hub.relay = self
        await self._ends.open(self._watches.receive)
        if self._relay is not None:
            await self._relay.open(self._watches.receive)
        self._forwarder.open()
        self._watches.open()

    async def close(self) -> None:
        """Send what there is, and want nothing more."""
        if self._hub.relay is not self:
            return
        await self._forwarder.close()
        if self._relay is not None:
            await self._relay.close()
        await self._ends.close()
        for task in list(self._tasks):
            task.cancel()
        await self._watches.close()

    # -- reading ---------------------------------------------------------------------------

    async def watch(self, log: ThreadLog, watches: bool, numbered: bool) -> None:
        """See ``Watches.watch``."""
        await self._watches.watch(log, watches, numbered)

    def expect(self, log: ThreadLog, watches: bool) -> bool:
        """A run is about to be created that readers wait for here; whether to ``watch_in``."""
        return self._watches.expect(log, watches)

    async def watch_in(self, transaction: Transaction, thread_id: str, watches: bool) -> None:
        await self._watches.watch_in(transaction, thread_id, watches)

    def created(self, log: ThreadLog, watches: bool) -> None:
        """The transaction of ``watch_in`` is committed."""
        self._watches.created(log, watches)

    # -- executing -------------------------------------------------------------------------

    def begin(self, log: ThreadLog, row: Row, kept: bool) -> Forwarding:
        """A run that was claimed begins; ``end`` it. ``kept``: its events can be replayed.

        It may say nothing before readers here ``catch_up``.
        """
        last_id: int = row["last_event_id"]
        told_id = log.told_id if self._watches.is_behind(log, last_id) else last_id
        log.go_on_from(told_id, max(last_id, row["floor_id"]))
        return self._forwarder.begin(log, row, kept)

    async def catch_up(self, log: ThreadLog, row: Row) -> None:
        """Let readers here have all that other processes have told, before a run that begins."""
        if self._watches.is_behind(log, row["last_event_id"]):
            await self._watches.catch_up(log, row)

    def end(self, forwarding: Forwarding) -> None:
        self._forwarder.end(forwarding)

    def flush(self) -> None:
        """Send what is there before what comes."""
        self._forwarder.flush()

    async def end_in(
        self,
        transaction: Transaction,
        thread_id: str,
        entries: Sequence[Entry],
        after: int,
        kept: bool,
    ) -> None:
        """Tell those who watch the end of a run, within the transaction that ends it."""
        await self._forwarder.end_in(transaction, thread_id, entries, after, kept)

    async def hand_back_in(self, transaction: Transaction, log: ThreadLog) -> None:
        """Another process goes on with the run, and with the ids of its events."""
        params = {"thread_id": log.thread_id, "id": log.told_id}
        await transaction.send(queries.MOVE_ON, params)

    async def tell_in(self, transaction: Transaction, thread_id: str, entry: Entry) -> None:
        """Tell those who watch what has no place in the order of events."""
        await self._forwarder.tell_in(transaction, thread_id, entry)

    async def is_watched_in(self, transaction: Transaction, thread_id: str) -> bool:
        """Whether another process has readers of a thread."""
        params = {"thread_id": thread_id, "process": self._signals.me}
        return await transaction.fetch_one(queries.WATCHERS, params) is not None

    def aside_id(self) -> int:
        """An id for what has no place in the order of events, but may be kept.

        Who executes a run there gives the others, from the same milliseconds.
        """
        now = time.time_ns() // 1_000_000 << COUNTER_BITS
        return now + ASIDE_BIT + random.randrange(ASIDE_BIT)

    # -- what clients do to threads --------------------------------------------------------

    def tell_all(self, thread_id: str, kind: str, name: str, data: bytes) -> None:
        """An event that no run has made; whoever runs there puts it between its own."""
        task = asyncio.create_task(self._tell_all(thread_id, kind, name, data))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _tell_all(self, thread_id: str, kind: str, name: str, data: bytes) -> None:
        try:
            if self._tell_here(thread_id, kind, name, data):
                return
            params: dict[str, Any] = {"thread_id": thread_id, "process": self._signals.me}
            watchers = await self._database.read_one(queries.WATCHERS, params)
            log = self._hub.current(thread_id)
            if watchers is None and (log is None or not log.has_readers):
                return
            run = await self._database.read_one(queries.EXECUTOR, params)
            executor = process_of(run["owner"]) if run else None
            if executor is not None and executor != self._signals.me:
                entry = Entry(0, "", kind, name, data)
                self._forwarder.send_to_executor(executor, thread_id, entry)
                return
            made = await self._database.write(
                lambda transaction: self._make(transaction, thread_id, kind, name, data), thread_id
            )
            if made is not None and log is not None:
                log.publish(made, last=True, forwarded=True)
        except Exception as error:
            logger.warning("an event could not be told", thread_id=thread_id, error=repr(error))

    def _tell_here(self, thread_id: str, kind: str, name: str, data: bytes) -> bool:
        log = self._hub.current(thread_id)
        if log is None or not self._forwarder.executes(thread_id):
            return False
        log.append("", kind, name, data)
        return True

    async def _make(
        self, transaction: Transaction, thread_id: str, kind: str, name: str, data: bytes
    ) -> Entry | None:
        """An event of a thread on which nothing runs."""
        params: dict[str, Any] = {"thread_id": thread_id}
        thread = await transaction.fetch_one(queries.LAST_EVENT, params)
        if thread is None:
            return None
        after: int = thread["last_id"] or 0
        now = time.time_ns() // 1_000_000 << COUNTER_BITS
        entry = Entry(max(after + 1, now), "", kind, name, data)
        await transaction.send(queries.MOVE_ON, {**params, "id": entry.id})
        batch = pack([Chunk(thread_id, after, [sent(entry)], kept=True)])
        await self._ends.send_in(transaction, thread_id, batch)
        return entry

    def _append(self, thread_id: str, entry: Entry) -> None:
        """An event that another process wants to have its place among those of a run here."""
        if not self._tell_here(thread_id, entry.kind, entry.name, entry.data):
            self.tell_all(thread_id, entry.kind, entry.name, entry.data)
