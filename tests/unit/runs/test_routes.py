"""The endpoints of runs over HTTP: codes, headers, and what a body may hold."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from treadle.http.application import Application
from treadle.runs.routes import routes
from treadle.runs.stream_routes import stream_routes


@pytest.fixture
async def http(house) -> AsyncIterator[httpx.AsyncClient]:
    endpoints = [*routes(house.service), *stream_routes(house.service, house.events)]
    transport = httpx.ASGITransport(Application(endpoints))
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        yield client


@pytest.fixture
async def thread(house) -> str:
    return await house.thread()


def asking(graph: str = "chain", **fields: Any) -> dict[str, Any]:
    return {"assistant_id": graph, "input": {}, **fields}


async def test_creating_in_the_background(http, thread):
    answer = await http.post(f"/threads/{thread}/runs", json=asking())
    assert answer.status_code == 200
    place = f"/threads/{thread}/runs/{answer.json()['run_id']}"
    assert answer.headers["content-location"] == place
    assert (await http.get(place)).json()["run_id"] == answer.json()["run_id"]


async def test_waiting(http, thread):
    answer = await http.post(f"/threads/{thread}/runs/wait", json=asking())
    assert answer.status_code == 200
    assert answer.json() == {"log": ["a", "b", "c"]}
    place = answer.headers["content-location"]
    assert place.startswith(f"/threads/{thread}/runs/")
    assert answer.headers["location"] == f"{place}/join"
    assert (await http.get(answer.headers["location"])).json() == {"log": ["a", "b", "c"]}


async def test_streaming(http, thread):
    body = asking(stream_mode=["updates"], stream_resumable=True)
    answer = await http.post(f"/threads/{thread}/runs/stream", json=body)
    assert answer.headers["content-type"] == "text/event-stream; charset=utf-8"
    names = [line for line in answer.text.split("\r\n") if line.startswith("event: ")]
    assert names == ["event: metadata", *["event: updates"] * 3]
    again = await http.get(answer.headers["location"], headers={"last-event-id": "-1"})
    assert again.text == answer.text


async def test_stateless_runs(http):
    answer = await http.post("/runs/wait", json=asking())
    assert answer.json() == {"log": ["a", "b", "c"]}
    streamed = await http.post("/runs/stream", json=asking(on_completion="keep"))
    assert streamed.headers["content-location"].startswith("/runs/")
    assert (await http.get(streamed.headers["location"])).status_code == 200
    batch = await http.post("/runs/batch", json=[asking(), asking()])
    assert [run["status"] for run in batch.json()] == ["pending", "pending"]


async def test_listing_selects_fields(http, thread):
    await http.post(f"/threads/{thread}/runs/wait", json=asking())
    listed = await http.get(f"/threads/{thread}/runs?select=status&select=multitask_strategy")
    assert listed.json() == [{"status": "success", "multitask_strategy": "enqueue"}]


async def test_cancelling(http, house, thread):
    await house.create(thread, "gated", input={"gate": "a"})
    await house.at("a")
    [run] = (await http.get(f"/threads/{thread}/runs")).json()
    place = f"/threads/{thread}/runs/{run['run_id']}"
    answer = await http.post(f"{place}/cancel?wait=true")
    assert (answer.status_code, answer.json()) == (200, {})
    assert answer.headers["location"] == f"{place}/join"
    assert (await http.post(f"{place}/cancel")).status_code == 404
    assert (await http.delete(place)).status_code == 204
    assert (await http.get(place)).status_code == 404


NO = "no-uuid"
SOME = "00000000-0000-4000-8000-000000000000"


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "said"),
    [
        ("POST", f"/threads/{NO}/runs", asking(), 422, "Invalid thread ID: must be a UUID"),
        ("POST", f"/threads/{NO}/runs/wait", asking(), 422, "Invalid thread ID"),
        ("POST", f"/threads/{NO}/runs/stream", asking(), 422, "Invalid thread ID"),
        ("POST", f"/threads/{SOME}/runs", asking(), 404, "Thread or assistant not found."),
        ("POST", f"/threads/{SOME}/runs", {}, 422, "assistant_id"),
        ("POST", f"/threads/{SOME}/runs", asking(if_not_exists="x"), 422, "if_not_exists"),
        ("POST", "/runs", asking(on_completion="x"), 422, "on_completion"),
        ("POST", "/runs", asking(multitask_strategy=5), 422, "multitask_strategy"),
        ("POST", "/runs/batch", [], 422, ""),
        ("POST", "/runs/cancel", {}, 422, "Give either status, or both thread_id and run_ids"),
        ("POST", "/runs/cancel", {"status": "all", "thread_id": SOME}, 422, "Give either"),
        ("POST", "/runs/cancel", {"status": "bogus"}, 422, "status"),
        ("POST", "/runs/cancel", {"thread_id": SOME, "run_ids": [NO]}, 422, "Invalid run ID"),
        ("POST", "/runs/cancel", {"status": "all"}, 404, "No runs found to cancel."),
        ("POST", "/runs/cancel?action=stop", {"status": "all"}, 422, "action"),
        ("POST", f"/threads/{SOME}/runs/{SOME}/cancel?action=stop", None, 422, "action"),
        ("POST", f"/threads/{SOME}/runs/{SOME}/cancel?wait=maybe", None, 422, "wait"),
        ("POST", f"/threads/{SOME}/runs/{SOME}/cancel", None, 404, "No runs found to cancel."),
        ("GET", f"/threads/{SOME}/runs", None, 404, f"Thread with ID {SOME} not found"),
        ("GET", f"/threads/{SOME}/runs?select=bogus", None, 422, "Invalid select columns"),
        ("GET", f"/threads/{SOME}/runs?limit=-1", None, 422, "limit"),
        ("GET", f"/threads/{SOME}/runs?limit=abc", None, 422, "limit"),
        ("GET", f"/threads/{SOME}/runs?limit=99999999999999999999", None, 422, "limit"),
        ("GET", f"/threads/{SOME}/runs?status=bogus", None, 422, "status"),
        ("GET", f"/threads/{SOME}/runs/{NO}", None, 422, "Invalid run ID: must be a UUID"),
        ("GET", f"/threads/{SOME}/runs/{SOME}/join", None, 404, "not found"),
        ("GET", f"/threads/{SOME}/runs/{SOME}/stream", None, 404, "not found"),
        ("DELETE", f"/threads/{SOME}/runs/{SOME}", None, 404, "not found"),
        ("GET", f"/threads/{SOME}/stream", None, 404, "not found"),
        (
            "GET",
            f"/threads/{SOME}/stream?stream_modes=bogus",
            None,
            422,
            "Invalid stream mode: bogus",
        ),
    ],
)
async def test_what_is_refused_says_why(http, method, path, body, status, said):
    answer = await http.request(method, path, json=body)
    assert (answer.status_code, said in answer.json()["detail"]) == (status, True), answer.text


async def test_a_body_that_is_no_json(http, thread):
    answer = await http.post(f"/threads/{thread}/runs", content=b"{")
    assert (answer.status_code, answer.json()) == (422, {"detail": "Invalid JSON in request body"})
