from __future__ import annotations

from typing import Any

import pytest
from checkpointed import DeltaLog, Log, chain
from langgraph.types import Command

from treadle.checkpoints import RunSaver, Saver
from treadle.database import Database
from treadle.ids import new_id

THREAD = new_id()
LONG = "long " * 50


def config(thread_id: str = THREAD, run_id: str | None = None) -> Any:
    return {
        "configurable": {"thread_id": thread_id},
        "metadata": {"run_id": run_id or new_id()},
    }


async def run(saver: Saver, graph: Any, asked: Any, run_id: str | None = None) -> Any:
    execution = RunSaver(saver, THREAD, sync=False)
    graph = graph.copy(update={"checkpointer": execution})
    output = await graph.ainvoke(asked, config(run_id=run_id))
    await execution.settle()
    return output


async def contents(database: Database, thread_id: str = THREAD) -> dict[str, list[Any]]:
    """All rows of a thread, in a form that can be compared."""
    tables = {
        "checkpoints": "checkpoint_ns, checkpoint_id, metadata, checkpoint",
        "checkpoint_values": "checkpoint_ns, version, channel, value",
        "checkpoint_writes": "checkpoint_ns, checkpoint_id, task_id, idx, channel, value",
    }
    found: dict[str, list[Any]] = {}
    for table, columns in tables.items():
        sql = f"SELECT {columns} FROM {table} WHERE thread_id = :id ORDER BY 1, 2, 3, 4"
        found[table] = [
            tuple(dict(row).values()) for row in await database.read_all(sql, {"id": thread_id})
        ]
    return found


async def test_deleting_the_latest_run_leaves_the_thread_as_it_was(
    saver: Saver, database: Database
) -> None:
    graph = chain(Log, *"abc")
    await run(saver, graph, {"log": [LONG], "last": LONG})
    before = await contents(database)
    for _ in range(3):
        await run(saver, graph, {"log": [LONG * 2], "last": LONG * 2}, run_id := new_id())
        assert await contents(database) != before
        await saver.adelete_for_runs([run_id])
        assert await contents(database) == before


async def test_deleting_the_run_that_answered_leaves_the_question(
    saver: Saver, database: Database
) -> None:
    graph = chain(Log, *"abc", asks="b")
    await run(saver, graph, {"log": []})
    before = await contents(database)
    answered = await run(saver, graph, Command(resume="yes"), run_id := new_id())
    assert answered["log"] == ["a", "yes", "c"]
    await saver.adelete_for_runs([run_id])
    assert await contents(database) == before
    assert (await run(saver, graph, Command(resume="no")))["log"] == ["a", "no", "c"]


async def test_deleting_an_early_run_keeps_what_later_ones_refer_to(saver: Saver) -> None:
    graph = chain(Log, "a").copy(update={"checkpointer": saver})
    await run(saver, graph, {"last": "x", "log": [LONG]}, run_id := new_id())
    await run(saver, graph, {"log": [LONG]})
    state = await graph.aget_state(config())
    await saver.adelete_for_runs([run_id])
    assert (await graph.aget_state(config())).values == state.values
    assert len([one async for one in saver.alist(config())]) == 3


async def test_a_copy_goes_its_own_way(saver: Saver, database: Database) -> None:
    graph = chain(Log, *"abc", asks="b").copy(update={"checkpointer": saver})
    await run(saver, graph, {"log": [LONG]}, run_id := new_id())
    await saver.acopy_thread(THREAD, copy := new_id())
    await saver.adelete_for_runs([run_id])
    assert await contents(database) == {
        "checkpoints": [],
        "checkpoint_values": [],
        "checkpoint_writes": [],
    }
    state = await graph.aget_state(config(copy))
    assert state.next == ("b",)
    assert state.metadata["run_id"] == run_id
    for wanted in (copy, THREAD):
        found = [one async for one in saver.alist(config(copy), filter={"thread_id": wanted})]
        assert len(found) == (3 if wanted == copy else 0)
    output = await graph.ainvoke(Command(resume="yes"), config(copy))
    assert output["log"] == [LONG, "a", "yes", "c"]


@pytest.mark.parametrize("state", [Log, DeltaLog])
@pytest.mark.parametrize("runs", range(1, 6))
async def test_keep_latest_keeps_the_state_and_what_it_rests_on(
    saver: Saver, database: Database, state: Any, runs: int
) -> None:
    graph = chain(state, *"ab", asks="b").copy(update={"checkpointer": saver})
    for _ in range(runs):
        await run(saver, graph, {"log": [LONG]})
        await run(saver, graph, Command(resume=LONG))
    await run(saver, graph, {"log": ["last"]})
    before = await graph.aget_state(config())
    all_of_it = len((await contents(database))["checkpoints"])
    await saver.aprune([THREAD], strategy="keep_latest")
    after = await graph.aget_state(config())
    assert (after.values, after.next, after.tasks) == (before.values, before.next, before.tasks)
    left = await contents(database)
    if state is Log:
        assert len(left["checkpoints"]) == 1
        assert {row[2] for row in left["checkpoint_values"]} == {"log", "last"} - {
            "last" if len(str(after.values["last"])) < 100 else ""
        }
    else:
        assert len(left["checkpoints"]) < min(all_of_it, 8)
    await saver.aprune([THREAD], strategy="keep_latest")
    assert await contents(database) == left
    output = await run(saver, graph, Command(resume="end"))
    assert output["log"] == [*before.values["log"], "end"]


async def test_prune_refuses_other_strategies(saver: Saver) -> None:
    with pytest.raises(ValueError, match="keep_latest"):
        await saver.aprune([THREAD], strategy="oldest")


async def test_storage_counts_every_byte_once(saver: Saver, database: Database) -> None:
    assert (await saver.storage(THREAD)).total_bytes == 0
    graph = chain(Log, *"abc")
    await run(saver, graph, {"log": [LONG], "last": "ü"})
    await run(saver, graph, {"log": ["more"]})
    storage = await saver.storage(THREAD)
    found = await contents(database)
    stored = (
        sum(len(row[2].encode()) + len(row[3]) for row in found["checkpoints"])
        + sum(len(row[3]) for row in found["checkpoint_values"])
        + sum(len(row[5]) for row in found["checkpoint_writes"])
    )
    assert storage.total_bytes == stored
    parts = (storage.checkpoints, storage.channel_values, storage.pending_writes)
    assert stored == sum(part.bytes for part in parts)
    assert storage.checkpoints.count == len([one async for one in saver.alist(config())]) == 10
    assert storage.pending_writes.count == len(found["checkpoint_writes"])
    by_channel = storage.channel_values.by_channel
    assert by_channel["last"].versions == 7
    assert by_channel["log"].versions == 8
    assert by_channel["log"].bytes > 8 * len(LONG)
    assert sum(tally.bytes for tally in by_channel.values()) == storage.channel_values.bytes
    assert sum(tally.versions for tally in by_channel.values()) == storage.channel_values.count
