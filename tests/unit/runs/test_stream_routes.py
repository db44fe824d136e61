"""The endpoints that join streams: their parameters, and what they leave behind."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from asgi_client import Client

from treadle.auth import ANYONE
from treadle.http.request import Request
from treadle.runs.stream_routes import StreamRoutes, listed


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (None, set()),
        ([], set()),
        ([""], set()),
        (["a"], {"a"}),
        (["a,b", "c"], {"a", "b", "c"}),
        ([" a , ,b "], {"a", "b"}),
    ],
)
def test_repeated_parameters_and_comma_lists(values, expected):
    assert listed(values) == expected


class Joiner:
    """Joins streams, and reads them."""

    def __init__(self, house: Any) -> None:
        self._routes = StreamRoutes(house.service, house.events)

    async def join(
        self, thread: str, run: str | None, query: str = "", last: str | None = None
    ) -> tuple[Client, asyncio.Task[None]]:
        headers = [(b"last-event-id", last.encode())] if last else []
        client = Client()
        names = {"thread_id": thread, "run_id": run} if run else {"thread_id": thread}
        scope = {
            "type": "http",
            "path_params": names,
            "query_string": query.encode(),
            "headers": headers,
        }
        request = Request(scope, client.receive, ANYONE, "request")
        handler = self._routes.join if run else self._routes.thread
        task = asyncio.create_task(client.gets(await handler(request)))
        while not client.status:  # noqa: ASYNC110
            await asyncio.sleep(0)
        return client, task


@pytest.fixture
def joiner(house) -> Joiner:
    return Joiner(house)


def names(client: Client) -> list[str]:
    lines = client.body.decode().split("\r\n")
    return [line.removeprefix("event: ") for line in lines if line.startswith("event: ")]


async def test_joining_a_run_in_the_middle(house, graphs, joiner):
    thread = await house.thread()
    run = await house.create(thread, "gated", "end", input={"gate": "a"})
    await house.at("a")
    client, task = await joiner.join(thread, run.run_id)
    graphs.gates["a"].set()
    await task
    assert names(client) == ["values", "values"]
    await house.outcome(run)
    await house.until(lambda: house.events._logs == {})


@pytest.mark.parametrize("query", ["stream_mode=updates", "stream_mode=updates,custom"])
async def test_joining_with_modes(house, graphs, joiner, query):
    thread = await house.thread()
    modes = ["values", "updates", "tasks"]
    run = await house.create(thread, "gated", "end", input={"gate": "a"}, stream_mode=modes)
    await house.at("a")
    client, task = await joiner.join(thread, run.run_id, query)
    graphs.gates["a"].set()
    await task
    assert names(client) == ["updates", "updates"]
    run.reader.close()


@pytest.mark.parametrize("last", ["-", "-1", "0", "0-0"])
async def test_joining_from_the_start(house, joiner, last):
    thread = await house.thread()
    run = await house.create(thread, watch="end", stream_resumable=True)
    await house.outcome(run)
    client, task = await joiner.join(thread, run.run_id, last=last)
    await task
    assert names(client) == ["metadata", "values", "values", "values"]


async def test_a_run_that_is_not_resumable_has_no_past(house, joiner):
    thread = await house.thread()
    run = await house.create(thread, watch="end")
    await house.outcome(run)
    client, task = await joiner.join(thread, run.run_id, last="-1")
    await task
    assert client.body == b""


@pytest.mark.parametrize(("query", "status"), [("", "running"), ("cancel_on_disconnect=1", "")])
async def test_a_joiner_that_leaves(house, graphs, joiner, query, status):
    thread = await house.thread()
    run = await house.create(thread, "gated", "end", input={"gate": "a"})
    await house.at("a")
    client, task = await joiner.join(thread, run.run_id, query)
    client.leave()
    await task
    if status:
        assert await house.statuses(thread) == [status]
        graphs.gates["a"].set()
    outcome = await house.outcome(run)
    assert outcome.status == ("success" if status else "interrupted")


@pytest.mark.parametrize("name", ["stream_mode", "stream_modes"])
async def test_the_stream_of_a_thread(house, joiner, name):
    thread = await house.thread()
    client, task = await joiner.join(thread, None, f"{name}=lifecycle")
    for _ in range(2):
        await house.run(thread)
    await house.threads.delete(ANYONE, thread)
    await task
    assert names(client) == ["metadata"] * 4


async def test_the_stream_of_a_thread_from_the_start(house, joiner):
    thread = await house.thread()
    for resumable in (True, False, True):
        await house.run(thread, stream_resumable=resumable)
    client, task = await joiner.join(thread, None, "stream_modes=lifecycle", last="-")
    await client.got(b"metadata")
    await house.threads.delete(ANYONE, thread)
    await task
    assert names(client) == ["metadata"] * 4
