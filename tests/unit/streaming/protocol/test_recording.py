"""From what real graphs stream to the entries of the log."""

from __future__ import annotations

import asyncio
import json
import operator
from dataclasses import dataclass
from typing import Annotated, Any, TypedDict

import pytest
from langchain_core._api import suppress_langchain_beta_warning
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.config import get_stream_writer
from langgraph.graph import START, StateGraph
from langgraph.stream.transformers import CustomTransformer, TasksTransformer, UpdatesTransformer
from langgraph.types import Command, interrupt
from pydantic import BaseModel

from treadle.streaming.protocol.envelope import Emission
from treadle.streaming.protocol.recording import Recorder, state_json

THREAD = {"configurable": {"thread_id": "1"}}


class Items(TypedDict, total=False):
    items: Annotated[list[str], operator.add]


def step(name: str) -> Any:
    async def run(state: Items) -> Items:
        get_stream_writer()({"name": "progress", "at": name})
        return {"items": [name]}

    return run


def ask(name: str) -> Any:
    async def run(state: Items) -> Items:
        return {"items": [interrupt(name)]}

    return run


async def fail(state: Items) -> Items:
    raise ValueError("kaboom")


def chain(*nodes: tuple[str, Any], **options: Any) -> Any:
    graph = StateGraph(Items)
    before = START
    for name, node in nodes:
        graph.add_node(name, node)
        graph.add_edge(before, name)
        before = name
    return graph.compile(**options)


class Told:
    """What a recorder told of a graph's run."""

    def __init__(self) -> None:
        self.emissions: list[Emission] = []
        self.recorder = Recorder(self.emissions.append, lambda: "start")

    async def run(self, graph: Any, given: Any, saver: InMemorySaver | None = None) -> Any:
        graph = graph.copy(update={"checkpointer": saver or InMemorySaver()})
        with suppress_langchain_beta_warning():
            events = await graph.astream_events(
                given, THREAD, version="v3", transformers=[self.recorder.tap]
            )
        self.recorder.tasks = "tasks" in events.extensions
        try:
            async for event in events:
                self.recorder.see(event)
        finally:
            self.recorder.finish()
        return graph

    @property
    def names(self) -> list[str]:
        return [emission.name.split(":")[0] for emission in self.emissions]

    def data(self, name: str) -> list[Any]:
        return [json.loads(e.data) for e in self.emissions if e.name.split("|")[0] == name]


@pytest.fixture
def told() -> Told:
    return Told()


async def test_values_name_their_checkpoints(told):
    saver = InMemorySaver()
    graph = await told.run(chain(("a", step("a")), ("b", step("b"))), {"items": ["in"]}, saver)
    assert told.data("values") == [
        {"items": ["in"]}, {"items": ["in", "a"]}, {"items": ["in", "a", "b"]},
    ]  # fmt: skip
    found = [json.loads(b"{%b}" % emission.params)["checkpoint"] for emission in told.emissions]
    history = [state async for state in graph.aget_state_history(THREAD)]
    ids = [state.config["configurable"]["checkpoint_id"] for state in history][::-1]
    assert [checkpoint["id"] for checkpoint in found] == ids[1:]
    assert [checkpoint["parent_id"] for checkpoint in found] == ids[:-1]
    assert [(checkpoint["step"], checkpoint["source"]) for checkpoint in found] == [
        (0, "loop"), (1, "loop"), (2, "loop"),
    ]  # fmt: skip


async def test_what_a_graph_opts_in_to_is_told(told):
    transformers = [CustomTransformer, TasksTransformer, UpdatesTransformer]
    await told.run(chain(("a", step("a")), transformers=transformers), {})
    assert told.names == ["tasks", "custom", "updates", "tasks", "values"]
    assert told.data("updates") == [{"a": {"items": ["a"]}}]
    custom = next(e for e in told.emissions if e.name == "custom")
    assert (custom.label, json.loads(custom.data)) == ("progress", {"name": "progress", "at": "a"})


async def test_and_nothing_else(told):
    await told.run(chain(("a", step("a"))), {})
    assert told.names == ["values"]


async def test_interrupts_come_before_the_values_at_which_the_run_pauses(told):
    graph = StateGraph(Items)
    for name in ("left", "right"):
        graph.add_node(name, ask(name))
        graph.add_edge(START, name)
    await told.run(graph.compile(), {"items": ["in"]})
    assert told.names == ["values", "input.requested", "input.requested", "values"]
    asked = told.data("input.requested")
    assert {one["payload"] for one in asked} == {"left", "right"}
    assert [one["value"] for one in asked] == [one["payload"] for one in asked]


