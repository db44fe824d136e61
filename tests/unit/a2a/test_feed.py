"""Streams of tasks: of those who send, and of those who come later."""

from __future__ import annotations

import asyncio
from itertools import pairwise

from a2a_client import message


def said(events):
    """What the status updates of a stream say that is not its end."""
    updates = [event for event in events if event["kind"] == "status-update" and not event["final"]]
    return [update["status"]["message"]["parts"][0]["text"] for update in updates]


def kinds(events):
    return [event["kind"] for event in events]


async def test_a_stream_tells_what_is_said_as_it_grows(agents, graphs):
    graphs.gates["one two three"].set()
    events = await agents.stream("tokens", "message/stream", message("go"))
    assert said(events) == ["one", "one ", "one two", "one two ", "one two three"]
    assert kinds(events) == ["task", *["status-update"] * 5, "artifact-update", "status-update"]
    assert len({update["status"]["message"]["messageId"] for update in events[1:-2]}) == 1


async def test_each_message_of_a_run_is_told_by_itself(agents):
    assert said(await agents.stream("tool", "message/stream", message("look"))) == [
        "You said: look (1)"
    ]


async def test_events_of_1_0_say_what_they_are(agents, graphs):
    graphs.gates["one two three"].set()
    events = await agents.stream("tokens", "SendStreamingMessage", message("go"))
    assert [next(iter(event)) for event in events] == [
        "task", *["statusUpdate"] * 5, "artifactUpdate", "statusUpdate"
    ]  # fmt: skip
    assert '"kind"' not in str(events).replace("'", '"')
    assert events[-1]["statusUpdate"]["status"]["state"] == "TASK_STATE_COMPLETED"
    assert events[-2]["artifactUpdate"]["artifact"]["parts"] == [{"text": "one two three"}]


async def test_who_subscribes_late_gets_what_was_said_and_what_follows(agents, graphs):
    task = await agents.begin("tokens", "go")
    await graphs.started["one two three"].wait()
    late = asyncio.create_task(agents.stream("tokens", "tasks/resubscribe", {"id": task["id"]}))
    later = asyncio.create_task(agents.stream("tokens", "SubscribeToTask", {"id": task["id"]}))
    for _ in range(20):
        await agents.get("tokens", task)
    graphs.gates["one two three"].set()
    events = await late
    assert events[0]["status"]["state"] == "working"
    grown = said(events)
    assert grown[-1] == "one two three"
    assert all(later.startswith(earlier) for earlier, later in pairwise(grown))
    assert kinds(events[-2:]) == ["artifact-update", "status-update"]
    assert (events[-1]["status"]["state"], events[-1]["final"]) == ("completed", True)
    told = [next(iter(event)) for event in await later]
    assert told[:2] == ["task", "statusUpdate"]
    assert told[-2:] == ["artifactUpdate", "statusUpdate"]


async def test_who_subscribes_after_the_end_gets_it(agents):
    task = await agents.send("chat", "hi")
    events = await agents.stream("chat", "tasks/resubscribe", {"id": task["id"]})
    assert kinds(events) == ["task", "artifact-update", "status-update"]
    assert events[-1]["final"] is True
    asked = await agents.send("booking", "a trip")
    events = await agents.stream("booking", "tasks/resubscribe", {"id": asked["id"]})
    assert events[-1]["status"]["state"] == "input-required"


async def test_a_stream_goes_on_with_a_task_that_asked(agents):
    asked = await agents.stream("booking", "message/stream", message("a trip"))
    task_id = asked[0]["id"]
    events = await agents.stream("booking", "message/stream", message("Oslo", taskId=task_id))
    assert events[0]["id"] == task_id
    assert events[-2]["artifact"]["parts"][0]["text"] == "Booked Oslo"


async def test_a_stream_tells_of_a_cancel(agents, graphs):
    task = await agents.begin("gated", "wait")
    await graphs.started["wait"].wait()
    watched = asyncio.create_task(agents.stream("gated", "tasks/resubscribe", {"id": task["id"]}))
    for _ in range(20):
        await agents.get("gated", task)
    await agents.result("gated", "tasks/cancel", {"id": task["id"]})
    events = await watched
    assert (events[-1]["status"]["state"], events[-1]["final"]) == ("canceled", True)


async def test_the_stream_of_a_task_whose_thread_goes_ends_with_an_error(agents, graphs):
    task = await agents.begin("gated", "wait")
    await graphs.started["wait"].wait()
    body = {"jsonrpc": "2.0", "id": 1, "method": "tasks/resubscribe", "params": {"id": task["id"]}}
    watched = asyncio.create_task(agents.post("gated", body))
    for _ in range(20):
        await agents.get("gated", task)
    await agents.http.delete(f"/threads/{task['contextId']}")
    assert '"code":-32001' in (await watched).text.splitlines()[-2]
