"""Push notifications: who is told, and what."""

from __future__ import annotations

import asyncio
import hmac

import pytest
from a2a_client import answer_of, message

SET, GET, LIST, DELETE = (f"tasks/pushNotificationConfig/{verb}"
                          for verb in ("set", "get", "list", "delete"))  # fmt: skip


async def calls(receiver, number):
    async with asyncio.timeout(10):
        while len(receiver.calls) < number:  # noqa: ASYNC110
            await asyncio.sleep(0)
    return receiver.calls


async def test_whoever_asks_with_the_message_hears_of_its_end(agents, receiver, monkeypatch):
    config = {
        "url": f"{receiver.url}/hook",
        "token": "a token",
        "authentication": {"schemes": ["Bearer"], "credentials": "secret"},
    }
    task = await agents.send("chat", "hi", configuration={"pushNotificationConfig": config})
    [call] = await calls(receiver, 1)
    assert call.line == "POST /hook HTTP/1.1"
    assert call.headers["x-a2a-notification-token"] == "a token"
    assert call.headers["authorization"] == "Bearer secret"
    assert call.json == task


async def test_notifications_are_signed_as_webhooks_are(open_agents, receiver, monkeypatch):
    monkeypatch.setenv("TREADLE_WEBHOOK_SECRET", "hush")
    async with open_agents() as agents:
        config = {"url": receiver.url}
        await agents.send("chat", "hi", configuration={"pushNotificationConfig": config})
        [call] = await calls(receiver, 1)
    fields = dict(part.split("=", 1) for part in call.headers["x-treadle-signature"].split(","))
    signed = fields["t"].encode() + b"." + call.body
    assert fields["v1"] == hmac.new(b"hush", signed, "sha256").hexdigest()


async def test_in_1_0_they_say_what_they_are_of(agents, receiver):
    config = {"url": receiver.url, "authentication": {"scheme": "Bearer", "credentials": "x"}}
    params = {**message("hi"), "configuration": {"taskPushNotificationConfig": config}}
    found = await agents.result("chat", "SendMessage", params)
    [call] = await calls(receiver, 1)
    assert call.headers["authorization"] == "Bearer x"
    assert call.json == found


async def test_questions_and_ends_of_one_task_are_told(agents, receiver):
    config = {"url": receiver.url}
    asked = await agents.send("booking", "go", configuration={"pushNotificationConfig": config})
    await calls(receiver, 1)
    await agents.send("booking", "Oslo", taskId=asked["id"])
    first, second = (call.json for call in await calls(receiver, 2))
    assert first["status"]["state"] == "input-required"
    assert first["artifacts"][0]["name"] == "Interrupt"
    assert (second["id"], answer_of(second)) == (asked["id"], "Booked Oslo")


async def test_failures_and_cancels_are_told(agents, graphs, receiver):
    config = {"configuration": {"pushNotificationConfig": {"url": receiver.url}}}
    await agents.send("broken", "go", **config)
    [call] = await calls(receiver, 1)
    assert call.json["status"]["state"] == "failed"
    assert "the-secret-detail" not in str(call.json)
    params = {**message("wait"), "configuration": {**config["configuration"], "blocking": False}}
    task = await agents.result("gated", "message/send", params)
    await graphs.started["wait"].wait()
    await agents.result("gated", "tasks/cancel", {"id": task["id"]})
    assert (await calls(receiver, 2))[1].json["status"]["state"] == "canceled"


async def test_configs_come_and_go(agents, graphs, receiver):
    task = await agents.begin("gated", "wait")
    first = {"id": "first", "url": f"{receiver.url}/first", "token": "t"}
    given = {"taskId": task["id"], "pushNotificationConfig": first}
    assert await agents.result("gated", SET, given) == given
    second = {"taskId": task["id"], "url": f"{receiver.url}/second", "id": "second"}
    assert await agents.result("gated", "CreateTaskPushNotificationConfig", second) == second
    named = {"id": task["id"], "pushNotificationConfigId": "first"}
    assert await agents.result("gated", GET, named) == given
    named = {"taskId": task["id"], "id": "second"}
    assert await agents.result("gated", "GetTaskPushNotificationConfig", named) == second
    listed = await agents.result("gated", LIST, {"id": task["id"]})
    assert [found["pushNotificationConfig"]["id"] for found in listed] == ["first", "second"]
    named = {"id": task["id"], "pushNotificationConfigId": "first"}
    assert await agents.result("gated", DELETE, named) is None
    assert (await agents.error("gated", GET, named))[0] == -32001
    assert (await agents.error("gated", DELETE, named))[0] == -32001
    found = await agents.result("gated", "ListTaskPushNotificationConfigs", {"taskId": task["id"]})
    assert found == {"configs": [second], "nextPageToken": ""}
    graphs.gates["wait"].set()
    [call] = await calls(receiver, 1)
    assert call.line == "POST /second HTTP/1.1"


async def test_an_address_that_must_not_be_called_is_refused(open_agents):
    async with open_agents(webhooks={}) as agents:
        config = {"url": "http://127.0.0.1:1/"}
        params = {**message("hi"), "configuration": {"pushNotificationConfig": config}}
        code, said = await agents.error("chat", "message/send", params)
        assert code == -32602
        assert said.startswith("pushNotificationConfig.url: Webhook")
        task = await agents.send("chat", "hi")
        given = {"taskId": task["id"], "pushNotificationConfig": {"url": "http://10.0.0.1/"}}
        assert (await agents.error("chat", SET, given))[0] == -32602


@pytest.mark.parametrize(
    ("config", "named"),
    [
        ({}, "url must be given"),
        ({"url": 5}, "url must be a string"),
        ({"url": "http://127.0.0.1/", "token": "a\r\nb: c"}, "token"),
        ({"url": "http://127.0.0.1/", "token": []}, "token must be a string"),
        ({"url": "http://127.0.0.1/", "authentication": "x"}, "authentication"),
        ({"url": "http://127.0.0.1/", "authentication": {"schemes": [7]}}, "scheme"),
        ({"url": "nowhere"}, "url"),
    ],
)
async def test_configs_that_are_none(agents, config, named):
    task = await agents.send("chat", "hi")
    given = {"taskId": task["id"], "pushNotificationConfig": config}
    code, said = await agents.error("chat", SET, given)
    assert code == -32602
    assert named in said


async def test_a_run_that_no_message_began_has_none(agents, receiver):
    """Not even that of the task before it, whose mark is on the thread."""
    config = {"url": receiver.url}
    task = await agents.send("chat", "hi", configuration={"pushNotificationConfig": config})
    await calls(receiver, 1)
    path = f"/threads/{task['contextId']}/runs"
    await agents.http.post(f"{path}/wait", json={"assistant_id": "chat", "input": {}})
    run = (await agents.http.get(path)).json()[0]["run_id"]
    given = {"taskId": run, "pushNotificationConfig": config}
    assert (await agents.error("chat", SET, given))[0] == -32003
    await agents.send("chat", "again", configuration={"pushNotificationConfig": config})
    assert len(await calls(receiver, 2)) == 2


async def test_configs_go_with_the_thread(agents, receiver):
    config = {"url": receiver.url}
    task = await agents.send("chat", "hi", configuration={"pushNotificationConfig": config})
    assert len(await agents.result("chat", LIST, {"id": task["id"]})) == 1
    await agents.http.delete(f"/threads/{task['contextId']}")
    again = await agents.send("chat", "hi", contextId=task["contextId"])
    assert await agents.result("chat", LIST, {"id": again["id"]}) == []
