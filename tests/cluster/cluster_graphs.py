"""Graphs for the tests of clusters. Inputs say how long they take."""

from __future__ import annotations

import asyncio
import operator
import os
import time
from typing import Annotated, Any

from langgraph.config import get_stream_writer
from langgraph.graph import END, START, StateGraph
from langgraph.stream.transformers import CustomTransformer, UpdatesTransformer
from langgraph.types import interrupt
from typing_extensions import TypedDict


class State(TypedDict, total=False):
    log: Annotated[list[str], operator.add]
    pids: Annotated[list[int], operator.add]
    n: int
    size: int
    pause: float
    token: str


def _graph(*nodes: Any, **options: Any) -> Any:
    graph = StateGraph(State)
    names = [node.__name__ for node in nodes]
    for name, node in zip(names, nodes, strict=True):
        graph.add_node(name, node)
    for one, other in zip([START, *names], [*names, END], strict=True):
        graph.add_edge(one, other)
    return graph.compile(**options)


async def speak(state: State) -> State:
    """Send ``n`` custom events of ``size`` bytes more with a pause between them."""
    write = get_stream_writer()
    more = {"more": "x" * state["size"]} if "size" in state else {}
    for number in range(state.get("n", 10)):
        write({"number": number, **more})
        await asyncio.sleep(state.get("pause", 0.0))
    return {"log": ["spoken"], "pids": [os.getpid()]}


async def one(state: State) -> State:
    await asyncio.sleep(state.get("pause", 0.0))
    return {"log": [f"{state.get('token', '')}:one"], "pids": [os.getpid()]}


async def two(state: State) -> State:
    await asyncio.sleep(state.get("pause", 0.0))
    return {"log": [f"{state.get('token', '')}:two"], "pids": [os.getpid()]}


async def three(state: State) -> State:
    await asyncio.sleep(state.get("pause", 0.0))
    return {"log": [f"{state.get('token', '')}:three"], "pids": [os.getpid()]}


def confirm(state: State) -> State:
    return {"log": [f"said {interrupt('go on?')}"], "pids": [os.getpid()]}


async def burst(state: State) -> State:
    raise ValueError("it was meant to fail")


def block(state: State) -> State:
    """Hold up the event loop."""
    time.sleep(state.get("pause", 0.0))
    return {"log": ["blocked"], "pids": [os.getpid()]}


async def wait(state: State) -> State:
    return block(state)


count = _graph(one)
talk = _graph(speak)
fail = _graph(one, burst)
steps = _graph(one, two, three)
stuck = _graph(wait, one)
dialogue = _graph(one, speak, confirm, transformers=[CustomTransformer, UpdatesTransformer])
