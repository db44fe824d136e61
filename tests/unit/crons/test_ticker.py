"""What a tick does: one run, with what the cron says, and on to the next tick."""

from __future__ import annotations

import asyncio

import pytest

import treadle.crons.ticker
from treadle.crons.ticker import Ticker
from treadle.errors import Unavailable


async def test_a_due_cron_has_one_run_and_moves_on(town):
    thread_id = await town.thread()
    cron = await town.cron(
        thread_id, input={"text": "tick"}, context={"tone": "kind"}, metadata={"origin": "here"}
    )
    await town.tick()
    assert await town.runs(thread_id) == []
    town.at("2026-03-01T13:00:00+00:00")
    await town.tick()
    await town.tick()
    [run] = await town.runs(thread_id)
    assert run["metadata"]["cron_id"] == cron["cron_id"]
    assert run["metadata"]["origin"] == "here"
    assert run["multitask_strategy"] == "enqueue"
    values = (await town.http.get(f"/threads/{thread_id}")).json()["values"]
    assert values["text"] == "tick"
    assert values["seen"] == {
        "cron_id": cron["cron_id"],
        "tone": "kind",
        "context": {"tone": "kind"},
    }
    assert (await town.next_run(cron)).startswith("2026-03-01T14:00")


async def test_all_of_a_runs_fields_get_to_it(town):
    thread_id = await town.thread()
    await town.cron(
        thread_id,
        input={"text": "x"},
        config={"configurable": {"tone": "dry"}, "tags": ["t"], "recursion_limit": 7},
        interrupt_before=["look"],
        stream_mode=["updates"],
        stream_resumable=True,
        stream_subgraphs=True,
        durability="exit",
        multitask_strategy="interrupt",
    )
    town.at("2026-03-01T13:00:00+00:00")
    await town.tick()
    [run] = await town.runs(thread_id)
    kwargs = run["kwargs"]
    assert kwargs["config"]["tags"] == ["t"]
    assert kwargs["config"]["recursion_limit"] == 7
    assert kwargs["config"]["configurable"]["tone"] == "dry"
    assert (kwargs["interrupt_before"], kwargs["stream_mode"]) == (["look"], ["updates"])
    assert (kwargs["resumable"], kwargs["subgraphs"]) == (True, True)
    assert (kwargs["durability"], run["multitask_strategy"]) == ("exit", "interrupt")
    thread = (await town.http.get(f"/threads/{thread_id}")).json()
    assert thread["status"] == "interrupted"


@pytest.mark.parametrize("kept", ["keep", "delete"])
async def test_a_cron_without_a_thread_makes_one_for_each_run(town, kept):
    cron = await town.cron(on_run_completed=kept, metadata={"mark": "m"})
    for hour in (13, 14):
        town.at(f"2026-03-01T{hour}:00:00+00:00")
        await town.tick()
    body = {"metadata": {"cron_id": cron["cron_id"], "mark": "m"}}

    async def settled():
        found = (await town.http.post("/threads/search", json=body)).json()
        busy = any(thread["status"] == "busy" for thread in found)
        return None if busy or (kept == "delete" and found) else found

    threads = await town.until(settled)
    assert len(threads) == (2 if kept == "keep" else 0)


async def test_many_tickers_start_a_tick_once(town):
    thread_id = await town.thread()
    await town.cron(thread_id)
    others = [Ticker(town.database, town.ticker._runs) for _ in range(4)]
    town.at("2026-03-01T13:00:00+00:00")
    await asyncio.gather(*(ticker.look() for ticker in (town.ticker, *others)))
    for ticker in (town.ticker, *others):
        if ticker._starting:
            await asyncio.wait(list(ticker._starting.values()))
    assert len(await town.runs(thread_id)) == 1


@pytest.mark.parametrize(
    ("catch_up", "runs"), [("once", 1), ("all", 3), ("none", 0), (None, 1)], ids=str
)
async def test_ticks_that_were_missed(town, catch_up, runs):
    thread_id = await town.thread()
    given = {} if catch_up is None else {"catch_up": catch_up}
    cron = await town.cron(thread_id, **given)
    town.at("2026-03-01T15:20:00+00:00")
    await town.tick()
    assert len(await town.runs(thread_id)) == runs
    assert (await town.next_run(cron)).startswith("2026-03-01T16:00")


async def test_a_tick_that_is_just_late_is_not_missed(town):
    thread_id = await town.thread()
    await town.cron(thread_id, catch_up="none")
    town.at("2026-03-01T13:00:59+00:00")
    await town.tick()
    assert len(await town.runs(thread_id)) == 1


