"""What a run is made of: precedence of assistant, thread and request, and what is refused."""

from __future__ import annotations

from typing import Any

import pytest
from langgraph.graph import START, StateGraph
from langgraph.types import Send

from treadle.assistants.models import Assistant
from treadle.auth import ANYONE, Caller
from treadle.auth.users import User
from treadle.errors import Invalid, Refused
from treadle.http.validation import body_decoder
from treadle.runs.merging import (
    check_command,
    check_context,
    check_nodes,
    goto_nodes,
    graph_command,
    run_kwargs,
    run_metadata,
    start_checkpoint,
    stream_modes,
    thread_config,
)
from treadle.runs.models import StatelessRunCreate
from treadle.serialization import dumps

RUN, THREAD, ASSISTANT = (f"00000000-0000-0000-0000-00000000000{n}" for n in (1, 2, 3))
CHECKPOINT = "1ef4f797-8335-6428-8001-8a1503f9b875"


def asked(**fields: Any) -> StatelessRunCreate:
    """The struct of a request's body."""
    return body_decoder(StatelessRunCreate)(dumps({"assistant_id": "agent", **fields}))


def assistant(**fields: Any) -> Assistant:
    known: dict[str, Any] = {"config": {}, "context": {}, "metadata": {}, **fields}
    return Assistant(ASSISTANT, "agent", name="a", description=None, version=1,
                     created_at="", updated_at="", **known)  # fmt: skip


def kwargs_of(body: Any, of: Assistant | None = None, caller: Caller = ANYONE) -> dict[str, Any]:
    return run_kwargs(
        body,
        of or assistant(),
        {"m": 1},
        run_id=RUN,
        thread_id=THREAD,
        caller=caller,
        request_id="request",
    )


def configurable_of(body: Any, of: Assistant | None = None) -> dict[str, Any]:
    return kwargs_of(body, of)["config"]["configurable"]


# -- configurable ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("of_assistant", "of_run", "expected"),
    [
        ({}, {}, None),
        ({"k": "assistant"}, {}, "assistant"),
        ({}, {"k": "run"}, "run"),
        ({"k": "assistant"}, {"k": "run"}, "run"),
        ({"k": "assistant"}, {"k": None}, None),
        ({"k": {"a": 1}}, {"k": {"b": 2}}, {"b": 2}),
        ({"k": "assistant"}, {"other": 1}, "assistant"),
    ],
)
def test_configurable_of_the_run_goes_before_that_of_the_assistant(of_assistant, of_run, expected):
    found = configurable_of(
        asked(config={"configurable": of_run}), assistant(config={"configurable": of_assistant})
    )
    assert found.get("k") == expected


SERVER_KEYS = {
    "run_id": RUN,
    "thread_id": THREAD,
    "graph_id": "agent",
    "assistant_id": ASSISTANT,
    "langgraph_auth_user": None,
    "langgraph_auth_user_id": "",
    "langgraph_auth_permissions": [],
    "langgraph_request_id": "request",
}


@pytest.mark.parametrize("key", SERVER_KEYS)
@pytest.mark.parametrize("field", ["config", "context"])
def test_the_servers_own_keys_cannot_be_forged(key, field):
    forged = {key: "forged"}
    body = asked(config={"configurable": forged}) if field == "config" else asked(context=forged)
    of = assistant(config={"configurable": forged}, context=forged)
    assert configurable_of(body, of)[key] == SERVER_KEYS[key]


def test_who_calls_is_in_configurable():
    user = User({"identity": "ann", "org": 5}, ["read", "write"])
    caller = Caller("ann", ("read", "write"), user)
    found = kwargs_of(asked(), caller=caller)["config"]["configurable"]
    assert dict(found["langgraph_auth_user"]) == {"identity": "ann", "org": 5}
    assert found["langgraph_auth_user_id"] == "ann"
    assert found["langgraph_auth_permissions"] == ["read", "write"]


def test_user_id_is_the_clients_own():
    assert configurable_of(asked())["user_id"] == ""
    assert kwargs_of(asked(), caller=Caller("ann"))["config"]["configurable"]["user_id"] == "ann"
    assert configurable_of(asked(config={"configurable": {"user_id": "me"}}))["user_id"] == "me"


