"""The event log: what happened on a thread, in one order, for any number of readers.

Every event of a thread is an ``Entry`` with an id that only grows, across runs and restarts. It
is encoded once; all readers share its bytes. The log knows nothing of protocols: an entry has a
``kind``, a ``name`` and a ``label`` that mean something to those who write and read it. Entries
with ``keep`` are persisted for replay; the others live only until every reader has passed them,
so that a run that nobody watches keeps nothing in memory.

Some entries are numbered: ``seq`` counts those of a thread from 1 on, without a gap, across runs,
restarts and processes. The transaction that persists them gives the numbers, so two processes
cannot give the same, and readers hear of them after it: what was told has its number for good.

Invariant: an entry is in memory from its telling until each reader that was there at that time
has taken it, or has fallen ``READER_LIMIT_BYTES`` behind and was cut off. Who waits for ends alone
sends nothing meanwhile, so takes all at once, and is never cut off for that.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import structlog

from treadle.database import Database, Transaction
from treadle.figures import Figure
from treadle.streaming import queries
from treadle.streaming.entries import COUNTER_BITS, Entry
from treadle.streaming.saving import Save, Unsaved, entry_of, number, row_of

if TYPE_CHECKING:
    from treadle.streaming.relay.exchange import Exchange

logger = structlog.get_logger("treadle.streaming")

BURST_SECONDS = 0.005
TAKE_BYTES = 2**18
READER_LIMIT_BYTES = 64 * 2**20
REPLAY_PAGE = 1000
REPLAY_BYTES = 2**20
FEW_EVENTS = 100
FEW_BYTES = 2**16

_IDS = threading.Lock()


class Reader:
    """A place in a thread's log. Register first, then look at the database: nothing is missed."""

    __slots__ = ("_bytes", "_log", "_position", "_waiter", "closed", "cut_off", "log", "numbered",
                 "start_id", "watches")  # fmt: skip

    def __init__(self, log: ThreadLog, watches: bool, numbered: bool) -> None:
        self.log = self._log = log
        self.watches, self.numbered = watches, numbered
        self._position = log.end
        self._bytes = log.appended_bytes
        self._waiter: asyncio.Future[None] | None = None
        self.start_id = log.told_id
        self.cut_off: bool = False
        self.closed = False

    async def next(self, timeout: float) -> Sequence[Entry] | None:
        """What has come since the last call, or the first of it; waits for at least one entry.

        It is not much more than ``TAKE_BYTES``, for what is taken counts no longer as waiting.
        Returns an empty list after ``timeout`` seconds without any, and None once this reader
        has been ``cut_off`` because it fell too far behind, or ``closed`` because the server
        stops and has read what there was.
        """
        if self._position == self._log.end and not (self.cut_off or self.closed):
            loop = asyncio.get_running_loop()
            waiter = self._waiter = loop.create_future()
            timer = loop.call_later(timeout, _release, waiter)
            try:
                await waiter
            finally:
                timer.cancel()
                self._waiter = None
        if self.cut_off or (self.closed and self._position == self._log.end):
            return None
        taken, size = self._log.since(self._position, self.lag_bytes)
        self._position += len(taken)
        self._bytes += size
        if size >= TAKE_BYTES:
            self._log.trim()
        return taken

    def wake(self) -> None:
        """Let ``next`` look again."""
        if self._waiter is not None:
            _release(self._waiter)

    @property
    def position(self) -> int:
        return self._position

    @property
    def takes_events(self) -> bool:
        """Whether it is not there for the ends of runs alone."""
        return self.watches or self.numbered

    @property
    def lag_bytes(self) -> int:
        return self._log.appended_bytes - self._bytes

    def close(self) -> None:
        """Leave the log. Harmless when repeated."""
        self._log.leave(self)


