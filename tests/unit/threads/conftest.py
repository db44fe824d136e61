import json
import sys

import httpx
import pytest
from langgraph.store.memory import InMemoryStore

from treadle.auth import ANYONE
from treadle.checkpoints.saver import Saver
from treadle.config import load_config
from treadle.graphs import GraphRegistry
from treadle.http.application import Application
from treadle.serialization import dumps, loads
from treadle.threads import models
from treadle.threads.routes import routes
from treadle.threads.service import ThreadService

GRAPHS = """
import operator
from typing import Annotated, Any, TypedDict

from langgraph.graph import END, START, MessagesState, StateGraph
from langgraph.types import Command, interrupt


class Chain(TypedDict, total=False):
    log: Annotated[list, operator.add]
    last: str


def step(name):
    return lambda state: {"log": [name], "last": name}


def chain_of(*names):
    builder = StateGraph(Chain)
    for name in names:
        builder.add_node(name, step(name))
    builder.add_edge(START, names[0])
    for one, next_one in zip(names, names[1:]):
        builder.add_edge(one, next_one)
    return builder


chain = chain_of("a", "b", "c").compile()


def made_chain(config):
    return chain_of("a", "b")


class Ask(TypedDict, total=False):
    answer: Any


def ask(state: Ask):
    return {"answer": interrupt("well?")}


inner = StateGraph(Ask).add_node("ask", ask).add_edge(START, "ask").compile()
nested = StateGraph(Ask).add_node("middle", inner).add_edge(START, "middle").compile()


def route(state) -> Command:
    return Command(goto=END)


fan = (
    StateGraph(Chain)
    .add_node("choose", route, destinations=("loud", END))
    .add_node("loud", step("loud"))
    .add_edge(START, "choose")
    .compile()
)


async def reply(state: MessagesState):
    return {"messages": [{"role": "ai", "content": "Hello!"}]}


chat = StateGraph(MessagesState).add_node(reply).add_edge(START, "reply").compile()


class Anything(TypedDict, total=False):
    data: Any


echo = StateGraph(Anything).add_node("echo", lambda s: {}).add_edge(START, "echo").compile()
"""
NAMES = ("chain", "made_chain", "nested", "fan", "chat", "echo")


@pytest.fixture
def registry(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "path", list(sys.path))
    before = set(sys.modules)
    (tmp_path / "thread_graphs.py").write_text(GRAPHS)
    graphs = {name: f"./thread_graphs.py:{name}" for name in NAMES}
    (tmp_path / "langgraph.json").write_text(json.dumps({"graphs": graphs}))
    config = load_config(tmp_path / "langgraph.json")
    config.enter()
    registry = GraphRegistry(config)
    registry.load()
    yield registry
    for name in set(sys.modules) - before:
        if str(tmp_path) in str(getattr(sys.modules[name], "__file__", "")):
            del sys.modules[name]


@pytest.fixture
def stopped():
    """The threads whose runs were stopped."""
    return []


@pytest.fixture
def announced():
    """The states that were announced, with their threads."""
    return []


@pytest.fixture
def make_service(database, registry, stopped, announced):
    async def stop_runs(thread_id):
        stopped.append(thread_id)

    def make(ttl_default=None):
        return ThreadService(
            database,
            Saver(database),
            registry,
            InMemoryStore(),
            ttl_default=ttl_default,
            stop_runs=stop_runs,
            announce_state=lambda thread_id, state: announced.append((thread_id, state)),
        )

    return make


@pytest.fixture
def service(make_service):
    return make_service()


@pytest.fixture
async def http(service):
    transport = httpx.ASGITransport(Application(routes(service)))
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        yield client


@pytest.fixture
def plain():
    """What a client gets of an answer of the service."""
    return lambda answer: loads(dumps(answer))


@pytest.fixture
def make(service, plain):
    """``await make(graph, ...)``: a thread, as a client gets it."""

    async def make(graph_id=None, **fields):
        metadata = fields.pop("metadata", {})
        if graph_id is not None:
            metadata = {**metadata, "graph_id": graph_id}
        wanted = models.ThreadCreate(metadata=metadata, **fields)
        return plain(await service.create(ANYONE, wanted))

    return make


@pytest.fixture
def update(service, plain):
    async def update(thread_id, values, **fields):
        return plain(
            await service.states.update(ANYONE, thread_id, models.StateUpdate(values, **fields))
        )

    return update


@pytest.fixture
def add_run(database):
    """``await add_run(thread_id, run_id)``: a run that is pending."""

    async def add_run(thread_id, run_id, status="pending"):
        async def write(tx):
            await tx.execute(
                "INSERT INTO runs (run_id, thread_id, assistant_id, graph_id, status, created_at,"
                " updated_at, metadata, kwargs, multitask_strategy)"
                " VALUES (:run_id, :thread_id, 'a', 'g', :status, 1, 1, '{}', '{}', 'reject')",
                {"run_id": run_id, "thread_id": thread_id, "status": status},
            )

        await database.write(write)

    return add_run