async def test_no_more_than_a_week_is_made_up(town):
    thread_id = await town.thread()
    await town.cron(thread_id, schedule="0 0 * * *", catch_up="all")
    town.at("2026-06-01T12:00:00+00:00")
    await town.tick()
    assert len(await town.runs(thread_id)) == 7


async def test_a_disabled_cron_waits_until_it_is_enabled(town):
    thread_id = await town.thread()
    cron = await town.cron(thread_id, enabled=False)
    town.at("2026-03-01T13:00:00+00:00")
    await town.tick()
    assert await town.runs(thread_id) == []
    await town.patch(cron, enabled=True)
    await town.tick()
    assert len(await town.runs(thread_id)) == 1


async def test_the_last_tick_before_the_end_is_the_last(town):
    thread_id = await town.thread()
    cron = await town.cron(thread_id, end_time="2026-03-01T14:00:00Z")
    for hour in (13, 14, 15):
        town.at(f"2026-03-01T{hour}:00:00+00:00")
        await town.tick()
    assert len(await town.runs(thread_id)) == 2
    assert await town.next_run(cron) is None


async def test_a_refused_run_costs_its_tick_only(town, logged):
    thread_id = await town.thread()
    cron = await town.cron(thread_id, multitask_strategy="reject")
    delayed = {"assistant_id": "echo", "input": {}, "after_seconds": 1000}
    waiting = await town.http.post(f"/threads/{thread_id}/runs", json=delayed)
    town.at("2026-03-01T13:00:00+00:00")
    await town.tick()
    assert any("already running" in entry.get("problem", "") for entry in logged)
    assert (await town.next_run(cron)).startswith("2026-03-01T14:00")
    await town.http.delete(f"/threads/{thread_id}/runs/{waiting.json()['run_id']}")
    town.at("2026-03-01T14:00:00+00:00")
    await town.tick()
    assert len(await town.runs(thread_id)) == 1


async def test_a_cron_that_was_changed_meanwhile_is_looked_at_anew(town):
    thread_id = await town.thread()
    cron = await town.cron(thread_id, input={"text": "old"})
    town.at("2026-03-01T13:00:00+00:00")
    row = await town.database.read_one("SELECT * FROM crons")
    await town.patch(cron, input={"text": "new"})
    await town.ticker._tick(row, row["next_run_at"])
    assert await town.runs(thread_id) == []
    await town.tick()
    [run] = await town.runs(thread_id)
    assert run["kwargs"]["input"] == {"text": "new"}


async def test_a_small_step_back_of_the_clock_repeats_nothing(town):
    thread_id = await town.thread()
    cron = await town.cron(thread_id)
    town.at("2026-03-01T13:00:00+00:00")
    await town.tick()
    town.at("2026-03-01T12:10:00+00:00")
    await town.tick()
    town.at("2026-03-01T13:00:00+00:00")
    await town.tick()
    assert len(await town.runs(thread_id)) == 1
    assert (await town.next_run(cron)).startswith("2026-03-01T14:00")


async def test_a_clock_that_was_far_ahead_does_not_stop_crons(town, logged):
    thread_id = await town.thread()
    town.at("2027-03-01T12:00:00+00:00")
    cron = await town.cron(thread_id)
    town.at("2026-03-01T12:00:00+00:00")
    await town.tick()
    assert (await town.next_run(cron)).startswith("2026-03-01T13:00")
    assert any("clock" in entry["event"] for entry in logged)
    town.at("2026-03-01T13:00:00+00:00")
    await town.tick()
    assert len(await town.runs(thread_id)) == 1


async def test_it_wakes_by_itself_when_a_cron_is_due(town):
    thread_id = await town.thread()
    town.ticker.open()
    await town.cron(thread_id)
    town.at("2026-03-01T13:00:00+00:00")
    town.ticker.wake()

    async def started():
        return await town.runs(thread_id) or None

    await town.until(started)
    await town.ticker.close()


async def test_a_tick_that_the_database_could_not_take_is_tried_again(town, monkeypatch):
    monkeypatch.setattr(treadle.crons.ticker, "STUMBLE_SECONDS", 0)
    thread_id = await town.thread()
    cron = await town.cron(thread_id)
    create, away = town.ticker._runs.create, [True]

    async def lose(*args, **options):
        if away:
            away.pop()
            raise Unavailable("The connection to the database was lost")
        return await create(*args, **options)

    monkeypatch.setattr(town.ticker._runs, "create", lose)
    town.at("2026-03-01T13:00:00+00:00")
    await town.tick()
    assert len(await town.runs(thread_id)) == 1
    assert (await town.next_run(cron)).startswith("2026-03-01T14:00")
