"""Graphs that leave a trace outside the server, which a crash cannot take back.

Each node appends a line as it begins and one as it ends to a file of its process, in the folder
``CHAOS_JOURNAL``. Times are of the monotonic clock, which all processes of a machine share.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import json
import operator
import os
import time
from collections.abc import Iterator
from typing import Annotated, Any, NotRequired

from langchain_core.runnables import RunnableConfig
from langgraph.graph import START, StateGraph
from langgraph.types import StreamWriter, interrupt
from typing_extensions import TypedDict

HOLDING_THE_GIL = ctypes.PyDLL(None)


class State(TypedDict):
    token: NotRequired[str]
    seconds: NotRequired[float]
    events: NotRequired[int]
    bytes: NotRequired[int]
    deep: NotRequired[bool]
    log: Annotated[list[str], operator.add]


def note(what: str, node: str, config: RunnableConfig, **more: Any) -> None:
    metadata = config.get("metadata", {})
    line = {
        "what": what,
        "at": time.monotonic_ns(),
        "node": node,
        "pid": os.getpid(),
        "run": metadata["run_id"],
        "thread": metadata["thread_id"],
        "attempt": metadata["run_attempt"],
        **more,
    }
    path = os.path.join(os.environ["CHAOS_JOURNAL"], f"{os.getpid()}.jsonl")
    file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        os.write(file, json.dumps(line).encode() + b"\n")
    finally:
        os.close(file)


@contextlib.contextmanager
def noted(node: str, config: RunnableConfig) -> Iterator[None]:
    note("enter", node, config)
    done = False
    try:
        yield
        done = True
    finally:
        note("exit", node, config, done=done)


def step(name: str) -> Any:
    """A node that takes ``seconds`` and adds its name to the log."""

    async def node(state: State, config: RunnableConfig) -> dict[str, Any]:
        with noted(name, config):
            await asyncio.sleep(state.get("seconds", 0))
            return {"log": [f"{state.get('token', '')}:{name}"]}

    node.__name__ = name
    return node


def chain(*names: str) -> Any:
    return StateGraph(State).add_sequence([step(n) for n in names]).add_edge(START, names[0])


steps = chain("one", "two", "three").compile()

fan = (
    StateGraph(State)
    .add_node(step("open"))
    .add_node(step("left"))
    .add_node(step("right"))
    .add_node(step("close"))
    .add_edge(START, "open")
    .add_edge("open", "left")
    .add_edge("open", "right")
    .add_edge(["left", "right"], "close")
    .compile()
)


async def question(state: State, config: RunnableConfig) -> dict[str, Any]:
    with noted("question", config):
        await asyncio.sleep(state.get("seconds", 0))
        answer = interrupt(state.get("token", ""))
        return {"log": [f"{answer}:answer"]}


ask = (
    StateGraph(State)
    .add_node(step("before"))
    .add_node(question)
    .add_node(step("after"))
    .add_edge(START, "before")
    .add_edge("before", "question")
    .add_edge("question", "after")
    .compile()
)


async def cling(state: State, config: RunnableConfig) -> dict[str, Any]:
    """Takes its time to leave when it is cancelled."""
    with noted("cling", config):
        try:
            await asyncio.sleep(state.get("seconds", 0))
        except asyncio.CancelledError:
            await asyncio.sleep(0.2)
            raise
        return {"log": [f"{state.get('token', '')}:cling"]}


stubborn = StateGraph(State).add_node(cling).add_edge(START, "cling").compile()


def wait(state: State, config: RunnableConfig) -> dict[str, Any]:
    """Holds a thread that nobody can cancel."""
    with noted("wait", config):
        time.sleep(state.get("seconds", 0))
        return {"log": [f"{state.get('token', '')}:wait"]}


blocking = StateGraph(State).add_node(wait).add_edge(START, "wait").compile()


async def freeze(state: State, config: RunnableConfig) -> dict[str, Any]:
    """Does what no coroutine should: it stops its event loop, or (``deep``) every thread."""
    with noted("freeze", config):
        if state.get("deep"):
            HOLDING_THE_GIL.usleep(int(state.get("seconds", 0) * 1e6))
        else:
            time.sleep(state.get("seconds", 0))  # noqa: ASYNC251
        return {"log": [f"{state.get('token', '')}:freeze"]}


frozen = StateGraph(State).add_node(freeze).add_edge(START, "freeze").compile()


async def talk(state: State, config: RunnableConfig, writer: StreamWriter) -> dict[str, Any]:
    """Writes ``events`` events of ``bytes`` bytes, spread over ``seconds``."""
    with noted("talk", config):
        events = state.get("events", 10)
        for number in range(events):
            writer({"number": number, "text": "x" * state.get("bytes", 0)})
            await asyncio.sleep(state.get("seconds", 0) / events)
        return {"log": [f"{state.get('token', '')}:talk"]}


chatter = (
    StateGraph(State)
    .add_node(talk)
    .add_node(step("end"))
    .add_edge(START, "talk")
    .add_edge("talk", "end")
    .compile()
)


async def reply(state: State) -> dict[str, Any]:
    return {"log": [state.get("token", "")]}


plain = StateGraph(State).add_node(reply).add_edge(START, "reply").compile()


async def ask_once(state: State) -> dict[str, Any]:
    interrupt("anything")
    return {}


asking = (
    StateGraph(State)
    .add_node(reply)
    .add_node(ask_once)
    .add_edge(START, "reply")
    .add_edge("reply", "ask_once")
    .compile()
)
