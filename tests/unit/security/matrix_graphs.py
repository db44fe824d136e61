"""Graphs whose threads hold what another user must never see."""

from __future__ import annotations

from typing import Any

from langchain_core.messages import AIMessage
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.types import interrupt


class State(MessagesState, total=False):
    note: str


async def say(state: State) -> Any:
    return {"messages": [AIMessage("said")]}


async def ask(state: State) -> Any:
    return {"messages": [AIMessage(str(interrupt(state["messages"][-1].text)))]}


def build(node: Any) -> Any:
    return StateGraph(State).add_node("node", node).add_edge(START, "node").compile()


echo, approval = build(say), build(ask)
