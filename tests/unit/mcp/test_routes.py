"""MCP over HTTP: what is answered with which code, and that nothing bad is a 500."""

from __future__ import annotations

import json
from typing import Any

import pytest


@pytest.mark.parametrize(
    "accept", ["*/*", "application/*", "text/*", "", "Application/JSON", "text/html, */*;q=0.1"]
)
async def test_simple_clients_may_accept_anything(client, accept):
    answer = await client.post({"jsonrpc": "2.0", "id": 1, "method": "ping"}, accept)
    assert (answer.status_code, answer.json()["result"]) == (200, {})


async def test_who_accepts_only_html_gets_nothing(client):
    answer = await client.post({"jsonrpc": "2.0", "id": 1, "method": "ping"}, "text/html")
    assert answer.status_code == 400
    assert "text/event-stream" in answer.json()["error"]


@pytest.mark.parametrize(
    "body",
    [
        {"jsonrpc": "2.0", "method": "notifications/initialized"},
        {"jsonrpc": "2.0", "method": "tools/call", "params": {"name": "boom"}},
        {"jsonrpc": "2.0", "id": None, "method": "ping"},
        {"jsonrpc": "2.0", "id": 1, "result": {}},
        {"jsonrpc": "2.0", "id": 1, "error": {"code": 1, "message": "no"}},
        {"jsonrpc": "2.0", "method": "notifications/cancelled"},
        {"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": 99}},
        {"jsonrpc": "2.0", "method": "notifications/cancelled", "params": [1]},
    ],
)
async def test_what_awaits_no_answer_gets_none(client, body):
    answer = await client.post(body)
    assert (answer.status_code, answer.content) == (202, b"")


@pytest.mark.parametrize(
    ("body", "error"),
    [
        ("", "Invalid JSON"),
        ("{bad", "Invalid JSON"),
        ('{"jsonrpc": "2.0", "id": 1, "method": "ping", "params": {"x": NaN}}', "Invalid JSON"),
        ("[" * 400 + "]" * 400, "Recursion limit reached"),
        ("7", "Invalid message format."),
        ("[]", "Invalid message format."),
        ("{}", "Invalid JSON-RPC message. Missing or invalid jsonrpc version."),
        ('{"jsonrpc": "2.0", "id": 1%s}' % ("0" * 30), "id: the integer"),
    ],
)
async def test_what_is_no_message_is_a_400(client, body, error):
    answer = await client.post(body)
    assert answer.status_code == 400
    assert answer.json()["error"].startswith(error)


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"id": True}, "id: Expected a string or a number, got a boolean"),
        ({"id": {}}, "id: Expected a string or a number, got an object"),
        ({"id": 1, "method": 7}, "method: Expected a string, got a number"),
    ],
)
async def test_a_request_that_names_itself_wrongly_is_an_invalid_one(client, fields, told):
    answer = await client.post({"jsonrpc": "2.0", "method": "ping", **fields})
    assert answer.status_code == 400
    assert answer.json()["error"] == {"code": -32600, "message": told}


@pytest.mark.parametrize(
    ("params", "field"),
    [
        ([], "params: Expected an object, got an array"),
        ({"name": 5}, "params.name: "),
        ({"name": "add", "arguments": [1]}, "params.arguments: "),
        ({"name": "add", "arguments": "a"}, "params.arguments: "),
        ({"name": "add", "_meta": 1}, "params._meta: "),
        ({"name": "add", "_meta": {"progressToken": {}}}, "params._meta.progressToken: "),
        ({"name": "nope"}, "Unknown tool: nope"),
        ({"name": "n" * 1000}, "Unknown tool: nnn"),
        ({}, "Unknown tool: params.name is missing"),
    ],
)
async def test_params_that_cannot_be_name_their_field(client, params, field):
    error = (await client.ask("tools/call", params))["error"]
    assert error["code"] == -32602
    assert error["message"].startswith(field)


@pytest.mark.parametrize("method", ["initialize", "ping", "tools/list"])
async def test_params_have_to_be_an_object_everywhere(client, method):
    assert (await client.ask(method, [1]))["error"]["code"] == -32602


async def test_an_unknown_method(client):
    error = (await client.ask("resources/list", []))["error"]
    assert error == {"code": -32601, "message": "Method not found: resources/list"}


@pytest.mark.parametrize("wanted", ["2025-03-26", "2030-01-01", 7, None, ["2025-03-26"]])
async def test_the_version_is_the_clients_if_it_is_known(client, wanted):
    result = (await client.ask("initialize", {"protocolVersion": wanted}))["result"]
    assert result["protocolVersion"] == ("2025-03-26" if wanted == "2025-03-26" else "2025-11-25")


async def test_other_methods_of_http(client):
    http = client.http
    got = await http.get("/mcp", headers={"accept": "text/event-stream"})
    assert (got.status_code, got.content) == (405, b"")
    deleted = await http.delete("/mcp")
    assert (deleted.status_code, deleted.content) == (404, b"")
    for method in ("PUT", "PATCH", "OPTIONS"):
        answer = await http.request(method, "/mcp")
        assert (answer.status_code, answer.json()) == (405, {"detail": "Method Not Allowed"})
        assert (await http.request(method, "/mcp/")).headers["location"] == "/mcp"


def messages(text: str) -> list[Any]:
    """The messages of server-sent events."""
    return [json.loads(line[6:]) for line in text.split("\r\n") if line.startswith("data: ")]


async def test_a_call_with_a_token_tells_how_it_goes(client):
    params = {"name": "steps", "arguments": {"text": "x"}, "_meta": {"progressToken": "t"}}
    body = {"jsonrpc": "2.0", "id": "one", "method": "tools/call", "params": params}
    answer = await client.post(body)
    assert answer.headers["content-type"].startswith("text/event-stream")
    *told, last = messages(answer.text)
    assert {one["method"] for one in told} == {"notifications/progress"}
    assert [one["params"] for one in told] == [
        {"progressToken": "t", "progress": n, "message": message}
        for n, message in enumerate(["node", "half way", '{"percent":50}'], 1)
    ]
    assert last["id"] == "one"
    assert last["result"]["structuredContent"] == {"text": "done"}


async def test_an_error_ends_a_call_that_tells_how_it_goes(client):
    params = {"name": "boom", "arguments": {"text": "x"}, "_meta": {"progressToken": 0}}
    body = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params}
    *told, last = messages((await client.post(body)).text)
    assert [one["params"]["progressToken"] for one in told] == [0]
    assert last["result"]["isError"] is True


@pytest.mark.parametrize("accept", ["application/json", "*/*"])
async def test_who_cannot_read_events_gets_json_all_the_same(client, accept):
    params = {"name": "steps", "arguments": {"text": "x"}, "_meta": {"progressToken": "t"}}
    body = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params}
    answer = await client.post(body, accept)
    assert answer.headers["content-type"] == "application/json"
    assert answer.json()["result"]["structuredContent"] == {"text": "done"}


async def test_an_unforeseen_error_is_an_error_of_json_rpc(client, logged, monkeypatch):
    async def fail(*_: object) -> None:
        raise RuntimeError("the-secret-detail")

    monkeypatch.setattr("treadle.mcp.service.McpService.tools", fail)
    error = (await client.ask("tools/list"))["error"]
    assert error["code"] == -32603
    assert "secret" not in error["message"]
    assert [line["event"] for line in logged if line["log_level"] == "error"] == ["unhandled error"]
