"""Graphs on loops of their own (BG_JOB_ISOLATED_LOOPS)."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest

from treadle.auth import ANYONE
from treadle.runs.loops import LoopPool
from treadle.runs.outcome import END, EVENT

PATIENCE_SECONDS = 5.0


@pytest.fixture
async def pool():
    pool = LoopPool(None)
    yield pool
    pool.close()


async def test_work_runs_on_another_thread_and_its_loop_is_used_again(pool):
    async def where() -> Any:
        return threading.get_ident(), asyncio.get_running_loop()

    first = await asyncio.wrap_future(pool.run(where()))
    second = await asyncio.wrap_future(pool.run(where()))
    assert first[0] != threading.get_ident()
    assert first == second


async def test_works_at_the_same_time_have_a_loop_each(pool):
    barrier = threading.Barrier(2, timeout=PATIENCE_SECONDS)

    async def meet() -> int:
        barrier.wait()
        return threading.get_ident()

    threads = await asyncio.gather(*(asyncio.wrap_future(pool.run(meet())) for _ in range(2)))
    assert len(set(threads)) == 2


@pytest.fixture
async def isolated(open_house, pool):
    house = await open_house()
    house.rooms.loops = pool
    return house


async def test_a_run_on_a_loop_of_its_own_streams_and_ends_as_any_other(isolated):
    run = await isolated.create(await isolated.thread(), "chain", "events")
    entries: list[Any] = []
    async with asyncio.timeout(PATIENCE_SECONDS):
        while not any(entry.kind == END for entry in entries):
            entries += await run.reader.next(PATIENCE_SECONDS)
    run.reader.close()
    assert [e.name for e in entries if e.kind == EVENT] == ["metadata", *["values"] * 3]
    assert entries[-1].kind == END
    assert (await isolated.shown(run))["status"] == "success"
    thread = await isolated.shown_thread(run.thread_id)
    assert (thread["status"], thread["values"]["log"]) == ("idle", ["a", "b", "c"])


async def test_a_blocking_node_leaves_the_event_loop_alone_and_can_be_cancelled(isolated, graphs):
    thread = await isolated.thread()
    run = await isolated.create(thread, "blocking", "end")
    assert await asyncio.to_thread(graphs.blocked.wait, PATIENCE_SECONDS)
    assert await isolated.thread()  # the server answers
    await isolated.service.hung_up(ANYONE, thread, run.run_id)
    outcome = await isolated.outcome(run)
    assert outcome is not None
    assert outcome.status == "interrupted"
    graphs.unblock.set()
    await isolated.until(lambda: isolated.worker.active == 0)
    assert (await isolated.shown(run))["status"] == "interrupted"
    assert await isolated.run(thread, "chain")  # the thread is free
