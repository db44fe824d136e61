"""Three tickers over one database, a cron that is due each second, and nothing simulated.

``CHAOS_SECONDS=60`` has them tick for a minute.
"""

from __future__ import annotations

import asyncio
import json
import os
from pathlib import Path

import httpx

from treadle.clock import SECOND_US, now_us
from treadle.config import load_config
from treadle.crons.ticker import Ticker
from treadle.server import Server
from treadle.settings import Settings

SECONDS = min(60.0, float(os.environ.get("CHAOS_SECONDS", "4")))
GRAPH = """
from langgraph.graph import START, StateGraph
graph = StateGraph(dict).add_node("a", lambda state: {}).add_edge(START, "a").compile()
"""


async def test_each_second_has_one_run(tmp_path: Path):
    (tmp_path / "ticked.py").write_text(GRAPH)
    config = tmp_path / "langgraph.json"
    config.write_text(json.dumps({"graphs": {"agent": "./ticked.py:graph"}}))
    server = Server(load_config(config), Settings())
    async with server.open() as app:
        first = server._ticker
        others = [Ticker(first._database, first._runs) for _ in range(2)]
        for ticker in others:
            ticker.open()
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as http:
            thread = (await http.post("/threads", json={})).json()["thread_id"]
            body = {
                "assistant_id": "agent",
                "schedule": "* * * * * *",
                "catch_up": "all",
                "input": {},
            }
            began = now_us()
            cron = (await http.post(f"/threads/{thread}/runs/crons", json=body)).json()
            await asyncio.sleep(SECONDS)
            await http.delete(f"/runs/crons/{cron['cron_id']}")
            ended = now_us()
            listed = await http.get(f"/threads/{thread}/runs", params={"limit": 1000})
        for ticker in others:
            await ticker.close()
        rows = await first._database.read_all("SELECT created_at FROM runs ORDER BY created_at")
    ticks = range(began // SECOND_US + 1, ended // SECOND_US + 1)
    # The last tick may have come while the cron was being deleted.
    assert len(listed.json()) == len(rows)
    assert len(ticks) - len(rows) in (0, 1)
    for tick, row in zip(ticks, rows, strict=False):
        assert 0 <= row["created_at"] - tick * SECOND_US < SECOND_US
