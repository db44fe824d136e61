"""Assistants as tools: who finds which, what a call comes to, what cancels it."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
import tool_graphs

from treadle.auth import Caller
from treadle.auth.filters import Equals
from treadle.errors import Denied, Forbidden
from treadle.mcp.service import call_key

PATIENCE_SECONDS = 5.0


async def in_flight(client) -> int:
    queue = (await client.http.get("/metrics?format=json")).json()["queue"]
    return queue["n_pending"] + queue["n_running"]


async def threads(client) -> int:
    return (await client.http.post("/threads/count", json={})).json()


async def begun(*names: str) -> None:
    """Return once these calls stand at their doors."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        found = {await tool_graphs.waiting.get() for _ in names}
    assert found == set(names)


def calling(client, text: str, id: Any = 1, **headers: str) -> asyncio.Task[Any]:
    return asyncio.create_task(client.call("wait", {"text": text}, id, **headers))


async def test_a_tool_describes_itself(client):
    tools = await client.tools()
    assert set(tools) == set(tool_graphs.NAMES)
    assert tools["add"] == {
        "name": "add",
        "title": "add",
        "description": "Adds two numbers.",
        "inputSchema": {
            "type": "object",
            "title": "Two",
            "properties": {
                "a": {"title": "A", "type": "integer"},
                "b": {"title": "B", "type": "integer"},
            },
            "required": ["a", "b"],
        },
        "outputSchema": {
            "type": "object",
            "title": "Total",
            "properties": {"total": {"title": "Total", "type": "integer"}},
        },
        "annotations": {
            "readOnlyHint": False,
            "destructiveHint": False,
            "idempotentHint": False,
            "openWorldHint": True,
        },
    }
    assert tools["talk"]["inputSchema"]["properties"]["messages"]["type"] == "string"
    assert "$defs" not in tools["talk"]["inputSchema"]
    assert "$defs" not in tools["talk"]["outputSchema"]


async def test_the_newest_tool_is_the_first(client):
    await client.create(graph_id="add", name="newest")
    assert next(iter(await client.tools())) == "newest"


async def test_a_call_leaves_nothing_behind(client):
    result = await client.call("add", {"a": 1, "b": 2, "unknown": 3})
    assert result == {
        "content": [{"type": "text", "text": '{"total":3}'}],
        "structuredContent": {"total": 3},
    }
    assert await threads(client) == 0


@pytest.mark.parametrize("said", ["hi", [{"role": "user", "content": "hi"}]])
async def test_messages_are_a_text_or_a_list(client, said):
    result = await client.call("talk", {"messages": said})
    said, replied = result["structuredContent"]["messages"]
    assert (said["type"], said["content"], replied["content"]) == ("human", "hi", "You said: hi")
    assert json.loads(result["content"][0]["text"]) == result["structuredContent"]


async def test_what_a_graph_keeps_to_itself_is_not_told(client):
    result = await client.call("boom", {"text": "x"})
    assert result == {"isError": True, "content": [{"type": "text", "text": "ValueError"}]}


async def test_wrong_arguments_are_named(client):
    result = await client.call("order", {"count": 0})
    text = result["content"][0]["text"]
    assert result["isError"] is True
    assert text.startswith("ValidationError: ")
    assert '"item" is a required property' in text
    assert "count: 0 is less than the minimum of 1" in text


async def test_a_question_is_in_the_output(client):
    result = await client.call("ask", {"text": "go"})
    assert "isError" not in result
    [question] = result["structuredContent"]["__interrupt__"]
    assert question["value"] == {"question": "sure?"}
    assert await threads(client) == 0


async def test_structured_content_is_what_the_schema_says(client):
    result = await client.call("sloppy", {"number": 1})
    assert result["structuredContent"] == {"words": ["a"]}
    assert json.loads(result["content"][0]["text"]) == {"number": "three", "words": ["a"]}


async def test_a_graph_without_a_schema_takes_what_it_is_sent(client, logged):
    tools = await client.tools()
    await client.tools()
    told = [line for line in logged if line["event"] == "a tool takes whatever it is sent"]
    for graph in ("opaque", "fussy"):
        assert tools[graph]["inputSchema"] == {"type": "object", "additionalProperties": True}
        assert "outputSchema" not in tools[graph]
        assert [line["graph_id"] for line in told].count(graph) >= 1
    assert "not in the mood" in str(told)
    assert len(told) == len({line["assistant_id"] for line in told})
    result = await client.call("opaque", {"text": "loud"})
    assert result["structuredContent"] == {"text": "LOUD"}
    assert (await client.call("fussy", {"text": "x"}))["isError"] is True


