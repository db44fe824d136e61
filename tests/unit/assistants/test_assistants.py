"""Assistants over a real database."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

import pytest
from langgraph.graph import START, StateGraph
from typing_extensions import TypedDict

from treadle.assistants.introspection import parse_xray
from treadle.assistants.models import (
    AssistantCount,
    AssistantCreate,
    AssistantPatch,
    AssistantSearch,
    VersionsSearch,
)
from treadle.assistants.service import AssistantService, default_id
from treadle.auth import ANYONE, Caller
from treadle.errors import Conflict, Invalid, NotFound, Refused
from treadle.store.backend import DatabaseStore


@dataclass
class Spec:
    description: str | None = None
    config: dict[str, Any] = field(default_factory=dict)


class State(TypedDict):
    text: str


class Graphs:
    """Two graphs; ``made`` is built for the config of each use."""

    ids = ("echo", "made")
    opened = 0
    description = "Says it again."

    def spec(self, graph_id: str) -> Spec:
        return Spec(self.description if graph_id == "echo" else None)

    def static(self, graph_id: str) -> object | None:
        return None if graph_id == "made" else self

    @asynccontextmanager
    async def open(self, graph_id: str, config: Any, **use: Any) -> AsyncIterator[Any]:
        self.opened += 1
        name = config["configurable"].get("node", "only")
        graph = StateGraph(State).add_node(name, lambda state: state).add_edge(START, name)
        yield graph.compile(name=graph_id)


@pytest.fixture
def deleted() -> list[str]:
    return []


@pytest.fixture
async def service(database, deleted) -> AssistantService:
    async def delete_thread(caller: Caller, thread_id: str) -> None:
        deleted.append(thread_id)

    store = DatabaseStore(database)
    service = AssistantService(database, Graphs(), store=store, delete_thread=delete_thread)
    await service.ensure_defaults()
    return service


async def create(service: AssistantService, **given: Any) -> Any:
    return await service.create(ANYONE, AssistantCreate(**{"graph_id": "echo"} | given))


async def patch(service: AssistantService, assistant_id: str, **given: Any) -> Any:
    return await service.patch(ANYONE, assistant_id, AssistantPatch(**given))


# -- defaults and resolving -----------------------------------------------------------------
def test_default_ids_are_the_same_everywhere():
    assert default_id("agent") == "fe096781-5601-53d2-b2f6-0d3403f7e9ca"


async def test_defaults_are_made_once_and_kept(service):
    first = await service.resolve("echo")
    assert (first.name, first.metadata) == ("echo", {"created_by": "system"})
    assert first.description == "Says it again."
    await patch(service, first.assistant_id, name="mine")
    await service.ensure_defaults()
    assert (await service.resolve("echo")).name == "mine"


async def test_a_default_that_nobody_changed_follows_the_config(service):
    service._graphs.description = "Says it once more."
    await service.ensure_defaults()
    found = await service.resolve("echo")
    assert (found.description, found.version) == ("Says it once more.", 1)
    [version] = await service.versions(ANYONE, found.assistant_id, VersionsSearch())
    assert version.description == "Says it once more."
    await patch(service, found.assistant_id, description="mine")
    await service.set_latest(ANYONE, found.assistant_id, 1)
    service._graphs.description = "Something else."
    await service.ensure_defaults()
    assert (await service.resolve("echo")).description == "Says it once more."


async def test_a_filter_on_versions_that_finds_nothing_is_no_error(service):
    wanted = VersionsSearch(metadata={"no": "such"})
    assert await service.versions(ANYONE, default_id("echo"), wanted) == []


async def test_lists_in_metadata_are_searched_by_what_they_contain(service):
    made = await create(service, metadata={"tags": ["a", "b"]})
    found, _ = await service.search(ANYONE, AssistantSearch(metadata={"tags": ["b"]}))
    assert [one["assistant_id"] for one in found] == [made.assistant_id]


async def test_resolve_is_answered_from_memory_until_a_write(service):
    made = await create(service, context={"tone": "kind"})
    assert await service.resolve(made.assistant_id) is await service.resolve(made.assistant_id)
    await patch(service, made.assistant_id, context={"tone": "dry"})
    assert (await service.resolve(made.assistant_id)).context == {"tone": "dry"}
    await service.delete(ANYONE, made.assistant_id, delete_threads=False)
    with pytest.raises(NotFound, match="Thread or assistant not found"):
        await service.resolve(made.assistant_id)


async def test_resolve_takes_any_form_of_an_id(service):
    made = await create(service)
    assert await service.resolve(made.assistant_id.replace("-", "").upper()) == made


@pytest.mark.parametrize("given", ["nope", "", 5, None])
async def test_resolve_says_what_it_takes(service, given):
    with pytest.raises(Invalid) as caught:
        await service.resolve(given)
    assert str(caught.value) == (
        f"Invalid assistant: {given!r}. Must be either:\n- A valid assistant UUID, or\n"
        "- One of the registered graphs: echo, made"
    )


# -- create -----------------------------------------------------------------------------------
async def test_one_of_many_concurrent_creates_wins(service):
    wanted = str(uuid4())
    outcomes = await asyncio.gather(
        *(create(service, assistant_id=wanted) for _ in range(5)), return_exceptions=True
    )
    assert sum(isinstance(o, Conflict) for o in outcomes) == 4


async def test_do_nothing_returns_what_is_there(service):
    made = await create(service, name="first")
    again = await create(
        service, assistant_id=made.assistant_id, name="second", if_exists="do_nothing"
    )
    assert again == made


async def test_context_and_configurable_mirror_each_other(service):
    made = await create(service, config={"tags": ["t"]}, context={"a": 1})
    assert made.config == {"tags": ["t"], "configurable": {"a": 1}}
    made = await create(service, config={"configurable": {"a": 1}})
    assert made.context == {"a": 1}
    with pytest.raises(Refused, match="configurable and context"):
        await create(service, config={"configurable": {"a": 1}}, context={"a": 1})


@pytest.mark.parametrize(
    ("config", "field"),
    [
        ({"tags": "x"}, "config.tags"),
        ({"recursion_limit": "many"}, "config.recursion_limit"),
        ({"recursion_limit": True}, "config.recursion_limit"),
        ({"configurable": 5}, "config.configurable"),
    ],
    ids=str,
)
async def test_bad_config_is_named(service, config, field):
    with pytest.raises(Invalid, match=field):
        await create(service, config=config)


async def test_unknown_graph_names_the_known_ones(service):
    with pytest.raises(NotFound, match=r"Graph 'nope' not found. Expected one of: \['echo', 'made"):
        await create(service, graph_id="nope")


# -- patch and versions -----------------------------------------------------------------------
async def test_every_patch_makes_a_version(service):
    made = await create(service, metadata={"a": 1, "n": {"x": 1}})
    done = await asyncio.gather(
        *(patch(service, made.assistant_id, metadata={f"k{i}": i}) for i in range(5))
    )
    assert sorted(a.version for a in done) == [2, 3, 4, 5, 6]
    latest = await service.get(ANYONE, made.assistant_id)
    assert latest.metadata == {"a": 1, "n": {"x": 1}} | {f"k{i}": i for i in range(5)}
    assert latest.created_at == made.created_at < latest.updated_at


@pytest.mark.parametrize(
    ("given", "config", "context"),
    [
        ({}, {"tags": ["t"], "configurable": {"a": 1}}, {"a": 1}),
        ({"config": {}}, {"tags": ["t"], "configurable": {"a": 1}}, {"a": 1}),
        ({"config": {"tags": ["u"]}}, {"tags": ["u"]}, {"a": 1}),
        ({"config": {"configurable": {"b": 2}}}, {"configurable": {"b": 2}}, {"b": 2}),
        ({"context": {"b": 2}}, {"tags": ["t"], "configurable": {"b": 2}}, {"b": 2}),
        ({"context": {}}, {"tags": ["t"]}, {}),
        ({"context": {}, "config": {"tags": ["u"]}}, {"tags": ["u"]}, {}),
        (
            {"context": {}, "config": {"configurable": {"b": 2}}},
            {"configurable": {"b": 2}},
            {"b": 2},
        ),
    ],
    ids=str,
)
async def test_patch_keeps_config_and_context_together(service, given, config, context):
    made = await create(service, config={"tags": ["t"]}, context={"a": 1})
    after = await patch(service, made.assistant_id, **given)
    assert (after.config, after.context) == (config, context)


async def test_going_back_restores_everything_and_makes_no_version(service):
    made = await create(service, name="one", description="first", context={"a": 1})
    await patch(
        service, made.assistant_id, name="two", graph_id="made", context={"b": 2}, metadata={"m": 1}
    )
    back = await service.set_latest(ANYONE, made.assistant_id, 1)
    same = ("graph_id", "name", "description", "config", "context", "metadata", "version")
    assert all(getattr(back, field) == getattr(made, field) for field in same)
    assert (await patch(service, made.assistant_id)).version == 3
    listed = await service.versions(ANYONE, made.assistant_id, VersionsSearch())
    assert [v.version for v in listed] == [3, 2, 1]
    only = VersionsSearch(metadata={"m": 1})
    assert [v.version for v in await service.versions(ANYONE, made.assistant_id, only)] == [2]


@pytest.mark.parametrize("version", [0, -1, 2, 2**70])
async def test_going_to_a_missing_version_is_not_found(service, version):
    made = await create(service)
    with pytest.raises(NotFound, match=f"Version {version} not found"):
        await service.set_latest(ANYONE, made.assistant_id, version)


# -- search -----------------------------------------------------------------------------------
async def test_search_pages_and_counts(service):
    for name in ("one", "two", "three"):
        await create(service, name=name, metadata={"mark": True})
    wanted = AssistantSearch(metadata={"mark": True}, limit=2, select=["name"])
    assert await service.search(ANYONE, wanted) == ([{"name": "three"}, {"name": "two"}], 3)
    wanted.offset = 2
    assert await service.search(ANYONE, wanted) == ([{"name": "one"}], 3)
    assert await service.count(ANYONE, AssistantCount(metadata={"mark": True})) == 3


@pytest.mark.parametrize(
    ("part", "found"),
    [("STRASSE", True), ("straße", True), ("%", True), ("_", False), ("\\", False), ("", True)],
)
async def test_search_by_name_is_literal_and_ignores_case(service, part, found):
    await create(service, name="Große Straße 100%", metadata={"mark": True})
    wanted = AssistantCount(metadata={"mark": True}, name=part)
    assert await service.count(ANYONE, wanted) == found


async def test_sorting(service):
    for name in ("banana", "Cherry", "apple"):
        await create(service, name=name, metadata={"mark": True})

    async def names(**order: Any) -> list[str]:
        wanted = AssistantSearch(metadata={"mark": True}, **order)
        return [item["name"] for item in (await service.search(ANYONE, wanted))[0]]

    assert await names(sort_by="name", sort_order="asc") == ["apple", "banana", "Cherry"]
    assert await names(sort_order="asc") == ["banana", "Cherry", "apple"]
    assert await names(sort_by="graph_id") == ["banana", "Cherry", "apple"]


# -- delete -----------------------------------------------------------------------------------
async def test_delete_takes_threads_along_when_asked(service, database, deleted):
    made = await create(service)

    async def body(transaction: Any) -> None:
        for thread_id, metadata in (
            ("used", f'{{"assistant_id":"{made.assistant_id}"}}'),
            ("other", "{}"),
        ):
            await transaction.execute(
                "INSERT INTO threads (thread_id, created_at, updated_at, state_updated_at,"
                " metadata) VALUES (:thread_id, 0, 0, 0, :metadata)",
                {"thread_id": thread_id, "metadata": metadata},
            )

    await database.write(body)
    await service.delete(ANYONE, made.assistant_id, delete_threads=True)
    assert deleted == ["used"]
    with pytest.raises(NotFound):
        await service.get(ANYONE, made.assistant_id)
    again = await create(service, assistant_id=made.assistant_id)
    assert again.version == 1


# -- the graph ----------------------------------------------------------------------------------
async def test_graph_is_built_for_the_config_of_the_assistant(service):
    made = await create(service, graph_id="made", context={"node": "custom"})
    drawn = await service.draw(ANYONE, made.assistant_id, xray=False)
    assert [node["id"] for node in drawn["nodes"]] == ["__start__", "custom", "__end__"]
    assert drawn["nodes"][1]["data"] == {"name": "custom"}


async def test_schemas(service):
    found = await service.schemas(ANYONE, default_id("echo"))
    assert found["state_schema"]["title"] == "echo_state"
    assert set(found["input_schema"]["properties"]) == {"text"}
    assert (found["config_schema"], found["context_schema"]) == ({}, None)
    assert await service.subgraphs(ANYONE, default_id("echo"), None, recurse=True) == {}


async def test_what_a_graph_looks_like_is_worked_out_once(service):
    other = await create(service)
    for assistant_id in (default_id("echo"), other.assistant_id):
        for _ in range(2):
            drawn = await service.draw(ANYONE, assistant_id, xray=1)
            assert [node["id"] for node in drawn["nodes"]] == ["__start__", "only", "__end__"]
            assert (await service.draw(ANYONE, assistant_id, xray=True)) == drawn
            assert (await service.schemas(ANYONE, assistant_id))["graph_id"] == "echo"
    assert service._graphs.opened == 3
    for _ in range(2):
        await service.schemas(ANYONE, default_id("made"))
    assert service._graphs.opened == 5


@pytest.mark.parametrize(
    ("text", "xray"), [(None, False), ("", False), ("FALSE", False), ("True", True), ("2", 2)]
)
def test_xray(text, xray):
    assert parse_xray(text) is xray or parse_xray(text) == xray


@pytest.mark.parametrize("text", ["0", "-1", "1.5", "abc", "²"])
def test_bad_xray(text):
    with pytest.raises(Invalid, match="Invalid xray value"):
        parse_xray(text)