# -- tags, recursion limit, other keys ---------------------------------------------------------


@pytest.mark.parametrize(
    ("key", "of_assistant", "of_run", "expected"),
    [
        ("tags", ["a"], ["r"], ["r"]),
        ("tags", ["a"], None, ["a"]),
        ("tags", ["a"], [], []),
        ("recursion_limit", 5, 9, 9),
        ("recursion_limit", 5, None, 5),
        ("recursion_limit", 5, 0, 0),
    ],
)
def test_tags_and_limit_of_the_run_replace_those_of_the_assistant(
    key, of_assistant, of_run, expected
):
    body = asked() if of_run is None else asked(config={key: of_run})
    assert kwargs_of(body, assistant(config={key: of_assistant}))["config"][key] == expected


def test_tags_and_limit_appear_only_where_they_are_given():
    assert kwargs_of(asked())["config"].keys() == {"configurable", "metadata"}


def test_the_assistants_config_is_not_changed():
    of = assistant(config={"configurable": {"a": 1}, "tags": ["t"]}, context={"c": 1})
    kwargs_of(asked(config={"configurable": {"a": 2, "b": 3}, "tags": ["x"]}), of)
    kwargs_of(asked(context={"c": 2}), of)
    assert of.config == {"configurable": {"a": 1}, "tags": ["t"]}
    assert of.context == {"c": 1}


# -- context -----------------------------------------------------------------------------------


def test_context_of_the_run_goes_before_that_of_the_assistant():
    of = assistant(context={"a": "assistant", "b": "assistant"})
    assert kwargs_of(asked(context={"b": "run"}), of)["context"] == {"a": "assistant", "b": "run"}


def test_a_context_is_seen_in_configurable_too():
    of = assistant(context={"a": 1}, config={"configurable": {"a": 1, "outside": 1}})
    found = configurable_of(asked(context={"b": 2}), of)
    assert (found["a"], found["b"]) == (1, 2)
    assert "outside" not in found


def test_context_and_configurable_are_not_given_together():
    with pytest.raises(Refused, match="Cannot specify both configurable and context"):
        check_context(asked(context={"a": 1}, config={"configurable": {"b": 1}}))


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"context": {"a": 1}},
        {"context": {"a": 1}, "config": {}},
        {"context": {"a": 1}, "config": {"configurable": {}}},
        {"context": {}, "config": {"configurable": {"a": 1}}},
        {"context": {"a": 1}, "config": {"tags": ["t"]}},
    ],
)
def test_one_of_them_may_be_empty(fields):
    check_context(asked(**fields))


# -- metadata ----------------------------------------------------------------------------------


@pytest.mark.parametrize("present", range(16))
def test_metadata_of_the_run_goes_first_that_of_the_assistant_last(present):
    """Assistant < thread < config.metadata < metadata, for each set of those that have the key."""
    places = ("assistant", "thread", "config", "run")
    there = {name: {"k": name} for bit, name in enumerate(places) if present & 1 << bit}
    found = run_metadata(
        asked(config={"metadata": there.get("config", {})}, metadata=there.get("run", {})),
        assistant(metadata=there.get("assistant", {})),
        there.get("thread", {}),
    )
    assert found.get("k") == next((name for name in reversed(places) if name in there), None)


def test_metadata_is_merged_key_by_key_and_not_deeper():
    found = run_metadata(
        asked(config={"metadata": {"c": 1, "deep": {"c": 1}}}, metadata={"r": 1, "deep": {"r": 1}}),
        assistant(metadata={"a": 1, "deep": {"a": 1}}),
        {"t": 1, "deep": {"t": 1}},
    )
    assert found == {"a": 1, "t": 1, "c": 1, "r": 1, "deep": {"r": 1}}


# -- kwargs ------------------------------------------------------------------------------------


def test_what_is_not_given_has_its_default():
    found = kwargs_of(asked())
    del found["config"]
    assert found == {
        "input": None,
        "command": None,
        "context": {},
        "stream_mode": ["values"],
        "interrupt_before": None,
        "interrupt_after": None,
        "webhook": None,
        "feedback_keys": None,
        "temporary": True,
        "subgraphs": False,
        "resumable": False,
        "strict_resume": False,
        "checkpoint_during": True,
        "durability": "async",
    }


