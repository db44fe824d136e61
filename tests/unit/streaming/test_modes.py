"""The v1 stream modes: what a graph streams, as named events in JSON."""

from __future__ import annotations

import operator
from itertools import pairwise
from typing import Annotated, Any, TypedDict

import pytest
from langchain_core.language_models import GenericFakeChatModel
from langchain_core.messages import AIMessage, AIMessageChunk, HumanMessage, ToolMessage
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.config import get_stream_writer
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.types import interrupt

from treadle.serialization import loads
from treadle.streaming.modes import GRAPH_MODES, Encoder, graph_modes, matches


class State(TypedDict):
    text: str
    trail: Annotated[list[str], operator.add]


def first(state: State) -> Any:
    return {"trail": ["first"]}


def second(state: State) -> Any:
    get_stream_writer()({"note": "from second"})
    return {"trail": ["second"]}


def ask(state: State) -> Any:
    return {"trail": [interrupt("well?")]}


def chain(*nodes: Any) -> Any:
    return StateGraph(State).add_sequence(nodes).add_edge(START, nodes[0].__name__)


CONFIGURABLE = {
    "thread_id": "t",
    "mine": 1,
    "langgraph_auth_user": {"secret": 1},
    "langgraph_auth_user_id": "x",
    "langgraph_auth_permissions": [],
    "langgraph_request_id": "r",
    "__request_start_time_ms__": 5,
}


async def events(
    builder: Any, *modes: str, given: Any = None, subgraphs: bool = False
) -> list[tuple[str, Any]]:
    """What a run of a graph sends in ``modes``."""
    encoder = Encoder(modes)
    found: list[tuple[str, Any]] = []
    graph = builder.compile(checkpointer=InMemorySaver())
    async for namespace, mode, payload in graph.astream(
        given or {"text": "hi", "trail": []},
        {"configurable": dict(CONFIGURABLE)},
        stream_mode=sorted({*graph_modes(modes), "values", "updates"}),
        subgraphs=True,
    ):
        if subgraphs or not namespace:
            found += [
                (name, loads(data)) for name, data in encoder.encode(namespace, mode, payload)
            ]
    return found


# -- each mode ---------------------------------------------------------------------------------


async def test_values():
    states = [data for _, data in await events(chain(first, second), "values")]
    assert states == [
        {"text": "hi", "trail": []},
        {"text": "hi", "trail": ["first"]},
        {"text": "hi", "trail": ["first", "second"]},
    ]


async def test_updates():
    assert await events(chain(first, second), "updates") == [
        ("updates", {"first": {"trail": ["first"]}}),
        ("updates", {"second": {"trail": ["second"]}}),
    ]


async def test_custom():
    assert await events(chain(first, second), "custom") == [("custom", {"note": "from second"})]


async def test_tasks():
    [begun, ended] = [data for _, data in await events(chain(first), "tasks")]
    assert begun["name"] == ended["name"] == "first"
    assert begun["id"] == ended["id"]
    assert {"id", "name", "input", "triggers"} <= begun.keys()
    assert (ended["result"], ended["error"], ended["interrupts"]) == (
        {"trail": ["first"]},
        None,
        [],
    )


async def test_checkpoints_show_configs_as_clients_know_them():
    found = [data for _, data in await events(chain(first), "checkpoints")]
    assert [data["metadata"]["step"] for data in found] == [-1, 0, 1]
    assert found[0]["parent_config"] is None
    for one, other in pairwise(found):
        assert other["parent_config"] == one["config"]
        configurable = one["config"]["configurable"]
        assert configurable.keys() == {"thread_id", "mine", "checkpoint_ns", "checkpoint_id"}
        assert not [key for key in one["metadata"] if key.startswith(("langgraph_", "__"))]


