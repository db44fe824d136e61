"""Every run reaches exactly one terminal state; every stream says so and closes."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from promise_server import Server, asking, events, new_thread, output

BOOM = {"error": "ValueError", "message": "the boiler exploded"}
OUTCOMES: dict[str, tuple[str, str]] = {
    "steps": ("success", "idle"),
    "boom": ("error", "error"),
    "question": ("success", "interrupted"),
}


@pytest.mark.parametrize("graph", OUTCOMES)
async def test_joins_at_any_age_end_with_the_same_outcome(server: Server, graph: str) -> None:
    async with server.client() as http:
        thread = await new_thread(http)
        body = asking(graph, input={"seconds": 0.02}, stream_resumable=True)
        run = (await http.post(f"/threads/{thread}/runs", json=body)).json()["run_id"]
        place = f"/threads/{thread}/runs/{run}"

        async def join(after_seconds: float) -> Any:
            await asyncio.sleep(after_seconds)
            return (await http.get(f"{place}/join")).json()

        async def watch(after_seconds: float) -> list[str]:
            await asyncio.sleep(after_seconds)
            found = await events(http, "GET", f"{place}/stream", last="-1")
            return [event.name for event in found]

        ages = [number * 0.008 for number in range(16)]
        async with asyncio.timeout(10):
            joined = await asyncio.gather(*map(join, ages))
            watched = await asyncio.gather(*map(watch, ages))
        joined.append(await output(http, thread, run))
        assert all(found == joined[0] for found in joined)
        assert all(found == watched[0] for found in watched)
        assert watched[0][0] == "metadata"
        assert ("error" in watched[0]) is (graph == "boom")
        if graph == "boom":
            assert joined[0] == {"__error__": BOOM}
        status, of_thread = OUTCOMES[graph]
        assert (await http.get(place)).json()["status"] == status
        assert (await http.get(f"/threads/{thread}")).json()["status"] == of_thread


async def test_when_a_stream_closes_everything_is_settled(server: Server) -> None:
    async with server.client() as http:
        for graph, (status, of_thread) in OUTCOMES.items():
            thread = await new_thread(http)
            found = await events(http, "POST", f"/threads/{thread}/runs/stream", asking(graph))
            run = json.loads(found[0].data)["run_id"]
            shown = (await http.get(f"/threads/{thread}/runs/{run}")).json()
            assert shown["status"] == status
            assert (await http.get(f"/threads/{thread}")).json()["status"] == of_thread
            assert (found[-1].name == "error") is (graph == "boom")
