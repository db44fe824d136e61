"""The graphs of these tests. Tests import this module too: they hold the gates in their hands."""

from __future__ import annotations

import asyncio
import operator
import threading
from collections import defaultdict
from contextlib import asynccontextmanager
from typing import Annotated, Any, TypedDict

from langgraph.graph import START, StateGraph
from langgraph.types import interrupt

gates: defaultdict[str, asyncio.Event] = defaultdict(asyncio.Event)
"""What a ``gated`` run waits for, by the ``gate`` in its input."""

started: asyncio.Queue[str]
"""The gates that runs have come to, in their order."""

journal: list[str]
"""What nodes did, in its order."""

blocked, unblock = threading.Event(), threading.Event()
"""Set by a ``blocking`` node when it blocks; what it blocks for."""


def reset() -> None:
    """Forget what earlier tests did."""
    global started
    gates.clear()
    started = asyncio.Queue()
    journal.clear()
    blocked.clear()
    unblock.clear()


journal = []


class State(TypedDict, total=False):
    gate: str
    answer: Any
    log: Annotated[list[str], operator.add]


def graph_of(**nodes: Any) -> Any:
    builder = StateGraph(State)
    before = START
    for name, node in nodes.items():
        builder.add_node(name, node).add_edge(before, name)
        before = name
    return builder.compile()


def step(name: str) -> Any:
    async def run(state: State) -> State:
        journal.append(name)
        return {"log": [name]}

    return run


async def wait(state: State) -> State:
    gate = state["gate"]
    journal.append(f"+{gate}")
    started.put_nowait(gate)
    try:
        await gates[gate].wait()
    finally:
        journal.append(f"-{gate}")
    return {"log": [gate]}


async def linger(state: State) -> State:
    """Takes its time when it is cancelled."""
    gate = state["gate"]
    journal.append(f"+{gate}")
    started.put_nowait(gate)
    try:
        await asyncio.Event().wait()
    finally:
        await gates[gate].wait()
        journal.append(f"-{gate}")
    return {}


async def block(state: State) -> State:
    blocked.set()
    unblock.wait(10)
    return {"log": ["unblocked"]}


async def explode(state: State) -> State:
    raise ValueError("the boiler exploded")


async def cancel_itself(state: State) -> State:
    raise asyncio.CancelledError


async def ask(state: State) -> State:
    return {"answer": interrupt("well?")}


def ask_and_log(text: str) -> Any:
    async def run(state: State) -> State:
        return {"log": [interrupt(text)]}

    return run


chain = graph_of(a=step("a"), b=step("b"), c=step("c"))
gated = graph_of(first=step("first"), wait=wait, last=step("last"))
lingering = graph_of(linger=linger)
blocking = graph_of(first=step("first"), block=block)
boom = graph_of(first=step("first"), explode=explode)
self_cancelled = graph_of(first=step("first"), cancel_itself=cancel_itself)
question = graph_of(ask=ask)
questions = (
    StateGraph(State)
    .add_node("one", lambda state: {"log": [interrupt("well?")]})
    .add_node("other", lambda state: {"log": [interrupt("and?")]})
    .add_edge(START, "one")
    .add_edge(START, "other")
    .compile()
)

_twice = StateGraph(State).add_node(
    "ask", lambda state: {"log": [interrupt("first?") + interrupt("second?")]}
)
twice = _twice.add_edge(START, "ask").compile()
nested = (
    StateGraph(State)
    .add_node("asks", graph_of(one=ask_and_log("first?"), other=ask_and_log("second?")))
    .add_edge(START, "asks")
    .compile()
)


@asynccontextmanager
async def badly_closed(config: Any) -> Any:
    yield chain
    raise RuntimeError("the connection was lost while it was closed")


NAMES = (
    "chain",
    "gated",
    "blocking",
    "lingering",
    "boom",
    "self_cancelled",
    "question",
    "questions",
    "twice",
    "nested",
    "badly_closed",
)