async def test_an_output_that_is_no_object_is_text_alone(client):
    assert "outputSchema" not in (await client.tools())["seven"]
    assert await client.call("seven", {"a": 1}) == {"content": [{"type": "text", "text": "7"}]}


async def test_tools_of_one_name_are_told_apart(client):
    made = await client.create(graph_id="wait", name="add")
    again = await client.create(graph_id="add", name="my adder")
    tools = await client.tools()
    assert "add" not in tools
    apart = [name for name in tools if name.startswith("add_")]
    assert len(apart) == 2
    error = (await client.ask("tools/call", {"name": "add"}))["error"]
    assert error["code"] == -32602
    assert error["message"] == "Multiple tools found with the same name."
    assert sorted(error["data"]["tools"]) == sorted(apart)
    [graphs_own] = [name for name in apart if not made["assistant_id"].endswith(name[4:])]
    for name in (graphs_own, "my_adder"):
        assert (await client.call(name, {"a": 1, "b": 1}))["structuredContent"] == {"total": 2}
    for unknown in (again["assistant_id"], "my adder", "ADD"):
        assert "error" in await client.ask("tools/call", {"name": unknown})


async def test_cancelling_ends_the_run(client):
    call = calling(client, "one", id="x")
    await begun("one")
    await client.cancel("x")
    result = await call
    assert result["isError"] is True
    assert "ancelled" in result["content"][0]["text"]
    assert tool_graphs.cancelled == ["one"]
    assert (await in_flight(client), await threads(client)) == (0, 0)


async def test_only_the_call_of_that_id_is_cancelled(client):
    calls = [calling(client, "one", id=1), calling(client, "two", id="1")]
    await begun("one", "two")
    await client.cancel("1")
    assert (await calls[1])["isError"] is True
    tool_graphs.doors["one"].set()
    assert (await calls[0])["structuredContent"] == {"text": "one is done"}


async def test_nobody_cancels_the_call_of_another_client(client):
    call = calling(client, "one", id=7)
    await begun("one")
    other_machine = await client.elsewhere("192.0.2.1")
    await other_machine.cancel(7)
    await client.cancel(7, **{"user-agent": "another"})
    await client.cancel(8)
    tool_graphs.doors["one"].set()
    assert (await call)["structuredContent"] == {"text": "one is done"}


async def test_calls_that_cannot_be_told_apart_go_on(client):
    calls = [calling(client, name, id=1) for name in ("one", "two")]
    await begun("one", "two")
    await client.cancel(1)
    for name in ("one", "two"):
        tool_graphs.doors[name].set()
    assert [(await call)["structuredContent"]["text"] for call in calls] == [
        "one is done",
        "two is done",
    ]


async def test_a_client_that_leaves_has_not_cancelled(client):
    call = calling(client, "one")
    await begun("one")
    call.cancel()
    await asyncio.wait([call])
    assert await in_flight(client) == 1
    tool_graphs.doors["one"].set()
    async with asyncio.timeout(PATIENCE_SECONDS):
        while await in_flight(client):  # noqa: ASYNC110
            await asyncio.sleep(0)
    assert tool_graphs.cancelled == []


async def test_a_run_that_is_deleted_ends_its_call(client):
    call = calling(client, "one")
    await begun("one")
    [thread] = (await client.http.post("/threads/search", json={})).json()
    await client.http.delete(f"/threads/{thread['thread_id']}")
    result = await call
    assert result["isError"] is True
    assert "deleted" in result["content"][0]["text"]


class OwnersOnly:
    """Everyone has the assistants and threads that are theirs; eve may do nothing."""

    async def decide(self, caller: Caller, resource: str, action: str, value: Any) -> Any:
        if caller.identity == "eve":
            raise Forbidden("Forbidden")
        return Equals("owner", caller.identity) if resource == "assistants" else None


