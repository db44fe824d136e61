"""A run is its caller's, in whatever way it was asked for, and nobody poses as another."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from structlog.testing import capture_logs

import treadle.crons.service
import treadle.crons.ticker
from treadle.clock import SECOND_US, now_us
from treadle.config import load_config
from treadle.server import Server
from treadle.settings import Settings

AUTH = """
from dataclasses import dataclass, field
from langgraph_sdk import Auth

auth = Auth()

@dataclass
class Person:
    identity: str
    permissions: list = field(default_factory=lambda: ["read"])

@auth.authenticate
async def authenticate(authorization):
    name = (authorization or "").removeprefix("Bearer ")
    if not name:
        raise Auth.exceptions.HTTPException(detail="Missing token")
    if name == "object":
        return Person(name)
    return {"identity": name, "permissions": ["read"], "team": {"name": "red"}}
"""
GRAPHS = """
import asyncio
from pathlib import Path
from typing import Any
from langgraph.graph import START, StateGraph
from langgraph.runtime import Runtime
from langgraph_sdk.runtime import ServerRuntime
from typing_extensions import TypedDict

SLOW = Path(__file__).with_name("slow")

class State(TypedDict, total=False):
    who: Any
    slow: bool

class Context(TypedDict, total=False):
    tone: str
    langgraph_auth_user_id: str

def seen(config, runtime, user=None):
    c = config["configurable"]
    user = user or c["langgraph_auth_user"]
    return {"who": {
        "user": None if user is None else dict(user),
        "attributes": None if user is None else [user.identity, user.permissions],
        "id": c["langgraph_auth_user_id"], "permissions": c["langgraph_auth_permissions"],
        "user_id": c["user_id"], "context": dict(runtime.context or {}),
    }}

async def look(state, config, runtime: Runtime):
    if state.get("slow"):
        if not SLOW.exists():
            SLOW.touch()
            await asyncio.sleep(60)
    return seen(config, runtime)

who = (StateGraph(State, context_schema=Context).add_node(look).add_edge(START, "look").compile())

BUILT = []

async def built(config, runtime: ServerRuntime):
    c = config["configurable"]
    BUILT.append((runtime.access_context, runtime.user and runtime.user.identity,
                  c["langgraph_auth_user_id"], dict(c["langgraph_auth_user"] or {})))

    async def look(state, config, runtime: Runtime):
        return seen(config, runtime)

    return StateGraph(State).add_node(look).add_edge(START, "look").compile()