async def test_debug_checkpoints_name_their_place():
    found = [data for _, data in await events(chain(first), "debug")]
    kinds = [data["type"] for data in found]
    assert kinds == ["checkpoint", "checkpoint", "task", "task_result", "checkpoint"]
    payload = found[1]["payload"]
    parent = found[0]["payload"]["config"]["configurable"]["checkpoint_id"]
    assert found[0]["payload"]["parent_checkpoint"] is None
    assert payload["parent_checkpoint"]["checkpoint_id"] == parent
    assert payload["checkpoint"].keys() == {"thread_id", "checkpoint_ns", "checkpoint_id"}
    assert "langgraph_auth_user" not in str(found)


async def test_checkpoints_with_subgraphs_hide_the_internals_of_their_tasks_too():
    inner = chain(first).compile()
    builder = StateGraph(State).add_node("middle", inner).add_edge(START, "middle")
    found = await events(builder, "checkpoints", "debug", subgraphs=True)
    states = [
        task["state"]
        for name, data in found
        if name.startswith("checkpoints")
        for task in data["tasks"]
        if task.get("state")
    ]
    assert states
    assert "langgraph_auth" not in str(found)
    assert "langgraph_request_id" not in str(found)


async def test_the_payloads_of_a_graph_are_not_changed():
    """Other consumers of the same stream get the same objects."""
    payload = {
        "config": {"configurable": dict(CONFIGURABLE)},
        "parent_config": None,
        "values": {},
        "metadata": {},
        "next": [],
        "tasks": [{"id": "1", "state": {"configurable": dict(CONFIGURABLE)}}],
    }
    list(Encoder(["checkpoints"]).encode((), "checkpoints", payload))
    list(Encoder(["debug"]).encode((), "debug", {"type": "checkpoint", "payload": payload}))
    assert payload["config"]["configurable"] == CONFIGURABLE
    assert payload["tasks"][0]["state"]["configurable"] == CONFIGURABLE
    assert "checkpoint" not in payload


async def test_interrupts():
    found = await events(chain(first, ask), "values", "updates")
    [asked] = found[-2][1]["__interrupt__"]
    assert found[-2][0] == "updates"
    assert asked["value"] == "well?"
    assert found[-1] == (
        "values",
        {"text": "hi", "trail": ["first"], "__interrupt__": [asked]},
    )


async def test_modes_that_were_not_asked_for_are_not_sent():
    for mode in ("values", "updates", "custom", "tasks", "debug"):
        names = {name for name, _ in await events(chain(first, second), mode)}
        assert names == {mode}


async def test_events_of_subgraphs_carry_their_namespace():
    inner = chain(first).compile()
    builder = StateGraph(State).add_node("middle", inner).add_edge(START, "middle")
    names = [name for name, _ in await events(builder, "updates", subgraphs=True)]
    assert names[0].startswith("updates|middle:")
    assert names[1] == "updates"


def test_a_namespace_of_several_levels():
    [(name, data)] = Encoder(["values"]).encode(("a:1", "b:2"), "values", {"x": 1})
    assert (name, data) == ("values|a:1|b:2", b'{"x":1}')


# -- messages ----------------------------------------------------------------------------------


def answering(*words: str) -> Any:
    model = GenericFakeChatModel(messages=iter([AIMessage(" ".join(words), id="answer")]))

    async def reply(state: MessagesState) -> Any:
        return {"messages": [await model.ainvoke(state["messages"])]}

    async def stamp(state: MessagesState) -> Any:
        return {"messages": [ToolMessage("done", tool_call_id="1", id="tool")]}

    return StateGraph(MessagesState).add_sequence([reply, stamp]).add_edge(START, "reply")


GIVEN = {"messages": [HumanMessage("hello", id="question")]}


async def test_messages_tuple_sends_pieces_with_their_metadata():
    found = await events(answering("one", "two"), "messages-tuple", given=GIVEN)
    assert {name for name, _ in found} == {"messages"}
    pieces = [(chunk["type"], chunk["content"]) for _, (chunk, _) in found]
    assert pieces[:3] == [
        ("AIMessageChunk", "one"),
        ("AIMessageChunk", " "),
        ("AIMessageChunk", "two"),
    ]
    assert pieces[-1] == ("tool", "done")
    assert [metadata["langgraph_node"] for _, (_, metadata) in found][-1] == "stamp"
    assert "question" not in str(found)


