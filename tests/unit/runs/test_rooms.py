"""What the rooms do for runs: remove a run or a thread with all that belongs to it."""

from __future__ import annotations

from typing import Any

import pytest

from treadle.database import Transaction

TABLES = ("threads", "runs", "events", "checkpoints", "checkpoint_writes", "checkpoint_values")


async def rows(house: Any) -> dict[str, int]:
    await house.database.flush()
    found: dict[str, int] = {}
    for table in TABLES:
        row = await house.database.read_one(f"SELECT count(*) AS n FROM {table}")
        found[table] = row["n"]
    return found


@pytest.fixture
async def two(house) -> Any:
    """Two runs on one thread, and one on another; the state after each."""
    thread = await house.thread()
    first = await house.create(thread, "question", "end", stream_resumable=True)
    await house.outcome(first)
    after_first = await rows(house)
    second = await house.create(
        thread, "question", "end", command={"resume": "x" * 100_000}, stream_resumable=True
    )
    await house.outcome(second)
    return thread, second, after_first


async def test_delete_run_removes_all_that_the_run_left(house, two):
    thread, second, after_first = two

    async def body(transaction: Transaction) -> None:
        await house.rooms.delete_run(transaction, thread, second.run_id)

    assert await rows(house) != after_first
    await house.database.write(body)
    assert await rows(house) == after_first


async def test_delete_thread_removes_all_that_the_thread_has_and_no_more(house, two):
    thread, *_ = two
    other = await house.thread()
    before = await rows(house)
    run = await house.create(other, "question", "end", stream_resumable=True)
    await house.outcome(run)

    async def body(transaction: Transaction) -> None:
        await house.rooms.delete_thread(transaction, other)

    await house.database.write(body)
    assert await rows(house) == {**before, "threads": 1}
    assert await house.statuses(thread) == ["success"] * 2


async def test_a_failed_run_is_logged_with_its_names(house, logged):
    thread = await house.thread()
    run = await house.create(thread, "boom", "end")
    await house.outcome(run)
    [line] = [line for line in logged if line["event"] == "run failed"]
    assert line["log_level"] == "warning"
    assert (line["run_id"], line["thread_id"], line["graph_id"], line["attempt"]) == (
        run.run_id,
        thread,
        "boom",
        1,
    )
    assert str(line["exc_info"]) == "the boiler exploded"