async def test_interrupts_are_no_updates_of_a_node(told):
    await told.run(chain(("ask", ask("why")), transformers=[UpdatesTransformer]), {"items": []})
    assert told.data("updates") == []


async def test_newer_values_take_the_place_of_those_at_which_the_run_pauses(told):
    asked = asyncio.Event()

    async def ask_first(state: Items) -> Items:
        asked.set()
        return {"items": [interrupt("why")]}

    async def work_on(state: Items) -> Items:
        await asked.wait()
        await asyncio.sleep(0)
        return {"items": ["worked"]}

    graph = StateGraph(Items).add_node("ask", ask_first).add_node("work", work_on)
    graph.add_edge(START, "ask").add_edge(START, "work")
    await told.run(graph.compile(), {"items": []})
    assert told.data("values")[-1] == {"items": ["worked"]}


async def test_a_graph_that_stops_at_a_breakpoint_waits(told):
    nodes = ("a", step("a")), ("b", step("b"))
    saver = InMemorySaver()
    await told.run(chain(*nodes, interrupt_before=["b"]), {"items": []}, saver)
    assert told.recorder.waits
    later = Told()
    await later.run(chain(*nodes), None, saver)
    assert not later.recorder.waits


class Model(BaseModel):
    name: str = "nobody"
    count: int = 0


@dataclass
class Record:
    name: str = "nobody"
    count: int = 0


@pytest.mark.parametrize(
    ("values", "shown"),
    [
        (Model(count=1), {"count": 1}),
        (Record(count=1), {"name": "nobody", "count": 1}),
        ({"count": 1}, {"count": 1}),
        (5, 5),
    ],
)
def test_a_state_of_any_class_is_an_object(values, shown):
    assert state_json(values) == shown


async def test_an_interrupt_is_of_the_graph_that_asks(told):
    inner = chain(("ask", ask("inner")))
    await told.run(chain(("sub", inner)), {"items": ["in"]})
    [asked] = [e for e in told.emissions if e.name.startswith("input.requested")]
    assert asked.name.startswith("input.requested|sub:")
    assert asked.label == json.loads(asked.data)["interrupt_id"]
    ends = [d["event"] for d in told.data("lifecycle")]
    assert ends == ["started", "interrupted"]


async def test_a_run_that_goes_on_begins_with_the_checkpoint_that_it_starts_from(told):
    saver = InMemorySaver()
    graph = chain(("ask", ask("name")))
    paused = await Told().run(graph, {"items": ["in"]}, saver)
    start = (await paused.aget_state(THREAD)).config["configurable"]["checkpoint_id"]
    await told.run(graph, Command(resume="Ada"), saver)
    first = told.emissions[0]
    assert (first.name, json.loads(b"{%b}" % first.params)["checkpoint"]["id"]) == ("values", start)
    assert told.data("values")[-1] == {"items": ["in", "Ada"]}


async def test_subgraphs_end_with_their_names_and_errors(told):
    inner = chain(("boom", fail))
    with pytest.raises(ValueError, match="kaboom"):
        await told.run(chain(("sub", inner)), {"items": ["in"]})
    started, ended = told.data("lifecycle")
    assert (started["event"], started["graph_name"]) == ("started", "sub")
    assert ended == {"event": "failed", "graph_name": "sub", "error": "kaboom"}
    assert list(told.recorder.children_left("interrupted", None)) == []


async def test_subgraphs_that_a_run_leaves_behind_end_innermost_first(told):
    for namespace in (["a:1"], ["a:1", "b:2"]):
        data = {"event": "started", "namespace": namespace, "graph_name": namespace[-1][0]}
        params = {"namespace": [], "data": data}
        told.recorder.see({"method": "lifecycle", "params": params})
    left = list(told.recorder.children_left("interrupted", None))
    assert [(e.name, json.loads(e.data)["graph_name"]) for e in left] == [
        ("lifecycle|a:1|b:2", "b"), ("lifecycle|a:1", "a"),
    ]  # fmt: skip
    assert list(told.recorder.children_left("interrupted", None)) == []


async def test_all_that_is_told_is_numbered(told):
    await told.run(chain(("a", step("a"))), {"items": ["in"]})
    assert all(emission.numbered for emission in told.emissions)
