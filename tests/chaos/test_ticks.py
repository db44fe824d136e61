"""Three tickers over one database, a cron that is due each second, and nothing simulated.

``CHAOS_SECONDS=60`` has them tick for a minute. Over PostgreSQL the three are processes.
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import ExitStack, asynccontextmanager, contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import pytest

from treadle.clock import SECOND_US, now_us
from treadle.config import load_config
from treadle.crons.ticker import Ticker
from treadle.server import Server
from treadle.settings import Settings

SECONDS = min(60.0, float(os.environ.get("CHAOS_SECONDS", "4")))
START_SECONDS = 60
pytestmark = pytest.mark.timeout(SECONDS + 3 * START_SECONDS)
GRAPH = """
from langgraph.graph import START, StateGraph
graph = StateGraph(dict).add_node("a", lambda state: {}).add_edge(START, "a").compile()
"""


@pytest.fixture
def config(tmp_path: Path) -> Path:
    (tmp_path / "ticked.py").write_text(GRAPH)
    config = tmp_path / "langgraph.json"
    config.write_text(json.dumps({"graphs": {"agent": "./ticked.py:graph"}}))
    return config


async def tick_for_a_while(http: httpx.AsyncClient) -> tuple[range, list[Any]]:
    """The seconds in which a cron was there, and the runs that it has started, oldest first."""
    thread = (await http.post("/threads", json={})).json()["thread_id"]
    body: dict[str, Any] = {"assistant_id": "agent", "schedule": "* * * * * *", "input": {}}
    body["catch_up"] = "all"
    cron = (await http.post(f"/threads/{thread}/runs/crons", json=body)).json()
    began = now_us()
    await asyncio.sleep(SECONDS)
    await http.delete(f"/runs/crons/{cron['cron_id']}")
    ended = now_us()
    runs = (await http.get(f"/threads/{thread}/runs", params={"limit": 1000})).json()
    return range(began // SECOND_US + 1, ended // SECOND_US + 1), runs[::-1]


def check(ticks: Sequence[int], runs: Sequence[Any]) -> None:
    """Each tick has its run, within its second; the last may have come as the cron went."""
    started = [datetime.fromisoformat(run["created_at"]).timestamp() for run in runs]
    assert len(ticks) - len(started) in (0, 1)
    late = [time - tick for tick, time in zip(ticks, started, strict=False)]
    assert all(0 <= seconds < 1 for seconds in late), late


async def test_each_second_has_one_run(config: Path):
    server = Server(load_config(config), Settings())
    async with server.open() as app:
        others = [Ticker(server._ticker._database, server._ticker._runs) for _ in range(2)]
        for ticker in others:
            ticker.open()
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as http:
            check(*await tick_for_a_while(http))
        for ticker in others:
            await ticker.close()


@pytest.fixture
def postgres() -> Iterator[str]:
    """The URI of an empty PostgreSQL database."""
    sys.path.insert(0, str(Path(__file__).parents[1]))
    from postgres_server import PREFIX, drop_databases, make_database

    name = f"{PREFIX}ticks_{uuid4().hex[:12]}"
    yield make_database(name)
    drop_databases(name)


@contextmanager
def process(config: Path, uri: str) -> Iterator[str]:
    """A server process; its URL."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    treadle = Path(sys.executable).parent / "treadle"
    command = [treadle, "dev", "--no-reload", "--no-browser", "--config", config, "--db", uri]
    with open(config.parent / f"{port}.log", "wb") as log:
        running = subprocess.Popen([*command, "--port", str(port)], stdout=log, stderr=log)
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        running.terminate()
        running.wait(20)


@asynccontextmanager
async def client(url: str) -> AsyncIterator[httpx.AsyncClient]:
    """A client of a server that answers."""
    async with httpx.AsyncClient(base_url=url) as http, asyncio.timeout(START_SECONDS):
        while True:
            try:
                await http.get("/ok")
                break
            except httpx.HTTPError:
                await asyncio.sleep(0.05)
    async with httpx.AsyncClient(base_url=url, timeout=30) as http:
        yield http


async def test_each_second_has_one_run_from_three_processes(config: Path, postgres: str):
    with ExitStack() as stack:
        urls = [stack.enter_context(process(config, postgres)) for _ in range(3)]
        for url in urls:
            async with client(url) as http:
                await http.get("/ok")
        async with client(urls[0]) as http:
            check(*await tick_for_a_while(http))
