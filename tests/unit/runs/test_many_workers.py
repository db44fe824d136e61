"""Several processes claim runs from one PostgreSQL database."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from treadle.database import Database, Transaction
from treadle.runs import queries
from treadle.streaming.entries import ASIDE_BIT, COUNTER_BITS

pytestmark = pytest.mark.parametrize("new_database", ["postgres"], indirect=True)

WORKERS = 4
THREADS = 12
RUNS = 5

ADD = """
INSERT INTO runs (run_id, thread_id, assistant_id, graph_id, status, created_at, updated_at,
                  metadata, kwargs, multitask_strategy)
VALUES (:run_id, :thread_id, 'a', 'g', 'pending', 1, 1, '{}', '{}', 'enqueue')
"""


class Process:
    """A worker with connections of its own, which claims and ends runs."""

    def __init__(self, database: Database, owner: str) -> None:
        self.database, self.owner = database, owner

    async def claim(self, limit: int) -> list[Any]:
        params = {"now": 10, "owner": self.owner, "limit": limit}

        async def body(transaction: Transaction) -> Any:
            return await transaction.fetch_all(queries.CLAIM, params)

        return list(await self.database.write(body))

    async def end(self, run: Any) -> int:
        params = {"run_id": run["run_id"], "attempt": run["attempt"], "now": 11}

        async def body(transaction: Transaction) -> int:
            ended = {**params, "status": "success", "error": None}
            return await transaction.execute(queries.END_RUN, ended)

        return await self.database.write(body)


@pytest.fixture
async def processes(new_database: Any) -> Any:
    opened: list[Process] = []
    for number in range(WORKERS):
        database = new_database()
        await database.open()
        process = Process(database, f"worker {number}")
        lease = {"owner": process.owner, "until": 2**62}
        await database.write(lambda tx, lease=lease: tx.execute(queries.TAKE_LEASE, lease))
        opened.append(process)

    async def add(transaction: Transaction) -> None:
        for number in range(RUNS):
            for thread in range(THREADS):
                row = {"run_id": f"{thread}-{number}", "thread_id": f"thread {thread}"}
                await transaction.send(ADD, row)

    await opened[0].database.write(add)
    yield opened
    await asyncio.gather(*(process.database.close() for process in opened))


async def test_each_run_is_claimed_once_one_of_a_thread_at_a_time_in_order(processes):
    running: set[str] = set()
    order: dict[str, list[str]] = {}
    claimed_by: dict[str, int] = {}

    async def work(process: Process) -> None:
        while len(claimed_by) < THREADS * RUNS:
            claims = await process.claim(3)
            for run in claims:
                assert run["thread_id"] not in running
                assert claimed_by.setdefault(run["run_id"], run["attempt"]) == 1
                running.add(run["thread_id"])
                order.setdefault(run["thread_id"], []).append(run["run_id"])
            for run in claims:
                running.discard(run["thread_id"])
                assert await process.end(run) == 1

    async with asyncio.timeout(30):
        await asyncio.gather(*(work(process) for process in processes))
    assert len(claimed_by) == THREADS * RUNS
    for runs in order.values():
        assert runs == sorted(runs)


async def test_a_claim_does_not_wait_for_another_that_is_under_way(processes):
    one, other = processes[:2]
    held, go_on = asyncio.Event(), asyncio.Event()

    async def hold() -> None:
        async with await _plain(one.database) as connection:
            await connection.execute("BEGIN")
            await connection.execute("SELECT 1 FROM runs WHERE run_id = '0-0' FOR UPDATE")
            held.set()
            await go_on.wait()

    holding = asyncio.create_task(hold())
    await held.wait()
    async with asyncio.timeout(5):
        claims = await other.claim(100)
    go_on.set()
    await holding
    assert sorted(run["thread_id"] for run in claims) == sorted(
        f"thread {number}" for number in range(1, THREADS)
    )


async def test_who_has_no_lease_claims_nothing(processes):
    processes[0].owner = "a stranger"
    assert await processes[0].claim(10) == []


async def _plain(database: Any) -> Any:
    import psycopg

    return await psycopg.AsyncConnection.connect(database._info)


async def test_a_claim_knows_where_the_events_of_a_thread_have_come_to(processes):
    """What has no place in their order does not count: nobody has to hear of it first."""
    add = (
        "INSERT INTO events (thread_id, id, run_id, kind, name, data)"
        " VALUES ('thread 0', :id, 'a run', 'event', '', '')"
    )
    thread = (
        "INSERT INTO threads (thread_id, created_at, updated_at, state_updated_at)"
        " VALUES ('thread 0', 0, 0, 0)"
    )
    last = 7 << COUNTER_BITS

    async def insert(transaction: Transaction) -> None:
        await transaction.send(thread)
        for id in (last, last + ASIDE_BIT + 1):
            await transaction.send(add, {"id": id})

    await processes[0].database.write(insert)
    claims = {run["thread_id"]: run["last_event_id"] for run in await processes[0].claim(100)}
    assert claims["thread 0"] == last
