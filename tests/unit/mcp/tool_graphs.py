"""Graphs with all kinds of inputs, outputs and ends."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any

from langchain_core.messages import AIMessage
from langchain_core.runnables import RunnableConfig
from langgraph.config import get_stream_writer
from langgraph.func import entrypoint
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.types import interrupt
from pydantic import BaseModel, Field
from typing_extensions import TypedDict

NAMES = ("add", "talk", "order", "boom", "ask", "wait", "sloppy", "steps", "whoever", "opaque",
         "fussy", "seven")  # fmt: skip

waiting: asyncio.Queue[str] = asyncio.Queue()
doors: dict[str, asyncio.Event] = {}
cancelled: list[str] = []


def reset() -> None:
    global waiting
    waiting = asyncio.Queue()
    doors.clear()
    cancelled.clear()


class Two(TypedDict):
    a: int
    b: int


class Total(TypedDict):
    total: int


class Sum(Two, Total): ...


async def adding(state: Sum) -> Any:
    return {"total": state["a"] + state["b"]}


add = (
    StateGraph(Sum, input_schema=Two, output_schema=Total)
    .add_node("adding", adding)
    .add_edge(START, "adding")
    .compile()
)


async def reply(state: MessagesState) -> Any:
    return {"messages": [AIMessage(f"You said: {state['messages'][-1].content}")]}


talk = StateGraph(MessagesState).add_node("reply", reply).add_edge(START, "reply").compile()


class Order(BaseModel):
    item: str
    count: int = Field(default=1, ge=1)
    note: str | None = None


async def take(state: Order) -> Any:
    return {"note": f"{state.count} x {state.item}"}


order = StateGraph(Order).add_node("take", take).add_edge(START, "take").compile()


class Text(TypedDict, total=False):
    text: str


def of(node: Any, schema: Any = Text) -> Any:
    return StateGraph(schema).add_node("node", node).add_edge(START, "node").compile()


async def fail(state: Text) -> Any:
    raise ValueError("the-secret-detail")


async def asking(state: Text) -> Any:
    return {"text": interrupt({"question": "sure?"})}


async def wait_for_it(state: Text) -> Any:
    name = state["text"]
    doors[name] = asyncio.Event()
    waiting.put_nowait(name)
    try:
        await doors[name].wait()
    except asyncio.CancelledError:
        cancelled.append(name)
        raise
    return {"text": f"{name} is done"}


async def write(state: Text) -> Any:
    get_stream_writer()("half way")
    get_stream_writer()({"percent": 50})
    return {"text": "done"}


async def who(state: Text, config: RunnableConfig) -> Any:
    return {"text": config["configurable"].get("langgraph_auth_user_id", "")}


class Loose(TypedDict, total=False):
    number: int
    words: list[str]


async def break_the_promise(state: Loose) -> Any:
    return {"number": "three", "words": ["a"]}


class Unknown:
    """What pydantic has no schema of."""


class Opaque(TypedDict, total=False):
    what: Annotated[Unknown, "unknown"]
    text: str


async def shout(state: Opaque) -> Any:
    return {"text": state["text"].upper()}


def fussy(config: RunnableConfig) -> Any:
    if "mood" not in config["configurable"]:
        raise ValueError("not in the mood")
    return of(write)


@entrypoint()
async def seven(given: dict[str, Any]) -> int:
    return 7


boom, ask, wait, steps, whoever = (of(node) for node in (fail, asking, wait_for_it, write, who))
sloppy = of(break_the_promise, Loose)
opaque = of(shout, Opaque)
