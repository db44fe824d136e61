"""A user's own checkpointer: threads live in it, and what it cannot do is told."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from langgraph.checkpoint.base import BaseCheckpointSaver
from structlog.testing import capture_logs

from treadle.checkpoints.custom import CustomSaver
from treadle.config import load_config
from treadle.errors import StartupError
from treadle.server import Server
from treadle.settings import Settings

SOURCE = """
import contextlib, operator
from typing import Annotated
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import START, StateGraph
from langgraph.types import interrupt
from typing_extensions import TypedDict

class State(TypedDict, total=False):
    n: Annotated[int, operator.add]
    answer: str

class Able(InMemorySaver):
    deleted = []

    async def adelete_for_runs(self, run_ids):
        self.deleted.extend(run_ids)

saver, able = InMemorySaver(), Able()

@contextlib.asynccontextmanager
async def opened():
    yield saver

async def add(state):
    return {"n": 1}

async def ask(state):
    return {"answer": interrupt("what?")}

agent = StateGraph(State).add_node(add).add_edge(START, "add").compile()
asking = StateGraph(State).add_node(ask).add_edge(START, "ask").compile()
"""


class Town:
    def __init__(self, http: httpx.AsyncClient, server: Server) -> None:
        self.http, self.server = http, server

    async def thread(self, **fields: Any) -> str:
        return (await self.http.post("/threads", json=fields)).json()["thread_id"]

    async def wait(self, thread_id: str, graph: str = "agent", **fields: Any) -> Any:
        body = {"assistant_id": graph, **fields}
        return (await self.http.post(f"/threads/{thread_id}/runs/wait", json=body)).json()

    async def values(self, thread_id: str) -> Any:
        shown = (await self.http.get(f"/threads/{thread_id}")).json()["values"]
        state = (await self.http.get(f"/threads/{thread_id}/state")).json()["values"]
        assert (shown or {}) == state
        return state

    async def history(self, thread_id: str) -> list[Any]:
        return (await self.http.get(f"/threads/{thread_id}/history")).json()


@pytest.fixture(params=["opened", "able"])
async def town(tmp_path: Path, request: Any) -> AsyncIterator[Town]:
    (tmp_path / "own_saver.py").write_text(SOURCE)
    config = tmp_path / "langgraph.json"
    graphs = {name: f"./own_saver.py:{name}" for name in ("agent", "asking")}
    checkpointer = {"path": f"./own_saver.py:{request.param}"}
    config.write_text(json.dumps({"graphs": graphs, "checkpointer": checkpointer}))
    with capture_logs():
        server = Server(load_config(config), Settings())
        async with server.open() as app:
            transport = httpx.ASGITransport(app)
            async with httpx.AsyncClient(transport=transport, base_url="http://test") as http:
                yield Town(http, server)
        for table in ("checkpoints", "checkpoint_writes"):
            assert not server._ticker._database.peek(f"SELECT * FROM {table}"), "not Treadle's own"


async def test_runs_and_states(town):
    thread = await town.thread()
    assert await town.wait(thread, input={"n": 1}) == {"n": 2}
    assert await town.wait(thread, input={"n": 1}) == {"n": 4}
    assert await town.values(thread) == {"n": 4}
    history = await town.history(thread)
    assert [state["values"].get("n") for state in history] == [4, 3, 2, 2, 1, 0]
    before = history[2]["checkpoint"]["checkpoint_id"]
    assert await town.wait(thread, input={"n": 10}, checkpoint_id=before) == {"n": 13}


async def test_questions(town):
    thread = await town.thread()
    asked = await town.wait(thread, "asking", input={"n": 1})
    assert asked["__interrupt__"][0]["value"] == "what?"
    assert (await town.http.get(f"/threads/{thread}")).json()["status"] == "interrupted"
    assert await town.wait(thread, "asking", command={"resume": "x"}) == {"n": 1, "answer": "x"}


async def test_updates_and_supersteps(town):
    steps = [
        {"updates": [{"values": {"n": 5}, "as_node": "__start__"}]},
        {"updates": [{"values": {"n": 7}, "as_node": "add"}]},
    ]
    thread = await town.thread(metadata={"graph_id": "agent"}, supersteps=steps)
    assert await town.values(thread) == {"n": 12}
    await town.http.post(f"/threads/{thread}/state", json={"values": {"n": 100}})
    assert await town.values(thread) == {"n": 112}
    assert await town.wait(thread, input={"n": 1}) == {"n": 114}


async def test_copies_and_deletes(town):
    thread = await town.thread()
    await town.wait(thread, input={"n": 1})
    copy = (await town.http.post(f"/threads/{thread}/copy")).json()["thread_id"]
    assert len(await town.history(copy)) == len(await town.history(thread))
    assert await town.wait(copy, input={"n": 1}) == {"n": 4}
    assert await town.values(thread) == {"n": 2}
    saver = town.server._worker._rooms.saver
    await town.http.delete(f"/threads/{thread}")
    assert await saver.aget_tuple({"configurable": {"thread_id": thread}}) is None
    assert await town.values(copy) == {"n": 4}


async def test_an_unknown_checkpoint_is_not_found(town):
    thread = await town.thread()
    unknown = "01a1fd5b-fd45-7121-b96e-b5206e482b47"
    body = {"assistant_id": "agent", "input": {}, "checkpoint_id": unknown}
    answer = await town.http.post(f"/threads/{thread}/runs", json=body)
    assert answer.status_code == 404
    assert unknown in answer.json()["detail"]


async def test_what_it_cannot_do_is_told(town):
    able = hasattr(town.server._worker._rooms.saver._inner, "deleted")
    thread = await town.thread()
    run = (
        await town.http.post(
            f"/threads/{thread}/runs/wait", json={"assistant_id": "agent", "input": {"n": 1}}
        )
    ).headers["location"]
    run_id = run.split("/")[4]
    for answer in (
        await town.http.get(f"/threads/{thread}/storage"),
        await town.http.post(
            "/threads/prune", json={"thread_ids": [thread], "strategy": "keep_latest"}
        ),
    ):
        assert answer.status_code == 501
        assert "checkpointer" in answer.json()["detail"]
    body = {"assistant_id": "agent", "input": {"n": 1}, "multitask_strategy": "rollback"}
    rollback = await town.http.post(f"/threads/{thread}/runs/wait", json=body)
    assert rollback.status_code == (200 if able else 501)
    deleted = await town.http.delete(f"/threads/{thread}/runs/{run_id}")
    assert deleted.status_code == (204 if able else 501)
    if able:
        assert run_id in town.server._worker._rooms.saver._inner.deleted


def test_a_saver_that_cannot_do_without_is_refused_at_the_start():
    class SyncOnly(BaseCheckpointSaver[Any]):
        pass

    nothing: Any = None
    with pytest.raises(StartupError, match="SyncOnly has no aget_tuple, alist, aput"):
        CustomSaver(nothing, SyncOnly())
