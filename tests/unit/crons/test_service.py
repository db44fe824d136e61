"""Crons over HTTP: what is kept, what is refused. None of them is ever due here."""

from __future__ import annotations

import pytest


async def refusal(town, status, **fields):
    body = {"assistant_id": "echo", "schedule": "0 * * * *", **fields}
    answer = await town.http.post("/runs/crons", json=body)
    assert answer.status_code == status, answer.text
    return answer.json()["detail"]


async def test_unknown_fields_stay_in_the_payload(town):
    cron = await town.cron(note="mine", input={"text": "hi"}, context={"tone": "kind"})
    assert cron["payload"]["note"] == "mine"
    assert cron["payload"]["config"] == {"configurable": {"cron_id": cron["cron_id"]}}
    assert (cron["user_id"], cron["on_run_completed"]) == ("", "delete")


async def test_a_sent_cron_id_is_not_believed(town):
    cron = await town.cron(config={"configurable": {"cron_id": "x", "tone": "dry"}})
    assert cron["payload"]["config"]["configurable"] == {
        "cron_id": cron["cron_id"],
        "tone": "dry",
    }


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"end_time": "soon"}, "end_time"),
        ({"end_time": None}, "end_time"),
        ({"multitask_strategy": "explode"}, "multitask_strategy"),
        ({"catch_up": "twice"}, "catch_up"),
        ({"timezone": ""}, "timezone"),
        ({"schedule": "99 * * * *"}, "minute"),
        ({"webhook": "ftp://x.example/"}, "scheme"),
        ({"config": {"tags": "x"}}, "tags"),
    ],
    ids=str,
)
async def test_bad_fields_are_named(town, fields, named):
    assert named in await refusal(town, 422, **fields)


async def test_what_could_never_run_is_refused(town):
    assert "failed to find next date" in await refusal(town, 400, schedule="0 0 31 2 *")
    both = {"config": {"configurable": {"a": 1}}, "context": {"b": 1}}
    assert "context" in await refusal(town, 400, **both)
    cron = await town.cron(config={"configurable": {"a": 1}})
    assert (await town.patch(cron, context={"b": 1})).status_code == 400
    assert (await town.patch(cron, config={}, context={"b": 1})).status_code == 200


async def test_missing_ones_are_told_apart(town):
    unknown = "01a1fd5b-fd45-7121-b96e-b5206e482b47"
    body = {"assistant_id": "echo", "schedule": "0 * * * *"}
    on_thread = await town.http.post(f"/threads/{unknown}/runs/crons", json=body)
    assert on_thread.json()["detail"] == f"Thread with ID '{unknown}' not found"
    assert f"Assistant '{unknown}' not found" in await refusal(town, 404, assistant_id=unknown)
    assert "Assistant 'nope' not found" in await refusal(town, 404, assistant_id="nope")


async def test_a_time_zone_can_be_taken_back(town):
    cron = await town.cron(schedule="0 9 * * *", timezone="Asia/Tokyo")
    assert cron["next_run_date"].startswith("2026-03-02T00:00")
    after = (await town.patch(cron, timezone=None)).json()
    assert after["timezone"] is None
    assert after["next_run_date"].startswith("2026-03-02T09:00")


async def test_an_end_cuts_off_what_comes_after_it(town):
    cron = await town.cron(schedule="0 9 * * *", end_time="2026-03-02T09:00:00Z")
    assert cron["next_run_date"].startswith("2026-03-02T09:00")
    over = (await town.patch(cron, end_time="2026-03-02T08:59:59Z")).json()
    assert (over["next_run_date"], over["end_time"]) == (None, "2026-03-02T08:59:59Z")
    again = (await town.patch(cron, end_time=None)).json()
    assert again["next_run_date"] == cron["next_run_date"]


async def test_a_thread_cron_has_no_thread_to_delete(town):
    cron = await town.cron(await town.thread())
    assert cron["on_run_completed"] is None
    refused = await town.patch(cron, on_run_completed="delete")
    assert refused.status_code == 422
    assert "on_run_completed" in refused.json()["detail"]


async def test_a_patch_shows_itself_in_the_payload(town):
    cron = await town.cron(metadata={"a": 1}, input={"text": "x"})
    after = (await town.patch(cron, metadata={"b": 2}, assistant_id="nope")).json()
    assert after["metadata"] == {"a": 1, "b": 2}
    assert after["payload"]["metadata"] == {"b": 2}
    assert after["payload"]["assistant_id"] == cron["assistant_id"]
    assert after["payload"]["input"] == {"text": "x"}
    assert (await town.patch(cron)).status_code == 400


async def test_crons_without_an_end_come_last(town):
    for n, end in enumerate([None, "2031-01-01T00:00:00Z", "2030-01-01T00:00:00Z"]):
        await town.cron(metadata={"n": n}, **({} if end is None else {"end_time": end}))
    for order, expected in (("asc", [2, 1, 0]), ("desc", [1, 2, 0])):
        body = {"sort_by": "end_time", "sort_order": order}
        found = (await town.http.post("/runs/crons/search", json=body)).json()
        assert [cron["metadata"]["n"] for cron in found] == expected
    body = {"sort_order": "asc", "select": ["metadata"], "limit": 2}
    answer = await town.http.post("/runs/crons/search", json=body)
    assert [cron["metadata"]["n"] for cron in answer.json()] == [0, 1]
    assert answer.headers["x-pagination-total"] == "3"


async def test_crons_go_with_what_they_need(town):
    thread_id = await town.thread()
    await town.cron(thread_id)
    assistant = (await town.http.post("/assistants", json={"graph_id": "echo"})).json()
    await town.cron(assistant_id=assistant["assistant_id"])
    await town.http.delete(f"/threads/{thread_id}")
    await town.http.delete(f"/assistants/{assistant['assistant_id']}")
    assert (await town.http.post("/runs/crons/count", json={})).json() == 0
