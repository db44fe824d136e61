"""What agents do with messages and tasks."""

from __future__ import annotations

import asyncio
from uuid import uuid4

import pytest
from a2a_client import answer_of, message, text, texts

NOT_FOUND, NOT_CANCELABLE, UNSUPPORTED = -32001, -32002, -32004


async def test_several_texts_are_one_message_with_all_of_them(agents):
    task = await agents.send("chat", "one", "two")
    assert task["history"][0]["parts"] == [text("one"), text("two")]
    assert answer_of(task) == "You said: onetwo (1)"


async def test_files_come_and_go_in_both_dialects(agents):
    picture = {"name": "a.png", "mimeType": "image/png", "bytes": "aGk="}
    page = {"mimeType": "text/html", "uri": "http://example.com/x"}
    old = [text("see"), {"kind": "file", "file": picture}, {"kind": "file", "file": page}]
    new = [
        {"text": "see"},
        {"raw": "aGk=", "filename": "a.png", "mediaType": "image/png"},
        {"url": "http://example.com/x", "mediaType": "text/html"},
    ]
    task = await agents.send("chat", *new)
    assert task["history"][0]["parts"] == old
    found = await agents.result("chat", "SendMessage", message(*old))
    assert found["task"]["history"][0]["parts"] == new
    thread = (await agents.http.get(f"/threads/{task['contextId']}")).json()
    assert thread["values"]["messages"][0]["content"] == [
        {"type": "text", "text": "see"},
        {"type": "image", "base64": "aGk=", "mime_type": "image/png",
         "extras": {"filename": "a.png"}},
        {"type": "file", "url": "http://example.com/x", "mime_type": "text/html"},
    ]  # fmt: skip


async def test_the_output_of_a_graph_without_messages_is_json(agents):
    task = await agents.send("calc", {"kind": "data", "data": {"a": 1, "b": 2}})
    assert answer_of(task) == '{"a":3,"b":2}'
    assert task["history"] == []


async def test_without_a_reply_the_rest_of_the_output_is_the_answer(agents):
    data = {"kind": "data", "data": {"item": "tea", "count": 2}}
    assert answer_of(await agents.send("order", "please", data)) == '{"item":"tea","count":4}'


async def test_tools_and_what_they_say_are_not_in_the_history(agents):
    assert texts(await agents.send("tool", "look")) == ["look", "You said: look (1)"]


async def test_a_task_shows_what_it_showed_when_it_ended(agents):
    first = await agents.send("chat", "one")
    await agents.send("chat", "two", contextId=first["contextId"])
    found = await agents.get("chat", first)
    assert texts(found) == ["one", "You said: one (1)"]
    assert found["artifacts"] == first["artifacts"]
    assert found["status"]["message"]["parts"] == [text("Task completed successfully")]


async def test_an_error_tells_its_class_alone_and_keeps_the_history(agents):
    params = message("boom")
    task = await agents.result("broken", "message/send", params)
    assert task["status"]["message"]["parts"] == [text("Error executing assistant: ValueError")]
    assert texts(task) == ["boom"]
    assert "artifacts" not in task
    events = await agents.stream("broken", "message/stream", message("boom"))
    assert events[-1]["status"]["message"]["parts"] == task["status"]["message"]["parts"]
    found = await agents.get("broken", task)
    for told in (task, events, found):
        assert "the-secret-detail" not in str(told)


async def test_a_message_that_is_not_waited_for_comes_back_at_once(agents, graphs):
    task = await agents.begin("gated", "wait")
    assert (task["status"]["state"], texts(task)) == ("submitted", ["wait"])
    await graphs.started["wait"].wait()
    found = await agents.get("gated", task)
    assert (found["status"]["state"], texts(found)) == ("working", ["wait"])
    graphs.gates["wait"].set()
    assert answer_of(await agents.until("gated", task, "completed")) == "You said: wait (1)"


async def test_return_immediately_is_the_same_in_1_0(agents, graphs):
    params = {**message("wait"), "configuration": {"returnImmediately": True}}
    found = await agents.result("gated", "SendMessage", params)
    assert found["task"]["status"]["state"] == "TASK_STATE_SUBMITTED"
    graphs.gates["wait"].set()
    await agents.until("gated", found["task"], "completed")


