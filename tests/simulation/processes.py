"""Server processes in one: the real rules, queue and lease over one database in memory.

Real are the run service, the worker, its lease, the execution, the checkpointer of a run, the
event log and all SQL. Simulated are time, threads, and what a graph does: it takes orders.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from langgraph.checkpoint.base import empty_checkpoint
from langgraph.errors import GraphDrained
from simulated_time import Clock, TurnedLoop

import treadle.clock
from treadle.assistants.models import Assistant
from treadle.checkpoints.saver import Saver
from treadle.database.sqlite import SQLiteDatabase, SQLiteTransaction
from treadle.ids import new_id
from treadle.runs import driving, execution, lease, merging
from treadle.runs.driving import Drive
from treadle.runs.outcome import END, GONE_KIND
from treadle.runs.rooms import Rooms
from treadle.runs.service import RunService
from treadle.runs.summary import Summary
from treadle.runs.worker import Worker
from treadle.settings import Settings
from treadle.streaming import log
from treadle.streaming.log import EventHub, Reader
from treadle.threads.service import ThreadService

RETRIES = 2
SLOTS = 2
_NOWHERE = Path("in memory")
SETTINGS = Settings(bg_job_max_retries=RETRIES)
LONGEST_SETTLING_TURNS = 400
ASSISTANT = Assistant(new_id(), "graph", {}, {}, {}, "graph", None, 1, "", "")


def connect(folder: Path) -> sqlite3.Connection:
    """A connection to an empty database in memory with Treadle's schema."""

    class InMemory(SQLiteDatabase):
        def _connect(self, reads_only: bool = False) -> sqlite3.Connection:
            return connection

    connection = sqlite3.connect(":memory:", isolation_level=None, cached_statements=512)
    connection.row_factory = sqlite3.Row
    connection.execute("PRAGMA temp_store = memory")
    database = InMemory(folder / "simulated.db")
    database._writer = connection
    database._migrate()
    return connection


class SharedDatabase(SQLiteDatabase):
    """What one process sees of the database: group commit on its own loop.

    With ``full``, it hears of a commit a moment later, as from the thread that commits.
    """

    def __init__(self, connection: sqlite3.Connection, loop: TurnedLoop, full: bool) -> None:
        super().__init__(_NOWHERE)
        self._thread: Any = object() if full else None
        self._writer = self._reader = self._local.connection = connection
        self._transaction = SQLiteTransaction(connection)
        self._loop = loop
        self.is_cut_off = False

    def _commit(self) -> None:
        if not self.is_cut_off:
            super()._commit()


