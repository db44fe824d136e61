"""Graphs to run on the checkpointer."""

from __future__ import annotations

import operator
from dataclasses import dataclass
from enum import Enum
from typing import Annotated, Any, NamedTuple, TypedDict

from langgraph.channels.delta import DeltaChannel
from langgraph.graph import START, StateGraph
from langgraph.types import interrupt
from pydantic import BaseModel

THREAD = """
INSERT INTO threads (thread_id, created_at, updated_at, state_updated_at)
VALUES (:id, :now, :now, :now)
"""


class Log(TypedDict, total=False):
    log: Annotated[list[Any], operator.add]
    last: Any


def extend(value: list[Any], writes: list[list[Any]]) -> list[Any]:
    return [*value, *(item for write in writes for item in write)]


class DeltaLog(TypedDict, total=False):
    log: Annotated[list[Any], DeltaChannel(extend, snapshot_frequency=3)]
    last: Any


def chain(state: type[Any], *names: str, checkpointer: Any = None, asks: str = "") -> Any:
    """A graph of nodes in a row; each adds its name to ``log``, the one that asks its answer."""
    graph = StateGraph(state)
    previous = START
    for name in names:

        def node(_: Any, name: str = name) -> dict[str, Any]:
            word = interrupt(f"{name}?") if name == asks else name
            return {"log": [word], "last": word}

        graph.add_node(name, node)
        graph.add_edge(previous, name)
        previous = name
    return graph.compile(checkpointer=checkpointer)


@dataclass
class Point:
    x: int
    y: int


class Colour(Enum):
    RED = "red"


class Model(BaseModel):
    name: str
    points: list[Point]
    colour: Colour | None = None


class Pair(NamedTuple):
    left: int
    right: int


class Plain:
    """Not a data class: nobody knows how to write it."""


def never_to_be_called(*_: Any) -> None:
    raise AssertionError("the database called a function")