"""
ANN = {
    "identity": "ann",
    "is_authenticated": True,
    "display_name": "ann",
    "permissions": ["read"],
    "team": {"name": "red"},
}
SEEN = {
    "user": ANN,
    "attributes": ["ann", ["read"]],
    "id": "ann",
    "permissions": ["read"],
    "user_id": "ann",
    "context": {"langgraph_auth_user_id": "ann"},  # its schema has that key
}
FORGED = {
    "langgraph_auth_user": {"identity": "root"},
    "langgraph_auth_user_id": "root",
    "langgraph_auth_permissions": ["admin"],
}
WHO = {"assistant_id": "who", "input": {}}


@pytest.fixture(autouse=True)
def logged() -> Iterator[list[Any]]:
    with capture_logs() as logged:
        yield logged


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setattr(sys, "path", list(sys.path))
    (tmp_path / "user_graphs.py").write_text(GRAPHS)
    (tmp_path / "user_auth.py").write_text(AUTH)
    graphs = {"who": "./user_graphs.py:who", "built": "./user_graphs.py:built"}
    config = {"graphs": graphs, "auth": {"path": "./user_auth.py:auth"}}
    (tmp_path / "langgraph.json").write_text(json.dumps(config))
    yield tmp_path
    for name in ("user_graphs", "user_auth"):
        sys.modules.pop(name, None)


class House:
    def __init__(self, server: Server, http: httpx.AsyncClient) -> None:
        self.server, self.http = server, http

    async def post(self, path: str, body: Any, name: str = "ann") -> Any:
        headers = {"Authorization": f"Bearer {name}"}
        answer = await self.http.post(path, json=body, headers=headers)
        assert answer.status_code < 300, answer.text
        return answer.json() if "json" in answer.headers["content-type"] else answer.text

    async def get(self, path: str, name: str = "ann") -> Any:
        answer = await self.http.get(path, headers={"Authorization": f"Bearer {name}"})
        assert answer.status_code == 200, answer.text
        return answer.json()

    async def thread(self) -> str:
        return (await self.post("/threads", {}))["thread_id"]

    async def joined(self, run: Any) -> Any:
        ended = await self.get(f"/threads/{run['thread_id']}/runs/{run['run_id']}/join")
        return ended["who"]


@asynccontextmanager
async def opened(folder: Path, **settings: Any) -> AsyncIterator[House]:
    server = Server(load_config(folder / "langgraph.json"), Settings(**settings))
    async with server.open() as app:
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://t") as http:
            yield House(server, http)


@pytest.fixture
async def house(folder: Path) -> AsyncIterator[House]:
    async with opened(folder) as house:
        yield house


async def test_the_run_is_its_callers_in_every_way(house: House):
    thread = await house.thread()
    assert (await house.post("/runs/wait", WHO))["who"] == SEEN
    assert (await house.post(f"/threads/{thread}/runs/wait", WHO))["who"] == SEEN
    run = await house.post(f"/threads/{thread}/runs", WHO)
    assert run["kwargs"]["config"]["configurable"]["langgraph_auth_user"] == ANN
    assert await house.joined(run) == SEEN
    for run in await house.post("/runs/batch", [{**WHO, "on_completion": "keep"}] * 2):
        assert await house.joined(run) == SEEN
    streamed = await house.post(f"/threads/{thread}/runs/stream", WHO)
    last = [line[5:] for line in streamed.splitlines() if line.startswith("data:")][-1]
    assert json.loads(last)["who"] == SEEN
    command = {"id": 1, "method": "run.start", "params": WHO}
    started = await house.post(f"/threads/{thread}/commands", command)
    run = {"thread_id": thread, "run_id": started["result"]["run_id"]}
    assert await house.joined(run) == SEEN


async def test_an_object_is_a_user_too(house: House):
    found = (await house.post("/runs/wait", WHO, "object"))["who"]
    assert found["user"] == {
        "identity": "object", "is_authenticated": True, "display_name": "object"}  # fmt: skip
    assert found["attributes"] == ["object", ["read"]]


async def test_nobody_poses_as_another(house: House):
    thread = await house.thread()
    context_seen = {**SEEN, "context": {"tone": "kind", "langgraph_auth_user_id": "ann"}}
    by_config = {**WHO, "config": {"configurable": FORGED}}
    by_context = {**WHO, "context": {**FORGED, "tone": "kind"}}
    assert (await house.post("/runs/wait", by_config))["who"]["attributes"] == SEEN["attributes"]
    assert (await house.post("/runs/wait", by_context))["who"] == context_seen
    for fields in ({"config": {"configurable": FORGED}}, {"context": {**FORGED, "tone": "kind"}}):
        posing = await house.post("/assistants", {"graph_id": "who", **fields})
        body = {**WHO, "assistant_id": posing["assistant_id"]}
        for more in ({}, {"context": {"tone": "kind"}}):
            found = (await house.post("/runs/wait", {**body, **more}))["who"]
            assert {**found, "context": SEEN["context"]} == SEEN
            assert found["context"]["langgraph_auth_user_id"] == "ann"
    for config in ({"configurable": FORGED}, {"configurable": {**FORGED, "user_id": "root"}}):
        params = {**WHO, "config": config}
        command = {"id": 1, "method": "run.start", "params": params}
        started = await house.post(f"/threads/{thread}/commands", command)
        run = {"thread_id": thread, "run_id": started["result"]["run_id"]}
        found = await house.joined(run)
        assert (found["user"], found["id"], found["permissions"]) == (ANN, "ann", ["read"])


async def test_a_factory_knows_who_reads_writes_and_draws(house: House):
    posing = {"graph_id": "built", "config": {"configurable": FORGED}}
    assistant = (await house.post("/assistants", posing))["assistant_id"]
    thread = await house.thread()
    body = {**WHO, "assistant_id": assistant}
    found = (await house.post(f"/threads/{thread}/runs/wait", body))["who"]
    assert found == {**SEEN, "context": {}}
    await house.get(f"/threads/{thread}/state")
    await house.post(f"/threads/{thread}/state", {"values": {"who": 1}, "as_node": "look"})
    await house.get(f"/assistants/{assistant}/schemas")
    import user_graphs  # pyright: ignore[reportMissingImports]

    kinds = {access for access, *_ in user_graphs.BUILT}
    assert kinds == {"threads.create_run", "threads.read", "threads.update", "assistants.read"}
    assert {tuple(who) for _, *who, _ in user_graphs.BUILT} == {("ann", "ann")}
    assert all(user == ANN for *_, user in user_graphs.BUILT)


async def test_a_crons_runs_are_the_users_who_made_it(house: House, monkeypatch: Any):
    clock = [now_us()]
    for module in (treadle.crons.service, treadle.crons.ticker):
        monkeypatch.setattr(module, "now_us", lambda: clock[0])
    thread = await house.thread()
    forged = {**WHO, "schedule": "* * * * *", "config": {"configurable": FORGED}}
    cron = await house.post(f"/threads/{thread}/runs/crons", forged)
    assert cron["user_id"] == "ann"
    ticker = house.server._ticker
    clock[0] += 61 * SECOND_US
    await ticker.look()
    await asyncio.gather(*ticker._starting.values())
    [run] = await house.get(f"/threads/{thread}/runs")
    assert await house.joined(run) == SEEN


async def test_a_run_that_goes_on_after_a_stop_is_still_its_callers(folder: Path):
    async with opened(folder, shutdown_grace_secs=0.0) as house:
        thread = await house.thread()
        run = await house.post(f"/threads/{thread}/runs", {**WHO, "input": {"slow": True}})
        while not (folder / "slow").exists():  # noqa: ASYNC110
            await asyncio.sleep(0)
    async with opened(folder) as house:
        assert await house.joined(run) == SEEN


async def test_without_authentication_there_is_no_user(folder: Path):
    config = json.loads((folder / "langgraph.json").read_text())
    del config["auth"]
    (folder / "langgraph.json").write_text(json.dumps(config))
    async with opened(folder) as house:
        found = (await house.post("/runs/wait", {**WHO, "config": {"configurable": FORGED}}))["who"]
        assert (found["user"], found["id"], found["permissions"]) == (None, "", [])


async def test_keys_are_users(folder: Path, monkeypatch: Any):
    config = json.loads((folder / "langgraph.json").read_text())
    del config["auth"]
    (folder / "langgraph.json").write_text(json.dumps(config))
    monkeypatch.setenv("TREADLE_API_KEYS", "ops:0123456789abcdef")
    async with opened(folder) as house:
        found = (await house.post("/runs/wait", WHO, "0123456789abcdef"))["who"]
        assert found["attributes"] == ["ops", []]
        assert (await house.http.post("/runs/wait", json=WHO)).status_code == 401
        document = (await house.http.get("/openapi.json")).json()
        assert document["security"] == [{"apiKey": []}, {"bearer": []}]
        assert document["paths"]["/ok"]["get"]["security"] == []