def _release(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_result(None)


class ThreadLog:
    """The entries of one thread that somebody still has to read."""

    def __init__(self, hub: EventHub, thread_id: str, last_id: int) -> None:
        self.thread_id = thread_id
        self.last_id = self.told_id = self.handed_id = last_id
        self.appended_bytes = 0
        self.waiting = 0
        """How many entries readers will hear of once these are durable."""
        self.unsaved = 0
        """How many entries wait for a transaction that keeps or numbers them."""
        self._hub = hub
        self._entries: list[Entry] = []
        self._base = 0
        self._readers: set[Reader] = set()
        self._writers = 0
        self.watched = 0
        """How many readers want the events of runs, and not only their ends."""
        self.numbered_watched = 0
        """How many readers want what is numbered."""
        self.on_numbered_reader: Callable[[], None] | None = None
        """Called when a reader comes who wants what is numbered."""
        self.forward: Callable[[Entry, int], None] | None = None
        """Called with each entry that is published, and the id of the one before it."""
        self.in_flight: Entry | None = None
        """The beginning of the run that goes on, if it is not kept."""
        self.told_seq = 0
        """The number of the last numbered event that was told, if that is known."""
        self._elsewhere = (False, False)
        self._wake: asyncio.TimerHandle | asyncio.Handle | None = None
        self._woken_at = 0.0

    @property
    def has_readers(self) -> bool:
        return bool(self._readers)

    @property
    def held_bytes(self) -> int:
        """What is in memory because a reader has still to take it."""
        return max((reader.lag_bytes for reader in self._readers), default=0)

    @property
    def clients(self) -> int:
        """How many readers there are here that take events, and not only the ends of runs."""
        return sum(reader.takes_events for reader in self._readers)

    @property
    def end(self) -> int:
        return self._base + len(self._entries)

    def since(self, position: int, waiting_bytes: int) -> tuple[Sequence[Entry], int]:
        """The entries from ``position`` on, of which so much waits, and what they take.

        Where that is more than ``TAKE_BYTES``, only the first of them.
        """
        first = position - self._base
        if waiting_bytes <= TAKE_BYTES:
            return self._entries[first:], waiting_bytes
        size, end = 0, first
        while size < TAKE_BYTES:
            size += self._entries[end].size_bytes
            end += 1
        return self._entries[first:end], size

    def append(
        self,
        run_id: str,
        kind: str,
        name: str,
        data: bytes,
        keep: bool = False,
        attempt: int = 0,
        *,
        last: bool = False,
        payload: Any = None,
        numbered: bool = False,
        label: str = "",
        params: bytes = b"",
    ) -> Entry:
        """Add an event, wake the readers, and return it. Call on the event loop only.

        What is to be ``keep``t or ``numbered`` is refused once the run has moved on from
        ``attempt`` or is no more; 0 is no attempt. Readers hear of what is numbered, and of what
        comes after it, when it is durable. ``last``: readers wait for this one, so they are
        woken at once even in a burst.
        """
        entry = self.entry(run_id, kind, name, data, payload, numbered, label, params)
        self.handed_id = entry.id
        if numbered or self.waiting:
            self.waiting += 1
            self._hub.hand_in(Unsaved(self, entry, keep, attempt, waits=True), last)
        else:
            if keep:
                self._hub.hand_in(Unsaved(self, entry, keep, attempt, waits=False), False)
            self.publish(entry, last)
        return entry

    def entry(
        self,
        run_id: str,
        kind: str,
        name: str,
        data: bytes,
        payload: Any = None,
        numbered: bool = False,
        label: str = "",
        params: bytes = b"",
    ) -> Entry:
        """The next event, which nobody hears of before it is published."""
        with _IDS:  # ends of runs get theirs within transactions, perhaps on another thread
            id = max(self.last_id + 1, time.time_ns() // 1_000_000 << COUNTER_BITS)
            self.last_id = id
        seq = 0 if numbered else None
        return Entry(id, run_id, kind, name, data, payload, seq, label, params)

    def publish(self, entry: Entry, last: bool = False, forwarded: bool = False) -> None:
        """Let the readers have an event; see ``append``.

        Those in other processes too, unless they have it ``forwarded`` in another way.
        """
        before = self.told_id
        if entry.id > before:
            self.told_id = entry.id
        if self.forward is not None and not forwarded:
            self.forward(entry, before)
        self._give(entry, last)

    def publish_aside(self, entry: Entry) -> None:
        """Let the readers have what has no place in the order of events."""
        self._give(entry, True)

    def _give(self, entry: Entry, last: bool) -> None:
        if entry.seq:
            self.told_seq = max(self.told_seq, entry.seq)
        if self._readers:
            self._entries.append(entry)
            self.appended_bytes += entry.size_bytes
            if self._wake is None or last:
                self._schedule_wake(last)

    def settle(self, entry: Entry | None) -> None:
        """What was ``waiting`` is durable: publish it, or forget it if it was refused."""
        self.waiting -= 1
        if entry is not None:
            self.publish(entry, self._wake is None)
        self._drop_if_idle()

    def _schedule_wake(self, at_once: bool) -> None:
        """At once after a pause; in a burst, several entries at a time."""
        loop = asyncio.get_running_loop()
        pause = loop.time() - self._woken_at
        if self._wake is not None:
            self._wake.cancel()
        if at_once or pause >= BURST_SECONDS:
            self._wake = loop.call_soon(self._wake_readers)
        else:
            self._wake = loop.call_later(BURST_SECONDS - pause, self._wake_readers)

    def _wake_readers(self) -> None:
        self._wake = None
        self._woken_at = asyncio.get_running_loop().time()
        for reader in self._readers:
            if reader.takes_events and reader.lag_bytes > READER_LIMIT_BYTES:
                reader.cut_off = True
            reader.wake()
        self.trim()

    def trim(self) -> None:
        """Forget what every reader has passed."""
        positions = [reader.position for reader in self._readers if not reader.cut_off]
        passed = min(positions, default=self.end) - self._base
        # What stays is moved up: not for every few of very many.
        if passed > len(self._entries) >> 8:
            del self._entries[:passed]
            self._base += passed

    def read(self, watches: bool = True, numbered: bool = False) -> Reader:
        """A reader of what is told from now on. Close it when done.

        One that ``watches`` nothing but the ends of runs spares a run the encoding of events;
        what is only ``numbered`` is made for those who ask for it.
        """
        reader = Reader(self, watches, numbered)
        self._readers.add(reader)
        self.watched += watches
        self.numbered_watched += numbered
        if numbered and self.on_numbered_reader is not None:
            self.on_numbered_reader()
        return reader

    def leave(self, reader: Reader) -> None:
        if reader in self._readers:
            self._readers.remove(reader)
            self.watched -= reader.watches
            self.numbered_watched -= reader.numbered
        self.trim()
        self._drop_if_idle()

    def watch_elsewhere(self, watches: bool, numbered: bool) -> None:
        """Count the readers in other processes, all of them as one of each sort."""
        had_watches, had_numbered = self._elsewhere
        self._elsewhere = watches, numbered
        self.watched += watches - had_watches
        self.numbered_watched += numbered - had_numbered
        if numbered and not had_numbered and self.on_numbered_reader is not None:
            self.on_numbered_reader()

    def go_on_from(self, told_id: int, floor_id: int) -> None:
        """Events up to ``told_id`` were told by others; new ones get ids beyond ``floor_id``."""
        self.told_id = max(self.told_id, told_id)
        self.handed_id = max(self.handed_id, self.told_id)
        self.last_id = max(self.last_id, self.told_id, floor_id)

    def cut_off_readers(self, all: bool = False) -> None:
        """Break off the streams of those who read events: some were missed."""
        for reader in self._readers:
            if all or reader.takes_events:
                reader.cut_off = True
                reader.wake()

    def close(self) -> None:
        """Let all readers end: the server stops."""
        for reader in self._readers:
            reader.closed = True
            reader.wake()

    def hold(self) -> None:
        """A run begins to write here: the log stays until ``release``."""
        self._writers += 1

    def release(self) -> None:
        self._writers -= 1
        self._drop_if_idle()

    def _drop_if_idle(self) -> None:
        if not self._readers and not self._writers and not self.waiting:
            self._hub.drop(self)


class EventHub:
    """The logs of all threads of this process, and the keeping of what may be replayed."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self._logs: dict[str, ThreadLog] = {}
        self.relay: Exchange | None = None
        """What other processes are told, and tell; None if there are none."""
        self._floor = 0
        self._unsaved: deque[Unsaved] = deque()
        self._save_due = False
        self._saved_at = 0.0

    async def open(self, alone: bool = True) -> None:
        """Learn where ids have come to, so that they go on growing.

        ``alone``: no other process has the database open, so all its workers are dead.
        """
        row = await self.database.read_one(queries.LAST_EVENT_ID, {"alone": int(alone)})
        self._floor = (row["id"] if row else None) or 0

    def log(self, thread_id: str) -> ThreadLog:
        """The log of a thread, made when first asked for."""
        log = self._logs.get(thread_id)
        if log is None:
            # With other processes, each thread has gone as far as the database says.
            floor = self._floor if self.relay is None else 0
            log = self._logs[thread_id] = ThreadLog(self, thread_id, floor)
        return log

    async def open_reader(
        self, thread_id: str, *, watches: bool = True, numbered: bool = False
    ) -> Reader:
        """A reader as ``ThreadLog.read`` gives it, of what happens in all processes."""
        log = self.log(thread_id)
        if self.relay is None:
            return log.read(watches, numbered)
        log.hold()
        try:
            await self.relay.watch(log, watches, numbered)
            return log.read(watches, numbered)
        finally:
            log.release()

    def tell_all(self, thread_id: str, kind: str, name: str, data: bytes) -> None:
        """An event that no run has made, for all who read the thread, in all processes."""
        if self.relay is not None:
            self.relay.tell_all(thread_id, kind, name, data)
        elif (log := self.current(thread_id)) is not None:
            log.append("", kind, name, data)

    def figures(self) -> list[Figure]:
        """What ``/metrics`` shows of it."""
        logs = list(self._logs.values())
        return [
            Figure(
                "treadle_stream_clients",
                "gauge",
                "Clients that read a stream of events (this process)",
                sum(log.clients for log in logs),
            ),
            Figure(
                "treadle_event_log_memory_bytes",
                "gauge",
                "Events that are in memory because a client has still to take them (this process)",
                sum(log.held_bytes for log in logs),
            ),
        ]

    def current(self, thread_id: str) -> ThreadLog | None:
        """The log of a thread, if anybody reads or writes it now."""
        return self._logs.get(thread_id)

    def close(self) -> None:
        """End all streams; clients may reconnect to the next process."""
        for log in list(self._logs.values()):
            log.close()

    def drop(self, log: ThreadLog) -> None:
        self._floor = max(self._floor, log.last_id)
        if self._logs.get(log.thread_id) is log:
            del self._logs[log.thread_id]

    def hand_in(self, unsaved: Unsaved, at_once: bool) -> None:
        """Persist an entry with the next group commit.

        Where readers wait for it, that is now; in a burst, soon, for several entries at a time.
        """
        self._unsaved.append(unsaved)
        unsaved.log.unsaved += 1
        self._save_soon()
        if unsaved.waits:
            now = time.monotonic()
            if at_once or now - self._saved_at >= BURST_SECONDS:
                self._saved_at = now
                self.database.hurry()

    def take_back(self, unsaved: Sequence[Unsaved]) -> None:
        """Persist again what was taken first of all, and perhaps not committed."""
        if unsaved:
            self._unsaved.extendleft(reversed(unsaved))
            for one in unsaved:
                one.log.unsaved += 1
            self._save_soon()
            self.database.hurry()

    def save_again(self) -> None:
        """Persist what was handed in: the commit that was to do it had no database."""
        self._save_due = False
        if self._unsaved:
            self._save_soon()
            self.database.hurry()

    def _save_soon(self) -> None:
        if not self._save_due:
            self._save_due = True
            save = Save(self)
            self.database.write_soon(save.commit, save.failed, save.committed)

    def take_unsaved(self) -> list[Unsaved]:
        """All that was handed in so far; for its transaction."""
        self._save_due = False
        taken: list[Unsaved] = []
        while self._unsaved:
            taken.append(self._unsaved.popleft())
            taken[-1].log.unsaved -= 1
        return taken

    async def keep_in(
        self,
        transaction: Transaction,
        thread_id: str,
        entries: Sequence[Entry],
        *,
        keep: bool = True,
    ) -> None:
        """Number and persist entries in a transaction of the caller's, who publishes them then.

        The caller has made sure of the attempt. Without ``keep`` they are only numbered.
        """
        numbered = [entry for entry in entries if entry.seq is not None]
        if numbered:
            await number(transaction, thread_id, numbered)
        if keep:
            rows = [row_of(thread_id, entry) for entry in entries]
            await transaction.execute_many(queries.INSERT_EVENT, rows)

    async def last_seq(self, thread_id: str) -> int:
        """The number of the thread's last event that is durable; 0 if there is none."""
        row = await self.database.read_one(queries.LAST_SEQ, {"thread_id": thread_id})
        return row["last_seq"] if row else 0

    async def replay_numbered(self, thread_id: str, after: int, until: int) -> Sequence[Entry]:
        """A page of kept entries with ``after < seq <= until``.

        A few are read at once: on a busy machine, a scan waits longer than it works.
        """
        is_few = until - after <= FEW_EVENTS
        read = self.database.read_all if is_few else self.database.scan
        rows = await read(
            queries.REPLAY_NUMBERED,
            {
                "thread_id": thread_id,
                "after": after,
                "until": until,
                "limit": REPLAY_PAGE,
                "most_bytes": FEW_BYTES if is_few else REPLAY_BYTES,
            },
        )
        return [entry_of(row) for row in rows]

    async def replay(
        self, thread_id: str, run_id: str | None, after: int, until: int
    ) -> Sequence[Entry]:
        """A page of kept entries with ``after < id <= until``, of one run or of all."""
        await self.database.flush()
        rows = await self.database.scan(
            queries.REPLAY_RUN if run_id else queries.REPLAY_THREAD,
            {
                "thread_id": thread_id,
                "run_id": run_id,
                "after": after,
                "until": until,
                "limit": REPLAY_PAGE,
                "most_bytes": REPLAY_BYTES,
            },
        )
        return [entry_of(row) for row in rows]
