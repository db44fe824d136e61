"""The worker: who is claimed when, how many at a time, and what a stop leaves behind."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from treadle.auth import ANYONE
from treadle.clock import SECOND_US, now_us
from treadle.cluster.signals import Signals
from treadle.database import Transaction
from treadle.errors import Unavailable
from treadle.runs import queries, worker
from treadle.runs.outcome import Outcome
from treadle.streaming.relay.exchange import Exchange
from treadle.streaming.relay.relays import DatabaseRelay

# -- the claim, as SQL -------------------------------------------------------------------------


class Queue:
    """Runs in the database, and who is claimed of them."""

    def __init__(self, database: Any) -> None:
        self.database = database

    async def add(self, name: str, thread: str, due: int = 0, status: str = "pending") -> None:
        async def insert(transaction: Transaction) -> None:
            await transaction.execute(
                "INSERT INTO runs (run_id, thread_id, assistant_id, graph_id, status, created_at,"
                " updated_at, metadata, kwargs, multitask_strategy)"
                " VALUES (:run, :thread, 'a', 'g', :status, :due, 0, '{}', '{}', 'enqueue')",
                {"run": name, "thread": thread, "status": status, "due": due},
            )

        await self.database.write(insert)

    async def claim(self, now: int = 1000, limit: int = 100, owner: str = "me") -> list[str]:
        async def body(transaction: Transaction) -> Any:
            params = {"now": now, "owner": owner, "limit": limit}
            return await transaction.fetch_all(queries.CLAIM, params)

        rows = await self.database.write(body)
        return [row["run_id"] for row in sorted(rows, key=lambda r: (r["created_at"], r["seq"]))]

    async def end(self, name: str) -> None:
        async def body(transaction: Transaction) -> None:
            sql = "UPDATE runs SET status = 'success' WHERE run_id = :run"
            await transaction.execute(sql, {"run": name})

        await self.database.write(body)


@pytest.fixture
async def queue(open_house) -> Queue:
    database = (await open_house(work=False)).database

    async def live(transaction: Transaction) -> None:
        await transaction.execute(queries.TAKE_LEASE, {"owner": "me", "until": 2**62})

    await database.write(live)
    return Queue(database)


async def test_one_run_of_a_thread_at_a_time_in_the_order_of_acceptance(queue):
    for name in ("1", "2", "3"):
        await queue.add(name, "t")
    assert await queue.claim() == ["1"]
    assert await queue.claim() == []
    await queue.end("1")
    assert await queue.claim() == ["2"]
    await queue.end("2")
    assert await queue.claim() == ["3"]


async def test_threads_do_not_wait_for_each_other(queue):
    for name, thread in (("a1", "a"), ("a2", "a"), ("b1", "b"), ("c1", "c"), ("b2", "b")):
        await queue.add(name, thread)
    assert await queue.claim() == ["a1", "b1", "c1"]


async def test_no_more_are_claimed_than_asked_for_and_the_oldest_first(queue):
    for name in ("1", "2", "3", "4"):
        await queue.add(name, f"thread of {name}")
    assert await queue.claim(limit=3) == ["1", "2", "3"]
    assert await queue.claim(limit=3) == ["4"]


async def test_a_run_is_not_claimed_before_it_is_due(queue):
    await queue.add("later", "t", due=500)
    await queue.add("now", "t", due=100)
    assert await queue.claim(now=99) == []
    assert await queue.claim(now=100) == ["now"]
    await queue.end("now")
    assert await queue.claim(now=499) == []
    assert await queue.claim(now=500) == ["later"]


async def test_a_scheduled_run_does_not_hold_up_its_thread(queue):
    await queue.add("scheduled", "t", due=500)
    await queue.add("1", "t", due=100)
    await queue.add("2", "t", due=200)
    assert await queue.claim(now=300) == ["1"]
    await queue.end("1")
    assert await queue.claim(now=300) == ["2"]


async def test_whose_lease_is_over_claims_nothing(queue):
    await queue.add("1", "t")

    async def lapse(transaction: Transaction) -> None:
        await transaction.execute(queries.TAKE_LEASE, {"owner": "me", "until": 900})

    await queue.database.write(lapse)
    assert await queue.claim(now=900) == []
    assert await queue.claim(now=899) == ["1"]


async def test_those_who_are_due_together_keep_the_order_of_acceptance(queue):
    for name in ("1", "2"):
        await queue.add(name, "t", due=100)
    assert await queue.claim() == ["1"]


async def test_a_claim_counts_the_attempt_and_names_the_owner(queue):
    await queue.add("1", "t")
    await queue.claim(now=7)
    row = await queue.database.read_one("SELECT * FROM runs")
    assert (row["status"], row["attempt"], row["owner"], row["started_at"]) == (
        "running",
        1,
        "me",
        7,
    )


async def test_a_worker_without_a_lease_gets_nothing(queue):
    await queue.add("1", "t")
    assert await queue.claim(owner="dead") == []
    assert await queue.claim() == ["1"]


# -- the worker --------------------------------------------------------------------------------


async def test_runs_of_a_thread_go_one_after_the_other(house, graphs):
    thread = await house.thread()
    runs = [await house.create(thread, "gated", "end", input={"gate": gate}) for gate in "abc"]
    for gate in "abc":
        await house.at(gate)
        assert house.worker.active == 1
        graphs.gates[gate].set()
    for run in runs:
        assert (await house.outcome(run)).status == "success"
    assert graphs.journal == [
        step for gate in "abc" for step in ("first", f"+{gate}", f"-{gate}", "last")
    ]


async def test_threads_go_side_by_side(house, graphs):
    runs = [
        await house.create(await house.thread(), "gated", "end", input={"gate": gate})
        for gate in "abc"
    ]
    for gate in "abc":
        await house.at(gate)
    assert house.worker.active == 3
    for gate in "cab":
        graphs.gates[gate].set()
    for run in runs:
        await house.outcome(run)


async def test_no_more_runs_than_slots(open_house, graphs):
    house = await open_house(slots=2)
    runs = [
        await house.create(await house.thread(), "gated", "end", input={"gate": gate})
        for gate in "abcd"
    ]
    await house.at("a")
    await house.at("b")
    assert [(await house.shown(run))["status"] for run in runs] == ["running"] * 2 + ["pending"] * 2
    graphs.gates["b"].set()
    await house.at("c")
    assert house.worker.active == 2
    for gate in "acd":
        graphs.gates[gate].set()
    for run in runs:
        assert (await house.outcome(run)).status == "success"


async def test_a_scheduled_run_starts_when_its_time_has_come(house, monkeypatch):
    thread = await house.thread()
    later = await house.create(thread, watch="end", after_seconds=10)
    sooner = await house.create(thread, watch="end")
    await house.outcome(sooner)
    assert await house.statuses(thread) == ["pending", "success"]
    assert (await house.shown_thread(thread))["status"] == "busy"
    future = now_us() + 11 * SECOND_US
    monkeypatch.setattr(worker, "now_us", lambda: future)
    house.worker.wake()
    assert (await house.outcome(later)).status == "success"


async def test_the_worker_wakes_itself_at_the_due_time(house):
    created = await house.create(await house.thread(), watch="end", after_seconds=0.05)
    due = created.json["created_at"]
    assert (await house.outcome(created)).status == "success"
    assert (await house.shown(created))["updated_at"] >= due


async def test_a_worker_takes_up_what_the_last_one_left(open_house, graphs):
    house = await open_house()
    threads = [await house.thread() for _ in range(2)]
    await house.create(threads[0], "gated", input={"gate": "a"})
    await house.at("a")
    await house.create(threads[0], "chain")
    await house.create(threads[1], "chain", after_seconds=0.2)
    await house.close()

    graphs.gates["a"].set()
    again = await open_house()
    await again.until(lambda: again.worker.active == 0)

    async def all_ended() -> bool:
        return [await again.statuses(t) for t in threads] == [["success"] * 2, ["success"]]

    await again.until(all_ended)
    # The run that was cut off went on from its last checkpoint: its first node did not run again.
    assert [name for name in graphs.journal if name not in "abc"] == [
        "first", "+a", "-a", "+a", "-a", "last"
    ]  # fmt: skip
    assert sorted(name for name in graphs.journal if name in "abc") == [*"aabbcc"]


async def test_closing_lets_a_run_come_to_the_end_of_its_step_and_hands_it_back(open_house, graphs):
    house = await open_house()
    thread = await house.thread()
    run = await house.create(thread, "gated", input={"gate": "a"})
    await house.create(thread)
    await house.at("a")
    closing = asyncio.create_task(house.worker.close(grace_seconds=5))
    execution = house.worker.execution(run.run_id)
    await house.until(lambda: execution._drive.control.drain_requested)
    graphs.gates["a"].set()
    await closing
    await house.close()
    assert graphs.journal == ["first", "+a", "-a"]

    again = await open_house()

    async def all_ended() -> bool:
        return await again.statuses(thread) == ["success", "success"]

    await again.until(all_ended)
    assert graphs.journal == ["first", "+a", "-a", "last", *"abc"]


async def test_what_does_not_stop_within_its_grace_is_cut_off_and_handed_back(open_house, graphs):
    house = await open_house()
    thread = await house.thread()
    await house.create(thread, "gated", input={"gate": "a"})
    await house.at("a")
    await house.worker.close(grace_seconds=0)
    assert await house.statuses(thread) == ["pending"]
    assert graphs.journal == ["first", "+a", "-a"]


async def test_runs_that_are_handed_back_have_all_their_tries(open_house, graphs):
    """Stops on purpose are no failures, however many there are."""
    thread = None
    for _ in range(5):
        house = await open_house()
        if thread is None:
            thread = await house.thread()
            await house.create(thread, "gated", input={"gate": "a"})
        await house.at("a")
        await house.worker.close(grace_seconds=0)
        await house.close()
    house = await open_house()
    graphs.gates["a"].set()

    async def ended() -> bool:
        return await house.statuses(str(thread)) == ["success"]

    await house.until(ended)


async def test_a_run_whose_worker_was_lost_each_time_is_given_up(open_house, graphs):
    """What kills the process is not tried for ever."""
    house = await open_house(bg_job_max_retries=2, work=False)
    thread = await house.thread()
    run = await house.create(thread, "gated", watch="end", input={"gate": "a"})

    async def crashed(transaction: Transaction) -> None:
        sql = "UPDATE runs SET status = 'running', owner = 'dead', attempt = 2"
        await transaction.execute(sql)

    await house.database.write(crashed)
    await house.worker.open(alone=True)
    outcome = await house.outcome(run)
    assert (outcome.status, outcome.error["error"]) == ("error", "AttemptsExhausted")
    assert graphs.journal == []
    assert (await house.shown_thread(thread))["status"] == "error"


@pytest.mark.parametrize("slots", [1, 2, 8])
async def test_a_queue_that_is_longer_than_there_are_slots_never_stands_still(
    open_house, monkeypatch, slots
):
    monkeypatch.setattr(worker, "SWEEP_SECONDS", 3600)
    house = await open_house(work=False, slots=slots)
    threads = [await house.thread() for _ in range(8 * slots)]
    for thread in threads:
        await house.create(thread)
    await house.worker.open(alone=True)

    async def all_ended() -> bool:
        assert house.worker.active <= slots
        sql = "SELECT count(*) AS ended FROM runs WHERE status = 'success'"
        return (await house.database.read_all(sql))[0]["ended"] == len(threads)

    await house.until(all_ended)


@pytest.mark.parametrize("new_database", ["postgres"], indirect=True)
@pytest.mark.parametrize("settle_seconds", [0, 3600])
async def test_after_an_outage_others_have_time_to_renew_their_leases(
    open_house, monkeypatch, settle_seconds
):
    monkeypatch.setattr(worker, "SETTLE_SECONDS", settle_seconds)
    house = await open_house(work=False)
    house.rooms.signals = signals = Signals(house.database)
    await signals.open()
    run = await house.create(await house.thread(), watch="end")

    async def lapse(transaction: Transaction) -> None:
        await transaction.execute("UPDATE runs SET status = 'running', owner = 'away'")
        await transaction.execute(queries.TAKE_LEASE, {"owner": "away", "until": now_us() - 1})

    await house.database.write(lapse)
    await house.worker.open(alone=False)
    if settle_seconds:
        assert (await house.shown(run))["status"] == "running"
        sql = "SELECT owner FROM workers ORDER BY owner"
        assert "away" in [row["owner"] for row in await house.database.read_all(sql)]
    else:
        assert (await house.outcome(run)).status == "success"
    await house.worker.close(0)
    await signals.close()


async def test_a_claim_of_which_nobody_heard_counts_as_no_try(open_house, monkeypatch):
    """The connection was lost between its commit and the answer."""
    for name in ("SWEEP_SECONDS", "RETRY_SECONDS"):
        monkeypatch.setattr(worker, name, 0.01)
    house = await open_house(work=False, bg_job_max_retries=1)
    run = await house.create(await house.thread(), watch="end")
    claim, losses = worker.Worker._claim, iter(range(3))

    async def unheard(self: Any, which: str, limit: int) -> int:
        if which == queries.CLAIM and next(losses, None) is not None:
            with monkeypatch.context() as patch:
                patch.setattr(self, "_start", lambda row: None)
                await claim(self, which, limit)
            raise Unavailable("The connection to the database was lost during a commit")
        return await claim(self, which, limit)

    monkeypatch.setattr(worker.Worker, "_claim", unheard)
    await house.worker.open(alone=True)
    assert (await house.outcome(run)).status == "success"
    assert (await house.shown(run))["status"] == "success"
    assert next(losses, None) is None


@pytest.mark.parametrize("new_database", ["postgres"], indirect=True)
async def test_a_stop_that_comes_before_its_run_is_known_here_is_not_lost(open_house, monkeypatch):
    """Another process saw the claim, and its signal overtook the claim's answer."""
    monkeypatch.setattr(worker, "SWEEP_SECONDS", 3600)
    house = await open_house(work=False)
    database, signals = house.database, Signals(house.database)
    house.rooms.signals = signals
    await signals.open()
    ends = DatabaseRelay(database, signals)
    exchange = Exchange(house.events, database, signals, ends, None, Outcome.unpack)
    await exchange.open(lambda thread_id, run_id: asyncio.sleep(0))
    run = await house.create(await house.thread(), "gated", "end", input={"gate": "a"})
    write, stopped = database.write, []

    async def overtaken(body: Any, thread_id: str | None = None) -> Any:
        answer = await write(body, thread_id)
        if body.__name__ == "claim" and answer:
            stop = {"run_id": run.run_id, "stop": "interrupt"}
            await write(lambda transaction: transaction.send(queries.STOP_BEGUN, stop))
            house.worker._stop(run.run_id, "interrupt")
            stopped.append(run.run_id)
        return answer

    monkeypatch.setattr(database, "write", overtaken)
    await house.worker.open(alone=False)
    async with asyncio.timeout(5):
        assert (await house.outcome(run)).status == "interrupted"
    assert stopped == [run.run_id]
    await house.worker.close(0)
    await exchange.close()
    await signals.close()


