"""The agents of these tests. Tests import this module too: they hold the gates in their hands."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from typing import Annotated, Any

from langchain_core.language_models.fake_chat_models import GenericFakeChatModel
from langchain_core.messages import AIMessage, AnyMessage, ToolMessage
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.graph.message import add_messages
from langgraph.types import interrupt
from typing_extensions import TypedDict

gates: defaultdict[str, asyncio.Event] = defaultdict(asyncio.Event)
"""What a ``gated`` node waits for, by the text of its message."""

started: defaultdict[str, asyncio.Event] = defaultdict(asyncio.Event)
"""Set when it begins to wait."""


def reset() -> None:
    gates.clear()
    started.clear()


async def reply(state: MessagesState) -> Any:
    said = [m.text for m in state["messages"] if m.type == "human"]
    return {"messages": [AIMessage(f"You said: {said[-1] if said else 'nothing'} ({len(said)})")]}


async def gate(state: MessagesState) -> Any:
    name = state["messages"][-1].text
    started[name].set()
    await gates[name].wait()
    return {}


async def speak(state: MessagesState) -> Any:
    model = GenericFakeChatModel(messages=iter([AIMessage("one two three")]))
    return {"messages": [await model.ainvoke(state["messages"])]}


async def explode(state: MessagesState) -> Any:
    raise ValueError("the-secret-detail")


async def ask(state: MessagesState) -> Any:
    return {"messages": [AIMessage(f"Booked {interrupt('Which city?')}")]}


async def ask_here(state: MessagesState) -> Any:
    return {"messages": [AIMessage(f"here: {interrupt('here?')}", id="here")]}


async def ask_there(state: MessagesState) -> Any:
    return {"messages": [AIMessage(f"there: {interrupt('there?')}", id="there")]}


async def use_tool(state: MessagesState) -> Any:
    call = {"name": "look", "args": {}, "id": "1"}
    return {"messages": [AIMessage("", tool_calls=[call]), ToolMessage("seen", tool_call_id="1")]}


class Order(TypedDict, total=False):
    messages: Annotated[list[AnyMessage], add_messages]
    item: str
    count: int


async def take_order(state: Order) -> Any:
    return {"count": state.get("count", 0) * 2}


class Calc(TypedDict):
    a: int
    b: int


async def add(state: Calc) -> Any:
    return {"a": state["a"] + state["b"]}


def graph_of(state: Any, *nodes: Any) -> Any:
    builder = StateGraph(state)
    before = START
    for node in nodes:
        builder.add_node(node.__name__, node).add_edge(before, node.__name__)
        before = node.__name__
    return builder.compile()


chat = graph_of(MessagesState, reply)
gated = graph_of(MessagesState, gate, reply)
tokens = graph_of(MessagesState, speak, gate)
broken = graph_of(MessagesState, explode)
booking = graph_of(MessagesState, ask)
tool = graph_of(MessagesState, use_tool, reply)
order = graph_of(Order, take_order)
calc = graph_of(Calc, add)
two = (
    StateGraph(MessagesState)
    .add_node(ask_here)
    .add_node(ask_there)
    .add_edge(START, "ask_here")
    .add_edge(START, "ask_there")
    .compile()
)

NAMES = ("chat", "gated", "tokens", "broken", "booking", "tool", "order", "calc", "two")
