"""Cards, envelopes, and whatever else may come over the wire."""

from __future__ import annotations

import random

import pytest
from a2a_client import message, text

from treadle.settings import Settings

UNKNOWN = "0197c3c8-9d6f-7bd0-8a5e-6f9a5f0f3c11"
ADDRESSES = (
    "/.well-known/agent-card.json?assistant_id={}",
    "/a2a/{}",
    "/a2a/{}/.well-known/agent-card.json",
)


async def test_a_card_is_the_same_at_its_three_addresses_by_id_and_by_graph(agents):
    found = (await agents.http.post("/assistants/search", json={"graph_id": "chat"})).json()
    assistant_id = found[0]["assistant_id"]
    cards = [
        (await agents.http.get(address.format(name))).json()
        for address in ADDRESSES
        for name in (assistant_id, "chat")
    ]
    assert all(card == cards[0] for card in cards)
    assert cards[0]["url"] == f"http://test/a2a/{assistant_id}"
    assert cards[0]["description"] == "Repeats what is said."
    assert await agents.result("chat", "GetExtendedAgentCard") == cards[0]


@pytest.mark.parametrize("name", ["nope", UNKNOWN])
async def test_an_unknown_card_is_not_there(agents, name):
    answers = [await agents.http.get(address.format(name)) for address in ADDRESSES]
    assert [answer.status_code for answer in answers] == [400, 404, 404]
    assert {answer.json()["error"]["code"] for answer in answers} == {-32602}


async def test_a_card_is_where_the_server_is_mounted(open_agents):
    async with open_agents(Settings(log_level="ERROR", mount_prefix="/below")) as agents:
        card = (await agents.http.get("/below/a2a/chat")).json()
        assert card["url"].startswith("http://test/below/a2a/")


async def test_the_operations_are_described(agents):
    document = (await agents.http.get("/openapi.json")).json()
    assert "A2A" in {tag["name"] for tag in document["tags"]}
    operations = [
        operation
        for path in document["paths"].values()
        for operation in path.values()
        if operation["tags"] == ["A2A"]
    ]
    assert len(operations) == 4


@pytest.mark.parametrize("method", ["put", "patch", "delete"])
async def test_other_methods_are_not_allowed(agents, method):
    answer = await agents.http.request(method, "/a2a/chat")
    assert answer.status_code == 405
    assert answer.headers["allow"] == "GET, HEAD, POST"


@pytest.mark.parametrize(
    "method",
    [
        "nope",
        "tasks/list",
        "tasks/resubscribe",
        "tasks/pushNotificationConfig/set",
        "tasks/pushNotificationConfig/get",
        "tasks/pushNotificationConfig/list",
        "tasks/pushNotificationConfig/delete",
    ],
)
async def test_what_others_lack_is_not_found_without_parameters(agents, method):
    said = f"Method not found: {method}"
    assert await agents.error("chat", method, {}) == (-32601, said)


# -- bad input ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"", -32700),
        (b"\xff", -32700),
        (b"[" * 100_000, -32700),
        (b"{" + b'"a":{' * 400 + b"}" * 401, -32600),
        (b'{"jsonrpc":"2.0","id":1,"method":"tasks/get","params":{"id":1e999}}', -32700),
        (b'{"jsonrpc":"2.0","id":99999999999999999999999,"method":"x"}', -32600),
        (b'{"jsonrpc":"2.0","id":{},"method":"x"}', -32600),
        (b'{"jsonrpc":"2.0","id":true,"method":"x"}', -32600),
        (b'{"jsonrpc":"2.0","id":null,"method":"x"}', -32600),
        (b'{"jsonrpc":"2.0","id":1,"method":7}', -32600),
        (b'{"jsonrpc":"2.0","id":1,"method":""}', -32600),
        (b'{"jsonrpc":"2.0","id":1,"method":"x","params":"y"}', -32602),
    ],
)
async def test_what_is_no_call(agents, body, code):
    answer = await agents.post("chat", body)
    assert (answer.status_code, answer.json()["error"]["code"]) == (200, code)


FILE = {"kind": "file", "file": {"bytes": "aGk="}}