@pytest.mark.parametrize(
    ("fields", "durability", "during"),
    [
        ({}, "async", True),
        ({"checkpoint_during": True}, "async", True),
        ({"checkpoint_during": False}, "exit", False),
        ({"durability": "sync"}, "sync", True),
        ({"durability": "exit"}, "exit", False),
        ({"durability": "sync", "checkpoint_during": False}, "sync", True),
        ({"durability": "exit", "checkpoint_during": True}, "exit", False),
    ],
)
def test_durability_goes_before_checkpoint_during(fields, durability, during):
    found = kwargs_of(asked(**fields))
    assert (found["durability"], found["checkpoint_during"]) == (durability, during)


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, ["values"]),
        ({"stream_mode": []}, ["values"]),
        ({"stream_mode": "updates"}, ["updates"]),
        ({"stream_mode": ["updates"]}, ["updates"]),
        ({"stream_mode": ["updates", "values", "updates"]}, ["updates", "values"]),
    ],
)
def test_stream_modes(fields, expected):
    assert stream_modes(asked(**fields)) == expected


@pytest.mark.parametrize(("given", "temporary"), [(None, True), ("delete", True), ("keep", False)])
def test_a_stateless_run_is_temporary_unless_it_is_kept(given, temporary):
    body = asked() if given is None else asked(on_completion=given)
    assert kwargs_of(body)["temporary"] is temporary


@pytest.mark.parametrize(("given", "shown"), [(None, 0), (0, 0), (2.5, 2.5)])
def test_the_delay_is_told(given, shown):
    body = asked() if given is None else asked(after_seconds=given)
    assert configurable_of(body)["__after_seconds__"] == shown


def test_thread_config_keeps_what_runs_gave():
    of = assistant(config={"tags": ["a"], "recursion_limit": 5, "configurable": {"secret": 1}})
    before = {"tags": ["before"], "other": 1}
    found = thread_config(before, of, asked(config={"tags": ["run"], "metadata": {"m": 1}}))
    expected = {"tags": ["run"], "recursion_limit": 5, "metadata": {"m": 1}, "other": 1}
    assert found == {**expected, "configurable": {}}
    assert before == {"tags": ["before"], "other": 1}


# -- checkpoints -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "fields",
    [
        {"checkpoint_id": CHECKPOINT},
        {"checkpoint_id": CHECKPOINT.upper()},
        {"checkpoint": {"checkpoint_id": CHECKPOINT}},
        {"checkpoint": {"checkpoint_id": CHECKPOINT, "thread_id": "another"}},
        {"checkpoint": {"checkpoint_id": CHECKPOINT, "checkpoint_ns": ""}},
        {"config": {"configurable": {"checkpoint_id": CHECKPOINT}}},
    ],
)
def test_a_checkpoint_may_be_named_in_three_ways(fields):
    start = start_checkpoint(THREAD, kwargs_of(asked(**fields))["config"]["configurable"])
    assert start == {"thread_id": THREAD, "checkpoint_ns": "", "checkpoint_id": CHECKPOINT}


@pytest.mark.parametrize("fields", [{}, {"checkpoint": None}, {"checkpoint": {}}])
def test_no_checkpoint_is_named(fields):
    assert start_checkpoint(THREAD, kwargs_of(asked(**fields))["config"]["configurable"]) is None


def test_the_namespace_and_map_of_a_checkpoint_are_kept():
    place = {
        "checkpoint_id": CHECKPOINT,
        "checkpoint_ns": "a:1",
        "checkpoint_map": {"": CHECKPOINT},
    }
    found = configurable_of(asked(checkpoint=place))
    assert place.items() <= found.items()


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"checkpoint_id": "x"}, "Invalid checkpoint ID"),
        ({"checkpoint_id": ""}, "Invalid checkpoint ID"),
        ({"checkpoint": {"checkpoint_id": "x"}}, "Invalid checkpoint ID"),
        ({"checkpoint": {"checkpoint_id": 5}}, r"checkpoint\.checkpoint_id has to be a string"),
        ({"checkpoint": {"checkpoint_ns": []}}, r"checkpoint\.checkpoint_ns has to be a string"),
        (
            {"checkpoint": {"checkpoint_map": "x"}},
            r"checkpoint\.checkpoint_map has to be an object",
        ),
        ({"config": {"configurable": {"checkpoint_id": "x"}}}, "Invalid checkpoint ID"),
        ({"config": {"configurable": {"checkpoint_id": 5}}}, "Invalid checkpoint ID"),
    ],
)
def test_what_names_no_checkpoint_is_refused(fields, message):
    with pytest.raises(Invalid, match=message):
        start_checkpoint(THREAD, kwargs_of(asked(**fields))["config"]["configurable"])