async def test_messages_grow_on_the_server():
    found = await events(answering("one", "two"), "messages", given=GIVEN)
    names = [name for name, _ in found]
    assert names[0] == "messages/metadata"
    assert names[-2:] == ["messages/metadata", "messages/complete"]
    assert set(names[1:-2]) == {"messages/partial"}
    contents = [data[0]["content"] for name, data in found if name == "messages/partial"]
    assert contents[:3] == ["one", "one ", "one two"]
    assert all(data[0]["type"] == "ai" for name, data in found if name == "messages/partial")
    [key] = found[0][1]
    assert found[0][1][key]["metadata"]["langgraph_node"] == "reply"
    assert found[-1][1][0]["content"] == "done"


async def test_with_both_forms_only_tuples_are_sent():
    found = await events(answering("one"), "messages", "messages-tuple", given=GIVEN)
    assert {name for name, _ in found} == {"messages"}


def test_metadata_is_encoded_once_for_the_tokens_of_an_answer():
    encoder = Encoder(["messages-tuple"])
    shared = {"langgraph_node": "a", "tags": ["x"]}

    def pair(text: str, metadata: Any) -> Any:
        payload = (AIMessageChunk(text, id="1"), metadata)
        [(_, data)] = encoder.encode((), "messages", payload)
        return loads(data)[1]

    assert pair("a", shared) == pair("b", shared) == shared
    assert pair("c", {"langgraph_node": "b"}) == {"langgraph_node": "b"}
    assert pair("d", shared) == shared


def test_messages_of_two_answers_grow_apart():
    encoder = Encoder(["messages"])
    contents: list[tuple[str, str]] = []
    for text, id in (("a", "1"), ("x", "2"), ("b", "1"), ("y", "2")):
        for name, data in encoder.encode((), "messages", (AIMessageChunk(text, id=id), {})):
            if name == "messages/partial":
                [message] = loads(data)
                contents.append((message["id"], message["content"]))
    assert contents == [("1", "a"), ("2", "x"), ("1", "ab"), ("2", "xy")]


def test_tool_calls_are_parsed_as_far_as_they_have_come():
    encoder = Encoder(["messages"])
    calls: list[Any] = []
    for args in ('{"city":', ' "Par', 'is"}'):
        chunk = AIMessageChunk(
            "",
            id="1",
            tool_call_chunks=[{"name": None, "args": args, "id": "c", "index": 0}]
            if calls
            else [{"name": "weather", "args": args, "id": "c", "index": 0}],
        )
        for name, data in encoder.encode((), "messages", (chunk, {})):
            if name == "messages/partial":
                calls.append(loads(data)[0]["tool_calls"][0]["args"])
    assert calls[-1] == {"city": "Paris"}
    assert len(calls) == 3


# -- which modes -------------------------------------------------------------------------------


def test_the_modes_of_langgraph_behind_those_of_the_api():
    assert graph_modes(["values", "messages", "messages-tuple", "events"]) == ["messages", "values"]
    assert graph_modes(["events"]) == []
    assert graph_modes(GRAPH_MODES) == sorted({*GRAPH_MODES} - {"events", "messages-tuple"})


@pytest.mark.parametrize(
    ("name", "modes", "expected"),
    [
        ("values", {"values"}, True),
        ("values", {"updates"}, False),
        ("values|a:1|b:2", {"values"}, True),
        ("messages", {"messages"}, True),
        ("messages", {"messages-tuple"}, True),
        ("messages/partial", {"messages"}, True),
        ("messages/partial", {"messages-tuple"}, True),
        ("messages|a:1", {"messages-tuple"}, True),
        ("metadata", {"values"}, False),
        ("updates|messages:1", {"messages"}, False),
        ("values", set(), False),
    ],
)
def test_which_events_belong_to_modes(name, modes, expected):
    assert matches(name, frozenset(modes)) is expected