@pytest.fixture
async def users(client):
    """The client, whose requests name a user; alice has an assistant."""

    async def authenticate(scope: Any) -> Caller:
        return Caller(dict(scope["headers"])[b"x-user"].decode(), policy=OwnersOnly())

    for graph in ("whoever", "wait"):
        await client.create(graph_id=graph, name=f"hers: {graph}", metadata={"owner": "alice"})
    client.app._authenticate = authenticate
    return client


async def test_a_call_is_the_callers(users):
    result = await users.call("hers__whoever", {"text": ""}, **{"x-user": "alice"})
    assert result["structuredContent"] == {"text": "alice"}


async def test_tools_are_those_that_the_caller_may_see(users):
    seen = {}
    for user in ("alice", "bob"):
        listed = await users.ask("tools/list", **{"x-user": user})
        seen[user] = {tool["name"] for tool in listed["result"]["tools"]}
    assert seen == {"alice": {"hers__whoever", "hers__wait"}, "bob": set()}
    asked = await users.ask("tools/call", {"name": "hers__whoever"}, **{"x-user": "bob"})
    assert asked["error"] == {"code": -32602, "message": "Unknown tool: hers__whoever"}


@pytest.mark.parametrize("method", ["tools/list", "tools/call"])
async def test_who_may_not_is_told_by_http(users, method):
    body = {"jsonrpc": "2.0", "id": 1, "method": method, "params": {"name": "hers__whoever"}}
    answer = await users.post(body, **{"x-user": "eve"})
    assert (answer.status_code, answer.json()) == (403, {"detail": "Forbidden"})


async def test_nobody_cancels_the_call_of_another_user(users):
    params = {"name": "hers__wait", "arguments": {"text": "one"}}
    call = asyncio.create_task(users.ask("tools/call", params, **{"x-user": "alice"}))
    await begun("one")
    for user in ("bob", "eve"):
        await users.cancel(1, **{"x-user": user})
    tool_graphs.doors["one"].set()
    assert (await call)["result"]["structuredContent"] == {"text": "one is done"}


@pytest.mark.parametrize("settings", ["postgres"], indirect=True)
async def test_any_process_answers_and_cancels(open_client):
    accepts, executes = await open_client("api"), await open_client()
    assert (await accepts.call("add", {"a": 1, "b": 2}))["structuredContent"] == {"total": 3}
    assert (await accepts.call("boom", {"text": "x"}))["content"][0]["text"] == "ValueError"
    call = calling(accepts, "one", id="x")
    await begun("one")
    await executes.cancel("x")
    assert (await call)["isError"] is True
    assert tool_graphs.cancelled == ["one"]
    assert await threads(accepts) == 0


def test_a_calls_key_depends_on_all_that_tells_clients_apart():
    usual = (Caller("alice"), "10.0.0.1", "agent/1", 1)
    others = [
        (Caller("bob"), *usual[1:]),
        (usual[0], "10.0.0.2", *usual[2:]),
        (*usual[:2], None, usual[3]),
        (*usual[:3], "1"),
        (*usual[:3], 1.5),
    ]
    keys = {call_key(*who) for who in [usual, *others]}
    assert len(keys) == 1 + len(others)
    assert call_key(*usual) in keys


class Hides:
    """Nobody may look into one of the assistants; the handler says so in its own words."""

    def __init__(self, hidden: str, status: int) -> None:
        self.hidden, self.status = hidden, status

    async def decide(self, caller: Caller, resource: str, action: str, value: Any) -> Any:
        if (resource, action) == ("assistants", "read") and (
            str(value["assistant_id"]) == self.hidden
        ):
            raise Denied(self.status, "not for you")
        return None


@pytest.mark.parametrize(("status", "is_listed"), [(403, True), (404, True), (429, False)])
async def test_a_tool_that_a_handler_denies_is_not_listed(client, status, is_listed):
    await client.create(graph_id="wait", name="open")
    hidden = await client.create(graph_id="whoever", name="hidden")
    policy = Hides(hidden["assistant_id"], status)

    async def authenticate(scope: Any) -> Caller:
        return Caller("ann", policy=policy)

    client.app._authenticate = authenticate
    if is_listed:
        listed = await client.ask("tools/list")
        names = {tool["name"] for tool in listed["result"]["tools"]}
        assert "open" in names
        assert "hidden" not in names
    else:
        assert "error" in await client.ask("tools/list")