# -- questions ---------------------------------------------------------------------------------


@pytest.mark.parametrize("by", ["task", "context", "bare run"])
async def test_an_answer_goes_on_with_the_task(agents, by):
    asked = await agents.send("booking", "a trip")
    names = {
        "task": {"taskId": asked["id"]},
        "context": {"contextId": asked["contextId"]},
        "bare run": {"taskId": asked["id"].split(":")[1], "contextId": asked["contextId"]},
    }[by]
    done = await agents.send("booking", "Oslo", **names)
    assert (done["id"], answer_of(done)) == (asked["id"], "Booked Oslo")
    assert answer_of(await agents.get("booking", asked)) == "Booked Oslo"
    listed = await agents.result("booking", "ListTasks", {"contextId": asked["contextId"]})
    assert [task["id"] for task in listed["tasks"]] == [asked["id"]]
    assert {said["taskId"] for said in done["history"]} == {asked["id"]}


async def test_an_answer_may_be_data(agents):
    asked = await agents.send("booking", "a trip")
    data = {"kind": "data", "data": {"city": "Oslo"}}
    done = await agents.send("booking", data, taskId=asked["id"])
    assert answer_of(done) == "Booked {'city': 'Oslo'}"


async def test_a_task_that_asks_again_waits_again(agents):
    asked = await agents.send("booking", "a trip")
    await agents.send("booking", "Oslo", taskId=asked["id"])
    again = await agents.send("booking", "another", contextId=asked["contextId"])
    assert again["status"]["state"] == "input-required"
    assert again["id"] != asked["id"]


async def test_several_questions_are_answered_by_their_ids(agents):
    asked = await agents.send("two", "go")
    [artifact] = asked["artifacts"]
    questions = {part["data"]["value"]: part["data"]["id"] for part in artifact["parts"]}
    assert questions.keys() == {"here?", "there?"}
    params = message("both", taskId=asked["id"])
    code, said = await agents.error("two", "message/send", params)
    assert code == -32602
    assert all(id in said for id in questions.values())
    answers = {questions["here?"]: "yes", questions["there?"]: "no"}
    done = await agents.send("two", {"kind": "data", "data": answers}, taskId=asked["id"])
    assert done["status"]["state"] == "completed"
    assert {"here: yes", "there: no"} <= {*texts(done)}


async def test_of_two_answers_one_counts(agents):
    asked = await agents.send("booking", "a trip")
    params = [message(city, taskId=asked["id"]) for city in ("Oslo", "Rome")]
    answers = await asyncio.gather(
        *(agents.call("booking", "message/send", given) for given in params)
    )
    [done] = [answer["result"] for answer in answers if "result" in answer]
    [refused] = [answer["error"] for answer in answers if "error" in answer]
    assert answer_of(done) in ("Booked Oslo", "Booked Rome")
    assert refused["code"] == UNSUPPORTED
    runs = (await agents.http.get(f"/threads/{asked['contextId']}/runs")).json()
    assert len(runs) == 2


async def test_another_agents_question_is_not_answered(agents):
    asked = await agents.send("booking", "a trip")
    task = await agents.send("chat", "Oslo", contextId=asked["contextId"])
    assert answer_of(task) == "You said: Oslo (2)"


async def test_a_task_at_work_takes_no_message(agents, graphs):
    task = await agents.begin("gated", "wait")
    await graphs.started["wait"].wait()
    code, said = await agents.error("gated", "message/send", message("x", taskId=task["id"]))
    assert (code, "is working" in said) == (UNSUPPORTED, True)
    graphs.gates["wait"].set()
    await agents.until("gated", task, "completed")


# -- canceling ---------------------------------------------------------------------------------


async def test_whoever_waits_for_a_canceled_task_hears_of_it(agents, graphs):
    context = str(uuid4())
    sent = asyncio.create_task(agents.send("gated", "wait", contextId=context))
    await graphs.started["wait"].wait()
    [run] = (await agents.http.get(f"/threads/{context}/runs")).json()
    params = {"id": run["run_id"], "contextId": context}
    canceled = await agents.result("gated", "tasks/cancel", params)
    assert canceled["status"]["message"]["parts"] == [text("Task was canceled")]
    task = await sent
    assert (task["status"]["state"], texts(task)) == ("canceled", ["wait"])


