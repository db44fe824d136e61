from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

sys.path.insert(0, str(Path(__file__).parent))  # for run_graphs.py
sys.path.insert(0, str(Path(__file__).parents[1] / "streaming"))  # for asgi_client.py

import run_graphs

from treadle.assistants.service import AssistantService
from treadle.auth import ANYONE
from treadle.checkpoints.saver import Saver
from treadle.config import load_config
from treadle.database import Database
from treadle.graphs.registry import GraphRegistry
from treadle.http.validation import body_decoder
from treadle.runs.models import StatelessRunCreate, WatchedRunCreate
from treadle.runs.outcome import END, GONE_KIND, Outcome
from treadle.runs.rooms import Rooms
from treadle.runs.service import RunService
from treadle.runs.worker import Worker
from treadle.serialization import dumps, loads
from treadle.settings import Settings
from treadle.store.backend import DatabaseStore
from treadle.streaming.log import EventHub
from treadle.threads.models import ThreadCreate
from treadle.threads.service import ThreadService
from treadle.webhooks.outbox import Webhooks
from treadle.webhooks.rules import WebhookRules

PATIENCE_SECONDS = 5.0


class House:
    """All rooms that runs need, and what tests do with them."""

    def __init__(
        self, database: Database, registry: GraphRegistry, slots: int, settings: Settings
    ) -> None:
        self.database = database
        self.registry, self.slots, self.settings = registry, slots, settings
        self.closed = False

    async def open(self, work: bool = True) -> None:
        await self.database.open()
        store = DatabaseStore(self.database)
        await store.open()
        self.events = EventHub(self.database)
        await self.events.open()
        self.webhooks = Webhooks(self.database, WebhookRules(loopback=True))
        self.saver = Saver(self.database)
        self.rooms = Rooms(
            self.database,
            self.registry,
            self.saver,
            store,
            self.events,
            self.settings,
            self.webhooks,
        )
        self.lost = False
        self.worker = Worker(self.rooms, self.slots, self._lose)
        self.threads = ThreadService(
            self.database,
            self.saver,
            self.registry,
            store,
            ttl_default=None,
            stop_runs=lambda thread_id: self.service.thread_deleted(thread_id),
            announce_state=lambda thread_id, state: None,
        )
        assistants = AssistantService(
            self.database, self.registry, store=store, delete_thread=self.threads.delete
        )
        await assistants.ensure_defaults()
        self.service = RunService(
            self.rooms, self.worker, assistants, self.threads.create_thread_in
        )
        if work:
            await self.worker.open(alone=True)

    async def close(self) -> None:
        """As the server does it; harmless when repeated."""
        if self.closed:
            return
        self.closed = True
        await self.worker.close(0)
        self.events.close()
        await self.webhooks.close()
        await self.database.close()

    def _lose(self) -> None:
        self.lost = True

    # -- shorthands ------------------------------------------------------------------------

    async def thread(self) -> str:
        """A new thread."""
        made = await self.threads.create(ANYONE, ThreadCreate())
        return made["thread_id"]

    async def create(
        self, thread_id: str | None, graph: str = "chain", watch: Any = "nothing", **fields: Any
    ) -> Any:
        """A run, from the fields of a request."""
        kind = StatelessRunCreate if thread_id is None else WatchedRunCreate
        body = body_decoder(kind)(dumps({"assistant_id": graph, "input": {}, **fields}))
        return await self.service.create(ANYONE, "request", thread_id, body, watch)

    async def outcome(self, created: Any) -> Outcome | None:
        """Read to the end of a watched run; None if it was deleted."""
        return await self._end(created.reader, created.run_id)

    async def _end(self, reader: Any, run_id: str) -> Outcome | None:
        async with asyncio.timeout(PATIENCE_SECONDS):
            while True:
                for entry in await reader.next(PATIENCE_SECONDS) or ():
                    if entry.run_id in ("", run_id) and entry.kind in (END, GONE_KIND):
                        reader.close()
                        return entry.payload

    async def cancel(self, created: Any, action: Any = "interrupt") -> None:
        """Cancel a run and wait for its end."""
        run_id = created.run_id
        reader = await self.service.cancel_watched(ANYONE, created.thread_id, run_id, action)
        await self._end(reader, run_id)

    async def run(self, thread_id: str, graph: str = "chain", **fields: Any) -> Outcome | None:
        """Create a run and wait for its end."""
        return await self.outcome(await self.create(thread_id, graph, "end", **fields))

    async def shown(self, created: Any) -> Any:
        """A run as clients get it."""
        return loads(dumps(await self.service.get(ANYONE, created.thread_id, created.run_id)))

    async def shown_thread(self, thread_id: str) -> Any:
        return loads(dumps(await self.threads.get(ANYONE, thread_id)))

    async def statuses(self, thread_id: str) -> list[str]:
        """The status of each run of a thread, in the order of their creation."""
        rows = await self.database.read_all(
            "SELECT status FROM runs WHERE thread_id = :t ORDER BY seq", {"t": thread_id}
        )
        return [row["status"] for row in rows]

    async def until(self, condition: Callable[[], Any]) -> None:
        """Let the loop turn until ``condition()``; it may be async."""
        async with asyncio.timeout(PATIENCE_SECONDS):
            while True:
                found = condition()
                if asyncio.iscoroutine(found):
                    found = await found
                if found:
                    return
                await asyncio.sleep(0)

    async def at(self, gate: str) -> None:
        """Return once a run stands at a gate."""
        async with asyncio.timeout(PATIENCE_SECONDS):
            assert await run_graphs.started.get() == gate


@pytest.fixture(autouse=True)
def logged() -> Iterator[list[Any]]:
    """What was logged."""
    with capture_logs() as logged:
        yield logged


@pytest.fixture
def graphs() -> Any:
    run_graphs.reset()
    return run_graphs


@pytest.fixture
def registry(tmp_path: Path, graphs: Any) -> GraphRegistry:
    named = {name: f"run_graphs:{name}" for name in run_graphs.NAMES}
    (tmp_path / "langgraph.json").write_text(json.dumps({"graphs": named}))
    registry = GraphRegistry(load_config(tmp_path / "langgraph.json"))
    registry.load()
    return registry


@pytest.fixture
async def open_house(
    new_database: Callable[[], Database], registry: GraphRegistry
) -> AsyncIterator[Callable[..., Any]]:
    """``await open_house(slots=..., work=...)``: closed when the test ends, or by itself."""
    opened: list[House] = []

    async def open_house(slots: int = 10, work: bool = True, **settings: Any) -> House:
        house = House(new_database(), registry, slots, Settings(**settings))
        await house.open(work)
        opened.append(house)
        return house

    yield open_house
    for house in opened:
        await house.close()


@pytest.fixture
async def house(open_house: Callable[..., Any]) -> House:
    return await open_house()
