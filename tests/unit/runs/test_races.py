"""What happens in between: cancels, newcomers, joins and deletes at any turn of the loop."""

from __future__ import annotations

import asyncio
import sqlite3
from typing import Any

import pytest

from treadle.auth import ANYONE
from treadle.errors import Invalid
from treadle.runs import worker
from treadle.runs.outcome import EVENT
from treadle.threads.models import StateUpdate


@pytest.mark.parametrize("turns", range(6))
async def test_a_cancel_at_any_turn_of_the_loop_ends_the_run(house, turns):
    thread = await house.thread()
    run = await house.create(thread, "gated", "end", input={"gate": "a"})
    for _ in range(turns):
        await asyncio.sleep(0)
    async with asyncio.timeout(3):
        await house.cancel(run)
    assert (await house.outcome(run)).status == "interrupted"
    await house.until(lambda: house.worker.active == 0)
    assert await house.statuses(thread) == ["interrupted"]


@pytest.mark.parametrize("strategy", ["interrupt", "rollback"])
@pytest.mark.parametrize("turns", range(6))
async def test_a_newcomer_at_any_turn_of_the_loop_pushes_the_run_aside(house, strategy, turns):
    thread = await house.thread()
    run = await house.create(thread, "gated", "end", input={"gate": "a"})
    for _ in range(turns):
        await asyncio.sleep(0)
    newcomer = await house.create(thread, watch="end", multitask_strategy=strategy)
    assert (await house.outcome(run)).status == "interrupted"
    assert (await house.outcome(newcomer)).status == "success"


@pytest.mark.parametrize("what", ["delete thread", "cancel pending", "delete run", "newcomer"])
async def test_what_happens_on_a_thread_that_nobody_watches_leaves_no_log(house, what):
    thread = await house.thread()
    run = await house.create(thread, after_seconds=60)
    if what == "delete thread":
        await house.threads.delete(ANYONE, thread)
    elif what == "cancel pending":
        await house.service.cancel(ANYONE, thread, run.run_id, "interrupt")
    elif what == "delete run":
        await house.service.delete(ANYONE, thread, run.run_id)
    else:
        await house.run(thread, multitask_strategy="interrupt")
        await house.until(lambda: house.worker.active == 0)
    assert house.events._logs == {}


@pytest.mark.parametrize("graph", ["chain", "boom"])
async def test_a_temporary_resumable_run_leaves_no_events(house, graph):
    await house.outcome(await house.create(None, graph, "end", stream_resumable=True))
    await house.database.flush()
    assert await house.database.read_all("SELECT * FROM events") == []


async def test_the_next_run_waits_until_a_deleted_one_has_stopped(house, graphs):
    thread = await house.thread()
    run = await house.create(thread, "lingering", "end", input={"gate": "a"})
    behind = await house.create(thread, "chain", "end")
    await house.at("a")
    deleting = asyncio.create_task(house.service.delete(ANYONE, thread, run.run_id))
    for _ in range(200):
        await asyncio.sleep(0)
    meanwhile = list(graphs.journal)
    graphs.gates["a"].set()
    await deleting
    assert meanwhile == ["+a"]
    await house.outcome(behind)
    assert graphs.journal == ["+a", "-a", *"abc"]


async def test_a_joiner_at_any_turn_of_the_loop_sees_the_error(house):
    for turns in range(60):
        thread = await house.thread()
        run = await house.create(thread, "boom", stream_resumable=True)
        for _ in range(turns):
            await asyncio.sleep(0)
        reader, row, ended = await house.service.join(ANYONE, thread, run.run_id, events=True)
        start = reader.start_id

        async def failed(thread: str = thread) -> bool:
            return house.worker.active == 0 and await house.statuses(thread) == ["error"]

        await house.until(failed)
        seen = [e.name for e in await house.events.replay(thread, run.run_id, 0, start)]
        if not ended:
            seen += [e.name for e in await reader.next(1) or () if e.kind == EVENT]
        reader.close()
        assert "error" in seen, f"turn {turns}: {row['status']}, {seen}"


async def test_an_end_that_could_not_be_written_is_tried_again(open_house, graphs, monkeypatch):
    monkeypatch.setattr(worker, "SWEEP_SECONDS", 0.01)
    house = await open_house()
    run = await house.create(await house.thread(), "gated", "end", input={"gate": "a"})
    await house.at("a")
    write, failures = house.database.write, [sqlite3.OperationalError("disk I/O error")]

    async def flaky(body: Any, *where: Any) -> Any:
        if failures and "_end." in body.__qualname__:
            raise failures.pop()
        return await write(body, *where)

    monkeypatch.setattr(house.database, "write", flaky)
    graphs.gates["a"].set()
    assert (await house.outcome(run)).status == "success"
    assert not failures
    assert graphs.journal == ["first", "+a", "-a", "last"]


@pytest.mark.parametrize("after_seconds", [1e12, 1e15, 1e300, 1e308])
async def test_a_delay_beyond_all_calendars_is_refused(house, after_seconds):
    with pytest.raises(Invalid, match="after_seconds"):
        await house.create(await house.thread(), after_seconds=after_seconds)


@pytest.mark.parametrize(
    "url", ["http://a..b.com/", f"http://{'a' * 64}.com/", "http://\ufffd/", "http://.example.com/"]
)
async def test_a_webhook_whose_name_cannot_be_is_refused(house, url):
    with pytest.raises(Invalid, match=r"[Ww]ebhook"):
        await house.create(await house.thread(), webhook=url)


async def test_an_update_that_was_worked_out_on_a_deleted_run_is_worked_out_anew(
    house, monkeypatch
):
    """It would refer to values that went with the run."""
    thread = await house.thread()
    await house.run(thread)
    last = await house.create(thread, watch="end")
    assert (await house.outcome(last)).status == "success"
    write, deleted = house.database.write, []

    async def after_a_deletion(body: Any, thread_id: str | None = None) -> Any:
        if getattr(body, "func", None) == house.threads.states._commit and not deleted:
            deleted.append(last.run_id)
            await house.service.delete(ANYONE, thread, last.run_id)
        return await write(body, thread_id)

    monkeypatch.setattr(house.database, "write", after_a_deletion)
    update = StateUpdate(values={"log": ["told"]}, as_node="c")
    told = await house.threads.states.update(ANYONE, thread, update)
    assert deleted == [last.run_id]
    state = await house.threads.states.get(ANYONE, thread, subgraphs=False)
    assert state["checkpoint"] == told["checkpoint"]
    assert state["values"]["log"] == ["a", "b", "c", "told"]
    lost = (
        "SELECT w.channel FROM checkpoint_writes AS w LEFT JOIN checkpoints AS c"
        " USING (thread_id, checkpoint_ns, checkpoint_id) WHERE c.thread_id IS NULL"
    )
    assert list(await house.database.read_all(lost)) == []
