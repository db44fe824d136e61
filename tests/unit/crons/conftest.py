from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import httpx
import pytest
from structlog.testing import capture_logs

import treadle.crons.service
import treadle.crons.ticker
from treadle.clock import SECOND_US
from treadle.config import load_config
from treadle.server import Server
from treadle.settings import Settings

GRAPHS = """
from typing import Any
from langgraph.graph import START, StateGraph
from langgraph.runtime import Runtime
from typing_extensions import TypedDict

class State(TypedDict, total=False):
    text: str
    seen: dict[str, Any]

class Context(TypedDict, total=False):
    tone: str

def look(state, config, runtime: Runtime):
    seen = {key: config["configurable"].get(key) for key in ("cron_id", "tone")}
    return {"seen": {**seen, "context": dict(runtime.context or {})}}

echo = StateGraph(State, context_schema=Context).add_node(look).add_edge(START, "look").compile()
"""


def us(text: str) -> int:
    """Microseconds since the epoch of an ISO time."""
    return round(datetime.fromisoformat(text).timestamp() * SECOND_US)


class Town:
    """A server without a socket, whose crons go by ``now``."""

    def __init__(self, http: httpx.AsyncClient, server: Server, clock: list[int]) -> None:
        self.http, self.ticker, self._clock = http, server._ticker, clock
        self.database: Any = server._ticker._database

    def at(self, text: str) -> None:
        """Set the clock of crons."""
        self._clock[0] = us(text)

    async def cron(self, thread_id: str | None = None, **fields: Any) -> Any:
        """A new cron."""
        path = "/runs/crons" if thread_id is None else f"/threads/{thread_id}/runs/crons"
        answer = await self.http.post(
            path, json={"assistant_id": "echo", "schedule": "0 * * * *", **fields}
        )
        assert answer.status_code == 200, answer.text
        return answer.json()

    async def patch(self, cron: Any, **fields: Any) -> httpx.Response:
        return await self.http.patch(f"/runs/crons/{cron['cron_id']}", json=fields)

    async def next_run(self, cron: Any) -> str | None:
        shown = (await self.http.get(f"/runs/crons/{cron['cron_id']}")).json()
        return shown["next_run_date"]

    async def thread(self) -> str:
        return (await self.http.post("/threads", json={})).json()["thread_id"]

    async def tick(self) -> None:
        """Start all that is due, as often as it is due."""
        while True:
            seconds = await self.ticker.look()
            starting = list(self.ticker._starting.values())
            if not starting:
                assert 0 < seconds <= 5.1
                return
            await asyncio.wait(starting)

    async def until(self, condition: Callable[[], Awaitable[Any]]) -> Any:
        """What ``condition`` gives, once it gives something."""
        async with asyncio.timeout(10):
            while True:
                if (found := await condition()) is not None:
                    return found
                await asyncio.sleep(0)

    async def runs(self, thread_id: str) -> list[Any]:
        """The runs of a thread, once all have ended, newest first."""

        async def ended() -> list[Any] | None:
            found = (await self.http.get(f"/threads/{thread_id}/runs")).json()
            is_over = all(run["status"] not in ("pending", "running") for run in found)
            return found if is_over else None

        return await self.until(ended)


@pytest.fixture
def logged() -> Iterator[list[Any]]:
    with capture_logs() as logged:
        yield logged


@pytest.fixture
async def town(tmp_path: Path, logged: Any, monkeypatch: Any) -> AsyncIterator[Town]:
    clock = [us("2026-03-01T12:00:00+00:00")]
    for module in (treadle.crons.service, treadle.crons.ticker):
        monkeypatch.setattr(module, "now_us", lambda: clock[0])
    (tmp_path / "cron_graphs.py").write_text(GRAPHS)
    config = tmp_path / "langgraph.json"
    config.write_text(json.dumps({"graphs": {"echo": "./cron_graphs.py:echo"}}))
    server = Server(load_config(config), Settings())
    async with server.open() as app:
        await server._ticker.close()  # the tests tick themselves
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as http:
            yield Town(http, server, clock)