@pytest.mark.parametrize(
    ("given", "code", "named"),
    [
        (message(text(5)), -32602, "message.parts[0].text"),  # pyright: ignore
        (message("a", {"kind": "file", "file": "x"}), -32602, "message.parts[1].file"),
        (message({"kind": "file", "file": {}}), -32602, "bytes (in base64) or a uri"),
        (message({"kind": "file", "file": {"bytes": "a", "uri": "b"}}), -32602, "parts[0].file"),
        (message({"kind": "file", "file": {"bytes": "?"}}), -32602, "file.bytes must be base64"),
        (message({"kind": "file", "file": {"uri": 5}}), -32602, "file.uri must be a string"),
        (message({"raw": 5}), -32602, "parts[0].file.bytes must be a string"),
        (message(7), -32005, "must be an object"),
        (message({}), -32005, "Unsupported part type"),
        (message({"kind": []}), -32005, "Unsupported part type"),
        (message("a", taskId=7), -32602, "taskId must be a string"),
        (message("a", contextId=[]), -32602, "contextId must be a string"),
        (message("a", contextId="x" * 10_000), -32602, "Invalid thread ID"),
        ({**message("a"), "configuration": 5}, -32602, "'configuration' must be an object"),
        ({**message("a"), "configuration": {"blocking": 1}}, -32602, "configuration.blocking"),
        ({**message("a"), "configuration": {"historyLength": -1}}, -32602, "historyLength"),
        ({**message("a"), "configuration": {"historyLength": 1.5}}, -32602, "historyLength"),
        ({"message": {"messageId": "1", "parts": {}}}, -32602, "'parts' must be an array"),
        ({"message": {"messageId": 1, "parts": [FILE]}}, -32602, "'messageId'"),
    ],
)
async def test_a_message_that_cannot_be_taken_says_why(agents, given, code, named):
    found, said = await agents.error("chat", "message/send", given)
    assert found == code
    assert named in said
    assert (await agents.error("chat", "SendStreamingMessage", given))[0] == code


@pytest.mark.parametrize(
    ("method", "params", "named"),
    [
        ("tasks/get", {"id": 5}, "must be strings"),
        ("tasks/get", {"id": "x", "contextId": 5}, "must be strings"),
        ("tasks/cancel", {"id": None}, "Missing required parameter: id"),
        ("ListTasks", {"pageSize": "9"}, "pageSize"),
        ("ListTasks", {"pageSize": True}, "pageSize"),
        ("ListTasks", {"pageToken": "-1"}, "pageToken"),
        ("ListTasks", {"pageToken": 9}, "pageToken"),
        ("ListTasks", {"pageToken": "9" * 50}, "pageToken"),
        ("ListTasks", {"status": "nope"}, "Invalid status value: 'nope'."),
        ("ListTasks", {"status": []}, "status must be a string"),
        ("ListTasks", {"contextId": {}}, "contextId must be a string"),
        ("ListTasks", {"includeArtifacts": "yes"}, "includeArtifacts must be a boolean"),
        ("ListTasks", {"statusTimestampAfter": "soon"}, "statusTimestampAfter"),
        ("ListTasks", {"historyLength": "all"}, "historyLength"),
        ("DeleteTaskPushNotificationConfig", {"taskId": []}, "must be strings"),
    ],
)
async def test_parameters_that_are_wrong_are_named(agents, method, params, named):
    code, said = await agents.error("chat", method, params)
    assert code == -32602
    assert named in said


METHODS = (
    "message/send", "message/stream", "SendMessage", "SendStreamingMessage", "tasks/get",
    "GetTask", "tasks/cancel", "CancelTask", "tasks/list", "ListTasks", "tasks/resubscribe",
    "SubscribeToTask", "GetExtendedAgentCard", "tasks/pushNotificationConfig/set",
    "GetTaskPushNotificationConfig", "ListTaskPushNotificationConfigs",
    "CreateTaskPushNotificationConfig", "tasks/pushNotificationConfig/delete",
)  # fmt: skip
KEYS = (
    "message", "parts", "messageId", "taskId", "contextId", "role", "kind", "text", "data", "file",
    "bytes", "uri", "raw", "url", "mediaType", "id", "historyLength", "configuration", "blocking",
    "pushNotificationConfig", "authentication", "schemes", "token", "pageSize", "pageToken",
    "status", "metadata", "messages", "statusTimestampAfter",
)  # fmt: skip
LEAVES = (
    None, True, 0, -1, 1.5, 2**63, "", "x", "text", "data", "file", "user", "\x00", "\ud800",
    "x" * 5000, UNKNOWN, f"{UNKNOWN}:{UNKNOWN}", ":", "a:b:c",
)  # fmt: skip


def anything(dice, depth=0):
    """A value of whatever type, that looks a little like what is expected."""
    choice = dice.random()
    if depth > 5 or choice < 0.4:
        return dice.choice(LEAVES)
    if choice < 0.55:
        return [anything(dice, depth + 1) for _ in range(dice.randrange(4))]
    return {dice.choice(KEYS): anything(dice, depth + 1) for _ in range(dice.randrange(6))}


@pytest.mark.parametrize("seed", range(4))
async def test_no_call_breaks_the_server(agents, seed):
    dice = random.Random(seed)
    for _ in range(250):
        method, agent = dice.choice(METHODS), dice.choice(("chat", "calc", "order", "booking"))
        params = anything(dice)
        if dice.random() < 0.5:
            params = message(*(anything(dice, 3) for _ in range(dice.randrange(1, 3))))
            params["message"][dice.choice(KEYS)] = anything(dice, 4)
        body = {"jsonrpc": "2.0", "id": 1, "method": method, "params": params}
        answer = await agents.post(agent, body)
        assert answer.status_code == 200, (body, answer.text)
        if answer.headers["content-type"] == "application/json":
            answer = answer.json()
            assert ("result" in answer) != ("error" in answer), body
            assert answer.get("error", {}).get("code") != -32603, body