async def test_a_thread_that_is_deleted_has_its_execution_stopped(house, graphs):
    thread = await house.thread()
    run = await house.create(thread, "gated", "end", input={"gate": "a"})
    await house.at("a")
    await house.threads.delete(ANYONE, thread)
    assert await house.outcome(run) is None
    await house.until(lambda: house.worker.active == 0)
    assert graphs.journal == ["first", "+a", "-a"]


async def test_an_execution_is_known_while_it_goes_on(house, graphs):
    run = await house.create(await house.thread(), "gated", "end", input={"gate": "a"})
    await house.at("a")
    assert house.worker.execution(run.run_id).claim.attempt == 1
    graphs.gates["a"].set()
    await house.outcome(run)
    await house.until(lambda: house.worker.active == 0)
    assert house.worker.execution(run.run_id) is None


async def test_a_clock_that_was_set_back_before_the_start_holds_up_nobody(open_house, monkeypatch):
    hour_us = 3600 * SECOND_US
    before = await open_house(work=False)
    thread_id = await before.thread()
    monkeypatch.setattr("treadle.runs.service.now_us", lambda: now_us() + hour_us)
    first = await before.create(thread_id)
    scheduled = await before.create(thread_id, after_seconds=1)
    await before.close()
    monkeypatch.undo()
    house = await open_house()
    second = await house.create(thread_id, watch="end")
    await house.outcome(second)
    shown = [await house.shown(created) for created in (first, second, scheduled)]
    assert [run["status"] for run in shown] == ["success", "success", "pending"]
    started = "SELECT run_id FROM runs WHERE started_at > 0 ORDER BY started_at DESC"
    rows = await house.database.read_all(started)
    assert [row["run_id"] for row in rows][:2] == [second.run_id, first.run_id]
