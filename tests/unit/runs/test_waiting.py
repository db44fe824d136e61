"""The response of wait and join: headers at once, white space meanwhile, then JSON."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from asgi_client import Client
from streaming_time import run_fast

from treadle.http.response import JSON_TYPE
from treadle.runs.outcome import END, EVENT, GONE, GONE_KIND, Outcome
from treadle.runs.waiting import KEEP_ALIVE_SECONDS, WaitForRun
from treadle.serialization import dumps, loads
from treadle.streaming.log import EventHub, ThreadLog


def a_log() -> ThreadLog:
    return EventHub(None).log("thread")  # type: ignore[arg-type]


def end(log: ThreadLog, output: Any = None, run_id: str = "run") -> None:
    log.append(run_id, END, "metadata", b"{}", payload=Outcome("success", output))


def waiting(log: ThreadLog, **more: Any) -> WaitForRun:
    return WaitForRun(log.read(watches=False), "run", **more)


async def start(client: Client, response: WaitForRun) -> asyncio.Task[None]:
    task = asyncio.create_task(client.gets(response))
    while not client.status:  # noqa: ASYNC110
        await asyncio.sleep(0)
    return task


@pytest.fixture
def log() -> ThreadLog:
    return a_log()


@pytest.fixture
async def client() -> Client:
    return Client()


async def test_headers_come_at_once_and_the_output_at_the_end(client, log):
    task = await start(client, waiting(log, headers=[(b"location", b"/join")]))
    assert client.status == 200
    assert client.headers == [JSON_TYPE, (b"location", b"/join")]
    assert client.body == b""
    end(log, {"answer": 42})
    await task
    assert loads(client.body) == {"answer": 42}
    assert client.finished
    assert log._readers == set()


async def test_other_runs_and_other_events_do_not_matter(client, log):
    task = await start(client, waiting(log))
    log.append("run", EVENT, "values", b"{}")
    end(log, "theirs", run_id="other")
    log.append("other", GONE_KIND, "error", dumps(GONE))
    end(log, "mine")
    await task
    assert loads(client.body) == "mine"


@pytest.mark.parametrize("gone", ["run", ""], ids=["the run", "the thread"])
async def test_a_deleted_run_is_told_as_an_error(client, log, gone):
    task = await start(client, waiting(log))
    log.append(gone, GONE_KIND, "error", dumps(GONE))
    await task
    assert loads(client.body) == {"__error__": GONE}


async def test_the_body_may_be_made_otherwise(client, log):
    task = await start(client, waiting(log, finish=lambda outcome: outcome.status.encode()))
    end(log)
    await task
    assert client.body == b"success"


def test_white_space_keeps_the_connection_alive():
    async def main() -> None:
        log, client = a_log(), Client()
        task = await start(client, waiting(log))
        await asyncio.sleep(KEEP_ALIVE_SECONDS * 3.5)
        assert client.body == b"\n\n\n"
        end(log, {"answer": 42})
        await task
        assert client.body == b'\n\n\n{"answer":42}'
        assert loads(client.body) == {"answer": 42}

    run_fast(main())


async def test_a_client_that_leaves_is_noticed_at_once(client, log):
    abandoned: list[bool] = []

    async def abandon() -> None:
        abandoned.append(True)

    task = await start(client, waiting(log, abandoned=abandon))
    client.leave()
    async with asyncio.timeout(2):
        await task
    assert abandoned == [True]
    assert not client.finished
    assert log._readers == set()


async def test_a_client_that_leaves_may_not_matter(client, log):
    task = await start(client, waiting(log))
    client.leave()
    async with asyncio.timeout(2):
        await task
    assert log._readers == set()


async def test_the_end_is_no_abandonment(client, log):
    task = await start(client, waiting(log, abandoned=pytest.fail))
    end(log)
    await task


async def test_a_server_that_stops_leaves_the_answer_unfinished(client, log):
    """The client then asks again where Location says."""
    task = await start(client, waiting(log, abandoned=pytest.fail))
    log.close()
    async with asyncio.timeout(2):
        await task
    assert not client.finished
    assert log._readers == set()


async def test_a_wait_that_is_cancelled_leaves_the_log(client, log):
    task = await start(client, waiting(log))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert log._readers == set()


async def test_those_who_wait_do_not_make_a_run_encode_its_events(log):
    response = waiting(log)
    assert log.watched == 0
    response._reader.close()