# -- commands ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "command",
    [
        None,
        {},
        {"resume": 0},
        {"resume": False},
        {"resume": ""},
        {"resume": {}},
        {"update": {"a": 1}},
        {"update": [["a", 1], ["b", 2]]},
        {"goto": "n"},
        {"goto": ["n", {"node": "m", "input": 1}]},
        {"goto": {"node": "n"}},
        {"resume": None, "update": {"a": 1}},
        {"resume": 1, "unknown": 2},
    ],
)
def test_commands_that_can_do_something(command):
    check_command(command)


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ({"bogus": 1}, r"only unknown keys \['bogus'\]"),
        ({"resume": None}, r"command\.resume is null"),
        ({"update": None, "goto": None}, r"command\.update is null"),
        ({"resume": None, "bogus": 1}, r"command\.resume is null"),
        ({"goto": 5}, r"command\.goto has 5"),
        ({"goto": [5]}, r"command\.goto has 5"),
        ({"goto": {"input": 1}}, r"command\.goto has \{'input': 1\}"),
        ({"goto": {"node": 1}}, r"command\.goto has"),
        ({"update": [["a"]]}, r"command\.update has \['a'\]"),
        ({"update": ["ab"]}, r"command\.update has 'ab'"),
    ],
)
def test_commands_that_cannot_are_refused(command, message):
    with pytest.raises(Invalid, match=message):
        check_command(command)


@pytest.mark.parametrize(
    ("goto", "nodes"),
    [
        (None, []),
        ("a", ["a"]),
        (["a", "b"], ["a", "b"]),
        ({"node": "a", "input": 1}, ["a"]),
        (["a", {"node": "b"}], ["a", "b"]),
    ],
)
def test_where_a_command_goes(goto, nodes):
    assert goto_nodes({"goto": goto}) == nodes


def test_a_command_as_langgraph_takes_it():
    command = graph_command(
        {"resume": {"a": 1}, "update": [["k", 1]], "goto": ["n", {"node": "m", "input": 2}]}
    )
    assert command.resume == {"a": 1}
    assert command.update == [("k", 1)]
    assert command.goto == ["n", Send("m", 2)]
    assert graph_command({"goto": "n"}).goto == ["n"]
    assert graph_command({"resume": 1}).goto == []


# -- names of nodes ----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def graph() -> Any:
    builder = StateGraph(dict).add_node("a", lambda state: {}).add_node("b", lambda state: {})
    return builder.add_edge(START, "a").add_edge("a", "b").compile()


def nodes_of(**fields: Any) -> dict[str, Any]:
    return {"interrupt_before": None, "interrupt_after": None, "command": None, **fields}


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"interrupt_before": "*", "interrupt_after": "*"},
        {"interrupt_before": ["a", "b"]},
        {"interrupt_before": ["*"]},
        {"interrupt_after": []},
        {"command": {"goto": "a"}},
        {"command": {"goto": "__end__"}},
        {"command": {"resume": 1}},
    ],
)
def test_nodes_that_are_there(graph, fields):
    check_nodes(graph, nodes_of(**fields))


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"interrupt_before": ["a", "x"]}, "interrupt_before"),
        ({"interrupt_after": ["x"]}, "interrupt_after"),
        ({"command": {"goto": "x"}}, r"command\.goto"),
        ({"command": {"goto": ["a", {"node": "x"}]}}, r"command\.goto"),
    ],
)
def test_nodes_that_are_not_there_are_refused_by_name(graph, fields, named):
    with pytest.raises(Invalid, match=f"{named} names the unknown node 'x'.* are: a, b"):
        check_nodes(graph, nodes_of(**fields))