class Ordered(Drive):
    """A graph that does what it is told: ``step``, ``event``, ``fail``, ``ask`` or ``finish``."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._orders: list[str] = []
        self._ordered = asyncio.Event()
        self._rooms.registry.drives.append(self)

    def order(self, order: str) -> None:
        self._orders.append(order)
        self._ordered.set()

    async def _stream(self, graph: Any, config: dict[str, Any]) -> None:
        assert self.claim.tries <= RETRIES, "tried too often"
        while True:
            await self._ordered.wait()
            self._ordered.clear()
            while self._orders:
                order = self._orders.pop(0)
                if order == "fail":
                    raise ValueError("as ordered")
                if order == "event":
                    self._emit("custom", b"{}")
                    continue
                if self._saver is not None:
                    await self._checkpoint()
                if order != "step":
                    self._paused = order == "ask"
                    return
                if self.control.drain_requested:
                    raise GraphDrained

    async def _checkpoint(self) -> None:
        checkpoint = {**empty_checkpoint(), "id": new_id()}
        metadata: Any = {"run_id": self.claim.run_id, "attempt": self.claim.attempt}
        address = {"thread_id": self.claim.thread_id, "checkpoint_ns": ""}
        await self._saver.aput({"configurable": address}, checkpoint, metadata, {})

    async def _summarize(self, graph: Any) -> Summary:
        if self._paused and self.stopped is None:
            return Summary("interrupted", "{}", '{"task":[]}')
        return Summary("idle" if self.stopped is None else "interrupted", "{}", "{}")


class _Registry:
    """One graph, and all drives of it."""

    def __init__(self) -> None:
        self.drives: list[Ordered] = []
        self.ids = (ASSISTANT.graph_id,)

    def static(self, graph_id: str) -> Any:
        return SimpleNamespace(nodes=())


class _Assistants:
    def id_of(self, named: object) -> str:
        return ASSISTANT.assistant_id

    async def runnable(self, assistant_id: str, caller: object) -> Assistant:
        return ASSISTANT


class _Stopped:
    """Stands for the event on which the thread of a lease waits: one beat at a time."""

    def __init__(self) -> None:
        self._is_set = self._has_waited = False

    def set(self) -> None:
        self._is_set = True

    def wait(self, timeout: float) -> bool:
        self._has_waited = not self._has_waited
        return self._is_set or not self._has_waited


class _Thread:
    """Stands for the thread of a lease."""

    beats: Callable[[], None] = staticmethod(lambda: None)

    def __init__(self, target: Callable[[], None], **options: Any) -> None:
        self._target = target

    def start(self) -> None:
        self.beats = self._target

    def join(self) -> None:
        self.beats = lambda: None


class Process:
    """A server process. Nothing happens in it unless its loop is turned."""

    def __init__(self, clock: Clock, connection: sqlite3.Connection, name: int, full: bool) -> None:
        self.name = name
        self.loop = TurnedLoop(clock)
        self.is_frozen = self.is_mute = self.is_closing = self.is_lost = False
        self._registry = _Registry()
        self.doings: list[asyncio.Task[Any]] = []
        self.unheard: set[str] = set()
        self.database = SharedDatabase(connection, self.loop, full)
        self.loop.call_now(self._build, self.database)

    def _build(self, database: SharedDatabase) -> None:
        saver: Any = Saver(database)
        registry: Any = self._registry
        nothing: Any = None
        self.events = EventHub(database)
        rooms = Rooms(database, registry, saver, nothing, self.events, SETTINGS, nothing)
        self.worker = Worker(rooms, SLOTS, self._lose)
        self.owner = self.worker._lease.owner
        self.threads = ThreadService(
            database,
            saver,
            registry,
            nothing,
            ttl_default=None,
            stop_runs=lambda thread_id: self.service.thread_deleted(thread_id),
            announce_state=lambda thread_id, state: None,
        )
        self.service = RunService(rooms, self.worker, _Assistants(), self.threads.create_thread_in)

    def _lose(self) -> None:
        self.is_lost = True

    # -- what happens in it ----------------------------------------------------------------

    def do(self, coroutine: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        """Begin something; it goes on as the loop is turned."""
        task = self.loop.create_task(coroutine)
        self.doings.append(task)
        return task

    def open(self, alone: bool) -> None:
        self.do(self._open(alone))
        self.settle()

    async def _open(self, alone: bool) -> None:
        await self.events.open()
        await self.worker.open(alone)

    def close(self, grace_seconds: float) -> None:
        self.is_closing = True
        self.do(self.worker.close(grace_seconds))

    def kill(self) -> None:
        """End it where it stands: nothing that it has begun reaches the database."""
        self.database.is_cut_off = True
        self.loop.end()

    def settle(self) -> None:
        """Turn until all waits for time or orders."""
        assert not self.loop.turn(LONGEST_SETTLING_TURNS), "the process never comes to rest"

    def beat(self) -> None:
        """The lease is renewed, by its thread."""
        self.worker._lease._thread.beats()

    def drives(self) -> list[Ordered]:
        """The graphs that are at work here."""
        drives = self._registry.drives
        drives[:] = [drive for drive in drives if not drive.ending]
        return drives

    async def hear(self, reader: Reader, run_id: str) -> None:
        """Wait for the end of a run, as a client does."""
        self.unheard.add(run_id)
        while (entries := await reader.next(1e9)) is not None:
            for entry in entries:
                if entry.kind in (END, GONE_KIND) and entry.run_id in ("", run_id):
                    self.unheard.discard(run_id)
                    reader.close()
                    return


@contextmanager
def simulated() -> Iterator[Clock]:
    """Treadle goes by the clock that this gives, and its graphs by orders."""
    clock = Clock()

    async def at_once(function: Callable[..., Any], *args: Any) -> Any:
        return function(*args)

    with pytest.MonkeyPatch.context() as patch:
        for module in (treadle.clock, log, merging):
            patch.setattr(module, "time", clock)
        patch.setattr(treadle.clock, "_start_ns", 0)
        patch.setattr(lease, "threading", SimpleNamespace(Event=_Stopped, Thread=_Thread))
        patch.setattr(
            lease,
            "asyncio",
            SimpleNamespace(get_running_loop=asyncio.get_running_loop, to_thread=at_once),
        )
        patch.setattr(execution, "Drive", Ordered)
        patch.setattr(driving, "bind", lambda graph, saver, store: graph)
        yield clock
