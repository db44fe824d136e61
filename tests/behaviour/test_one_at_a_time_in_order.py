"""At most one run executes on a thread; a thread's runs start in the order they were accepted."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from promise_server import Server, asking, new_thread, output

THREADS = 5
RUNS = 20


def of_thread(server: Server, thread: str) -> list[tuple[str, str]]:
    return [(run, step) for where, run, step in server.journal() if where == thread]


@pytest.mark.parametrize("how", ["background", "wait", "stream"])
async def test_one_at_a_time_in_order(server: Server, how: str) -> None:
    """Many clients at once on few threads: the journal shows one run after the other."""
    async with server.client() as http:
        threads = [await new_thread(http) for _ in range(THREADS)]
        tail = {"background": "", "wait": "/wait", "stream": "/stream"}[how]
        body = asking(input={"seconds": 0.001})

        async def create(number: int) -> Any:
            return await http.post(f"/threads/{threads[number % THREADS]}/runs{tail}", json=body)

        answers = await asyncio.gather(*(create(number) for number in range(THREADS * RUNS)))
        assert all(answer.status_code == 200 for answer in answers)
        for thread in threads:
            listed = (await http.get(f"/threads/{thread}/runs?limit=1000")).json()
            accepted = [run["run_id"] for run in reversed(listed)]
            assert len(accepted) == RUNS
            await output(http, thread, accepted[-1])
            expected = [
                (run, step) for run in accepted for step in ("+a", "-a", "+b", "-b", "+c", "-c")
            ]
            assert of_thread(server, thread) == expected
            state = (await http.get(f"/threads/{thread}/state")).json()
            assert state["values"]["log"] == ["a", "b", "c"] * RUNS


async def test_of_runs_that_one_client_sends_the_first_is_the_first(server: Server) -> None:
    async with server.client() as http:
        thread = await new_thread(http)
        sent = [
            (await http.post(f"/threads/{thread}/runs", json=asking())).json()["run_id"]
            for _ in range(RUNS)
        ]
        await output(http, thread, sent[-1])
    assert [run for run, step in of_thread(server, thread) if step == "+a"] == sent


async def test_threads_do_not_wait_for_each_other(server: Server) -> None:
    """Twenty runs of a fifth of a second each: side by side, they take about as long as one."""
    async with server.client() as http:
        threads = [await new_thread(http) for _ in range(20)]
        body = asking("talk", input={"events": 1, "seconds": 0.2})
        loop = asyncio.get_running_loop()
        begun = loop.time()
        await asyncio.gather(
            *(http.post(f"/threads/{thread}/runs/wait", json=body) for thread in threads)
        )
        assert loop.time() - begun < 2