async def test_a_task_that_waits_for_an_answer_can_be_canceled(agents):
    asked = await agents.send("booking", "a trip")
    canceled = await agents.result("booking", "tasks/cancel", {"id": asked["id"]})
    assert canceled["status"]["state"] == "canceled"
    assert (await agents.get("booking", asked))["status"]["state"] == "canceled"
    thread = (await agents.http.get(f"/threads/{asked['contextId']}")).json()
    assert (thread["status"], thread["interrupts"]) == ("idle", {})
    code, _ = await agents.error("booking", "tasks/cancel", {"id": asked["id"]})
    assert code == NOT_CANCELABLE
    code, _ = await agents.error("booking", "message/send", message("x", taskId=asked["id"]))
    assert code == UNSUPPORTED
    again = await agents.send("booking", "a trip", contextId=asked["contextId"])
    assert (again["status"]["state"], again["id"] != asked["id"]) == ("input-required", True)


# -- lists -------------------------------------------------------------------------------------


async def test_tasks_are_listed_by_their_state(agents, graphs):
    done = await agents.send("booking", "a trip")
    await agents.send("booking", "Oslo", taskId=done["id"])
    asked = await agents.send("booking", "a trip")
    canceled = await agents.send("booking", "a trip")
    await agents.result("booking", "tasks/cancel", {"id": canceled["id"]})

    async def listed(**params):
        found = await agents.result("booking", "tasks/list", params)
        assert found["totalSize"] == len(found["tasks"])
        return [task["id"] for task in found["tasks"]]

    assert await listed(pageSize=100) == [canceled["id"], asked["id"], done["id"]]
    assert await listed(status="completed") == [done["id"]]
    assert await listed(status="TASK_STATE_INPUT_REQUIRED") == [asked["id"]]
    assert await listed(status="canceled") == [canceled["id"]]
    assert await listed(status="failed") == await listed(status="rejected") == []
    assert await listed(contextId=asked["contextId"]) == [asked["id"]]
    assert await listed(contextId="nope") == await listed(contextId=str(uuid4())) == []
    moment = asked["status"]["timestamp"]
    assert asked["id"] not in await listed(statusTimestampAfter=moment)


async def test_lists_have_artifacts_and_history_as_wished(agents):
    task = await agents.send("chat", "one")
    params = {"contextId": task["contextId"], "includeArtifacts": True, "historyLength": 1}
    found = await agents.result("chat", "ListTasks", params)
    [listed] = found["tasks"]
    assert listed["history"][0]["role"] == "ROLE_AGENT"
    assert listed["artifacts"][0]["parts"] == [{"text": "You said: one (1)"}]


async def test_runs_of_the_runs_api_are_tasks_of_their_own(agents):
    task = await agents.send("chat", "one")
    body = {"assistant_id": "chat", "input": {"messages": [{"role": "user", "content": "two"}]}}
    path = f"/threads/{task['contextId']}/runs"
    await agents.http.post(f"{path}/wait", json=body)
    run = (await agents.http.get(path)).json()[0]["run_id"]
    found = await agents.get("chat", {"id": run})
    assert answer_of(found) == "You said: two (2)"
    assert found["id"] == f"{task['contextId']}:{run}"
    assert [said["taskId"] for said in found["history"]] == [task["id"]] * 2 + [found["id"]] * 2


@pytest.mark.parametrize("context", [None, "its own", "another", "nope"])
async def test_tasks_are_found_in_their_own_context_alone(agents, context):
    task = await agents.send("chat", "one")
    given = {"its own": task["contextId"], "another": str(uuid4())}.get(context, context)
    answer = await agents.call("chat", "tasks/get", {"id": task["id"], "contextId": given})
    if context in (None, "its own"):
        assert answer["result"]["id"] == task["id"]
    else:
        said = f"Task not found: {task['id']} in context '{given}'"
        assert answer["error"] == {"code": NOT_FOUND, "message": said}


async def test_a_task_goes_with_its_thread(agents):
    task = await agents.send("chat", "one")
    await agents.http.delete(f"/threads/{task['contextId']}")
    assert (await agents.error("chat", "tasks/get", {"id": task["id"]}))[0] == NOT_FOUND
