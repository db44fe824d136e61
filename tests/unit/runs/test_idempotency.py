"""A request with an Idempotency-Key that is sent again makes nothing twice."""

from __future__ import annotations

import asyncio

import pytest

from treadle import idempotency
from treadle.auth import ANYONE
from treadle.errors import Conflict, Invalid
from treadle.http.validation import body_decoder
from treadle.idempotency import KEPT_SECONDS, LONGEST_KEY, idempotency_key
from treadle.runs.models import StatelessRunCreate, WatchedRunCreate
from treadle.serialization import dumps
from treadle.threads.models import ThreadCreate

SECOND_US = 1_000_000


def run_body(thread_id: str | None, **fields):
    kind = StatelessRunCreate if thread_id is None else WatchedRunCreate
    return body_decoder(kind)(dumps({"assistant_id": "chain", "input": {}, **fields}))


def create(house, thread_id, text="k", watch="nothing", **fields):
    body = run_body(thread_id, **fields)
    key = idempotency_key(text, "", f"/threads/{thread_id}/runs", body)
    return house.service.create(ANYONE, "request", thread_id, body, watch, key)


async def test_twenty_parallel_requests_make_one_run(house):
    thread = await house.thread()
    made = await asyncio.gather(*(create(house, thread, watch="end") for _ in range(20)))
    assert len({run.run_id for run in made}) == 1
    assert [run.repeated for run in made].count(False) == 1
    ends = await asyncio.gather(*(house.outcome(run) for run in made if run.ended is None))
    assert {end.status for end in ends} == {"success"}
    assert {run.ended["status"] for run in made if run.ended is not None} <= {"success"}
    assert await house.statuses(thread) == ["success"]


async def test_waiters_with_the_same_key_get_the_same_end(house, graphs):
    thread = await house.thread()
    body = {"assistant_id": "gated", "input": {"gate": "a"}}
    first = await create(house, thread, watch="end", **body)
    second = await create(house, thread, watch="end", **body)
    await house.at("a")
    graphs.gates["a"].set()
    ends = await asyncio.gather(house.outcome(first), house.outcome(second))
    assert ends[0] is ends[1]
    assert graphs.journal.count("+a") == 1


async def test_a_run_that_has_ended_is_given_again(house):
    thread = await house.thread()
    first = await create(house, thread, watch="end")
    await house.outcome(first)
    again = await create(house, thread, watch="end")
    assert again.run_id == first.run_id
    assert again.ended is not None
    assert again.ended["status"] == "success"


async def test_a_temporary_run_that_has_ended_is_a_conflict(house):
    run = await create(house, None, watch="end")
    await house.outcome(run)
    with pytest.raises(Conflict, match=run.run_id):
        await create(house, None)


async def test_another_body_with_the_same_key_is_refused_and_makes_nothing(house):
    thread = await house.thread()
    await create(house, thread)
    with pytest.raises(Invalid, match="'k' was used for another request"):
        await create(house, thread, input={"log": ["other"]})
    assert len(await house.statuses(thread)) == 1


async def test_other_callers_have_keys_of_their_own(house):
    thread = await house.thread()
    body = run_body(thread)
    made = [
        await house.service.create(
            ANYONE, "request", thread, body, "nothing", idempotency_key("k", caller, "/p", body)
        )
        for caller in ("ann", "bob")
    ]
    assert made[0].run_id != made[1].run_id


async def test_a_refused_request_leaves_its_key_free(house):
    thread = await house.thread()
    with pytest.raises(Invalid, match="nowhere"):
        await create(house, thread, interrupt_before=["nowhere"])
    assert not (await create(house, thread)).repeated


async def test_keys_outlive_the_process(open_house):
    house = await open_house(work=False)
    thread = await house.thread()
    run = await create(house, thread)
    await house.close()
    house = await open_house(work=False)
    assert (await create(house, thread)).run_id == run.run_id


async def test_a_key_is_forgotten_after_a_day(house, monkeypatch):
    thread = await house.thread()
    run = await create(house, thread)
    later = idempotency.now_us() + KEPT_SECONDS * SECOND_US
    monkeypatch.setattr(idempotency, "now_us", lambda: later)
    assert (await create(house, thread)).run_id != run.run_id


async def test_parallel_threads_with_one_key_are_one_thread(house):
    wanted = ThreadCreate(metadata={"a": 1})
    key = idempotency_key("t", "", "/threads", wanted)
    made = await asyncio.gather(*(house.threads.create(ANYONE, wanted, key) for _ in range(20)))
    assert len({thread["thread_id"] for thread in made}) == 1


@pytest.mark.parametrize("text", ["", "  ", "x" * (LONGEST_KEY + 1)])
def test_a_key_that_is_empty_or_too_long_is_refused(text):
    with pytest.raises(Invalid, match="Idempotency-Key"):
        idempotency_key(text, "", "/threads", ThreadCreate())


def test_no_header_is_no_key():
    assert idempotency_key(None, "", "/threads", ThreadCreate()) is None
