"""The graphs that the promises are tested with. What nodes do is written to a journal."""

from __future__ import annotations

import asyncio
import json
import operator
import os
import sys
from collections.abc import Callable
from typing import Annotated, Any, TypedDict

from langchain_core.runnables import RunnableConfig
from langgraph.config import get_stream_writer
from langgraph.graph import START, StateGraph
from langgraph.stream.transformers import CustomTransformer
from langgraph.types import interrupt


class State(TypedDict, total=False):
    seconds: float
    events: int
    size: int
    log: Annotated[list[str], operator.add]


def note(config: RunnableConfig, what: str) -> None:
    """A line in the journal: it is whole, and there even if the process is killed right after."""
    place = config["configurable"]
    line = json.dumps([place["thread_id"], place["run_id"], what]) + "\n"
    file = os.open(os.environ["JOURNAL"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(file, line.encode())
    os.close(file)


def step(name: str) -> Callable[..., Any]:
    async def run(state: State, config: RunnableConfig) -> State:
        note(config, f"+{name}")
        await asyncio.sleep(state.get("seconds", 0))
        note(config, f"-{name}")
        return {"log": [name]}

    return run


async def say(state: State) -> State:
    write = get_stream_writer()
    for number in range(state.get("events", 0)):
        write({"number": number, "text": "x" * state.get("size", 10)})
        await asyncio.sleep(state.get("seconds", 0))
    return {"log": ["said"]}


async def explode(state: State) -> State:
    raise ValueError("the boiler exploded")


async def leave(state: State) -> State:
    sys.exit(3)


async def ask(state: State) -> State:
    return {"log": [str(interrupt("well?"))]}


def graph_of(transformers: Any = (), **nodes: Any) -> Any:
    builder = StateGraph(State)
    before = START
    for name, node in nodes.items():
        builder.add_node(name, node).add_edge(before, name)
        before = name
    return builder.compile(transformers=transformers)


steps = graph_of(a=step("a"), b=step("b"), c=step("c"))
talk = graph_of(say=say)
speech = graph_of([CustomTransformer], say=say, act=step("act"))
boom = graph_of(a=step("a"), explode=explode)
question = graph_of(a=step("a"), ask=ask)
nested = graph_of(inner=question)
quits = graph_of(a=step("a"), leave=leave)
