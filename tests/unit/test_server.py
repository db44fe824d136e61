"""The rooms put together, and taken apart again."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from structlog.testing import capture_logs

from treadle.config import load_config
from treadle.errors import StartupError
from treadle.http.rules import HttpRules
from treadle.opening import custom_app, default_ttl
from treadle.server import Server
from treadle.settings import Settings

UNKNOWN = "00000000-0000-4000-8000-000000000000"
AGENT = """
import asyncio
from pathlib import Path
from typing import TypedDict

from langgraph.graph import START, StateGraph


class State(TypedDict, total=False):
    said: str
    seconds: float


journal = Path(__file__).with_name("journal")


async def speak(state: State) -> State:
    with journal.open("a") as file:
        file.write("speak ")
    await asyncio.sleep(state.get("seconds", 0))
    return {"said": "hello"}


graph = StateGraph(State).add_node(speak).add_edge(START, "speak").compile()
"""


@pytest.fixture(autouse=True)
def logged() -> Iterator[list[Any]]:
    with capture_logs() as logged:
        yield logged


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A project. Its modules are forgotten afterwards: the next test's have the same names."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    (tmp_path / "agent.py").write_text(AGENT)
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        if str(tmp_path) in str(getattr(sys.modules[name], "__file__", "")):
            del sys.modules[name]


def server_of(folder: Path, settings: Settings | None = None, **keys: Any) -> Server:
    path = folder / "langgraph.json"
    path.write_text(json.dumps({"graphs": {"agent": "./agent.py:graph"}, **keys}))
    return Server(load_config(path), settings or Settings(log_level="ERROR"))


def client_of(app: Any) -> httpx.AsyncClient:
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test")


async def test_a_run_goes_through_all_rooms(folder):
    async with server_of(folder).open() as app, client_of(app) as http:
        assert (await http.get("/ok")).json()["ok"] is True
        thread = (await http.post("/threads", json={})).json()["thread_id"]
        body = {"assistant_id": "agent", "input": {}}
        answer = await http.post(f"/threads/{thread}/runs/wait", json=body)
        assert answer.json() == {"said": "hello"}
        state = (await http.get(f"/threads/{thread}/state")).json()
        assert state["values"] == {"said": "hello"}
        assert state["metadata"]["run_id"] in answer.headers["location"]


async def test_what_is_there_is_there_after_a_restart(folder):
    async with server_of(folder).open() as app, client_of(app) as http:
        thread = (await http.post("/threads", json={"metadata": {"a": 1}})).json()
    async with server_of(folder).open() as app, client_of(app) as http:
        assert (await http.get(f"/threads/{thread['thread_id']}")).json() == thread
        found = (await http.post("/assistants/search", json={})).json()
        assert [assistant["graph_id"] for assistant in found] == ["agent"]


async def test_a_server_that_stops_lets_nodes_end(folder):
    """Whether the run ended in its grace or goes on with the next server: no node is repeated."""
    body = {"assistant_id": "agent", "input": {"seconds": 0.05}}
    async with server_of(folder).open() as app, client_of(app) as http:
        thread = (await http.post("/threads", json={})).json()["thread_id"]
        run = (await http.post(f"/threads/{thread}/runs", json=body)).json()["run_id"]
        while not (folder / "journal").exists():  # noqa: ASYNC110
            await asyncio.sleep(0)
    async with server_of(folder).open() as app, client_of(app) as http:
        answer = await http.get(f"/threads/{thread}/runs/{run}/join")
        assert answer.json()["said"] == "hello"
    assert (folder / "journal").read_text() == "speak "


async def test_a_second_server_on_one_database_is_refused(folder):
    async with server_of(folder).open():
        with pytest.raises(StartupError, match="in use by process"):
            async with server_of(folder).open():
                pass


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"graphs": {"agent": "./agent.py:nothing"}}, 'no "nothing" in'),
        ({"graphs": {"agent": "./missing.py:graph"}}, "no file"),
        ({"http": {"app": "./agent.py:nothing"}}, 'http.app.*no "nothing"'),
        ({"webhooks": {"headers": {"x": "${{ env.HOME }}"}}}, "variable HOME"),
    ],
)
async def test_what_cannot_be_opened_stops_the_start(folder, keys, said):
    with pytest.raises(StartupError, match=said):
        async with server_of(folder, **keys).open():
            pass


async def test_every_endpoint_is_described(folder):
    async with server_of(folder).open() as app, client_of(app) as http:
        paths = (await http.get("/openapi.json")).json()["paths"]
        assert {"/threads/{thread_id}/runs/stream", "/runs/batch", "/assistants/search"} <= {*paths}


def test_the_ttl_of_a_config(folder):
    server_of(folder, checkpointer={"ttl": {"default_ttl": 5, "strategy": "keep_latest"}})
    ttl = default_ttl(load_config(folder / "langgraph.json"))
    assert ttl is not None
    assert (ttl.minutes, ttl.strategy) == (5, "keep_latest")
    server_of(folder)
    assert default_ttl(load_config(folder / "langgraph.json")) is None
    assert custom_app(load_config(folder / "langgraph.json"), HttpRules()) is None


async def test_disabled_groups_are_not_there_and_the_store_still_serves_graphs(folder):
    http = {"disable_meta": True, "disable_runs": True, "disable_store": True}
    async with server_of(folder, http=http).open() as app, client_of(app) as client:
        assert (await client.get("/ok", params={"check_db": "true"})).json() == {"ok": True}
        for method, path in (
            ("GET", "/openapi.json"),
            ("POST", "/runs/wait"),
            ("POST", "/runs/crons/search"),
            ("POST", f"/threads/{UNKNOWN}/runs"),
            ("POST", f"/threads/{UNKNOWN}/commands"),
            ("PUT", "/store/items"),
        ):
            assert (await client.request(method, path, json={})).status_code == 404, path
        assert (await client.post("/threads/search", json={})).status_code == 200


async def test_webhooks_that_are_disabled_are_accepted_and_not_kept(folder):
    http = {"disable_webhooks": True}
    async with server_of(folder, http=http).open() as app, client_of(app) as client:
        body = {"assistant_id": "agent", "input": {}, "webhook": "http://10.0.0.1:9/"}
        assert (await client.post("/runs/wait", json=body)).json() == {"said": "hello"}


async def test_the_config_of_a_default_assistant_follows_the_variable(folder, monkeypatch):
    for model in ("small", "large"):
        config = {"agent": {"configurable": {"model": model}, "tags": ["t"]}}
        monkeypatch.setenv("LANGGRAPH_CONFIG", json.dumps(config))
        async with server_of(folder).open() as app, client_of(app) as client:
            [assistant] = (await client.post("/assistants/search", json={})).json()
        assert assistant["config"] == config["agent"]
        assert assistant["context"] == {"model": model}


async def test_a_factory_that_fails_is_warned_of_once_the_server_is_ready(folder, logged):
    (folder / "agent.py").write_text("def graph(config):\n    return config['nothing']\n")
    server = server_of(folder)
    async with server.open():
        server.ready()
        while not any("nothing" in line["event"] for line in logged):  # noqa: ASYNC110
            await asyncio.sleep(0)
    [line] = [line["event"] for line in logged if "factory" in line["event"]]
    assert "./agent.py:graph" in line
    assert 'agent.py", line 2' in line
    assert "treadle" not in line.replace(str(folder), "")


async def test_what_a_run_is_told_of_its_request(folder):
    (folder / "agent.py").write_text(
        AGENT.replace("state: State) -> State", "state: State, config: RunnableConfig) -> State")
        .replace(
            'return {"said": "hello"}', 'return {"said": str(config["configurable"]["x-tier"])}'
        )
        .replace(
            "import asyncio\n",
            "import asyncio\nfrom langchain_core.runnables import RunnableConfig\n",
        )
    )
    http = {"configurable_headers": {"includes": ["x-*"]}}
    async with server_of(folder, http=http).open() as app, client_of(app) as client:
        body = {"assistant_id": "agent", "input": {}}
        answer = await client.post("/runs/wait", json=body, headers={"x-tier": "gold"})
        assert answer.json() == {"said": "gold"}
