"""The graph of ``worker_pair.py``: two steps that do next to nothing."""

from __future__ import annotations

from typing import TypedDict

from langgraph.graph import START, StateGraph


class State(TypedDict):
    number: int


async def one(state: State) -> State:
    return {"number": state["number"] + 1}


async def two(state: State) -> State:
    return {"number": state["number"] * 2}


light = (
    StateGraph(State)
    .add_node(one)
    .add_node(two)
    .add_edge(START, "one")
    .add_edge("one", "two")
    .compile()
)
