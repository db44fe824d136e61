"""Keeping only the latest checkpoints, in small pieces."""

from __future__ import annotations

from typing import Any

import pytest
from checkpointed import DeltaLog, Log, chain
from langgraph.types import Command

from treadle.checkpoints import RunSaver, Saver
from treadle.checkpoints.shrinking import Shrinking
from treadle.database import Database, Transaction, pieces
from treadle.database.pieces import Piece, in_pieces
from treadle.ids import new_id

THREAD, TWIN = new_id(), new_id()
LONG = "long " * 50
TABLES = {
    "checkpoints": "checkpoint_ns, checkpoint_id, metadata, checkpoint",
    "checkpoint_values": "checkpoint_ns, version, channel, value",
    "checkpoint_writes": "checkpoint_ns, checkpoint_id, task_id, idx, channel, value",
}


def config(thread_id: str) -> Any:
    return {"configurable": {"thread_id": thread_id}, "metadata": {"run_id": new_id()}}


async def run(saver: Saver, graph: Any, asked: Any) -> Any:
    execution = RunSaver(saver, THREAD, sync=False)
    output = await graph.copy(update={"checkpointer": execution}).ainvoke(asked, config(THREAD))
    await execution.settle()
    return output


async def contents(database: Database, thread_id: str) -> dict[str, list[Any]]:
    found: dict[str, list[Any]] = {}
    for table, columns in TABLES.items():
        sql = f"SELECT {columns} FROM {table} WHERE thread_id = :id ORDER BY 1, 2, 3, 4"
        found[table] = [
            tuple(dict(row).values()) for row in await database.read_all(sql, {"id": thread_id})
        ]
    return found


async def shrink(saver: Saver, database: Database, thread_id: str) -> None:
    shrinking = Shrinking(database.dialect, saver.serde, thread_id)
    await shrinking.prepare(database.scan)

    async def remove(tx: Transaction, piece: Piece) -> bool:
        return await shrinking.remove(tx, piece)

    await in_pieces(database, remove)


@pytest.fixture(params=["whole", "smallest"])
def any_pieces(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    seconds = {"whole": 60, "smallest": -1}
    monkeypatch.setattr(pieces, "PIECE_SECONDS", seconds[request.param])
    monkeypatch.setattr(pieces, "PAUSE_SECONDS", 0)


@pytest.mark.usefixtures("any_pieces")
@pytest.mark.parametrize("state", [Log, DeltaLog])
@pytest.mark.parametrize("runs", range(1, 6))
async def test_it_leaves_exactly_what_a_prune_leaves(
    saver: Saver, database: Database, state: Any, runs: int
) -> None:
    graph = chain(state, *"ab", asks="b").copy(update={"checkpointer": saver})
    for _ in range(runs):
        await run(saver, graph, {"log": [LONG]})
        await run(saver, graph, Command(resume=LONG))
    await run(saver, graph, {"log": ["last"]})
    await saver.acopy_thread(THREAD, TWIN)
    before = await graph.aget_state(config(THREAD))
    await saver.aprune([TWIN], strategy="keep_latest")
    await shrink(saver, database, THREAD)
    assert await contents(database, THREAD) == await contents(database, TWIN)
    after = await graph.aget_state(config(THREAD))
    assert (after.values, after.next, after.tasks) == (before.values, before.next, before.tasks)
    left = await contents(database, THREAD)
    await shrink(saver, database, THREAD)
    assert await contents(database, THREAD) == left
    output = await run(saver, graph, Command(resume="end"))
    assert output["log"] == [*before.values["log"], "end"]


@pytest.mark.parametrize("state", [Log, DeltaLog])
async def test_the_latest_state_is_whole_after_each_piece(
    saver: Saver, database: Database, state: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pieces, "PIECE_SECONDS", -1)
    graph = chain(state, *"abc", asks="c").copy(update={"checkpointer": saver})
    for _ in range(4):
        await run(saver, graph, {"log": [LONG]})
    before = await graph.aget_state(config(THREAD))
    shrinking = Shrinking(database.dialect, saver.serde, THREAD)
    await shrinking.prepare(database.scan)
    done, steps = False, 0
    while not done:
        done = await database.write(lambda tx: shrinking.remove(tx, Piece()))
        state_now = await graph.aget_state(config(THREAD))
        assert (state_now.values, state_now.tasks) == (before.values, before.tasks)
        steps += 1
    assert steps > 10


async def test_a_run_between_the_pieces_is_kept(
    saver: Saver, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pieces, "PIECE_SECONDS", -1)
    graph = chain(Log, *"abc").copy(update={"checkpointer": saver})
    for _ in range(3):
        await run(saver, graph, {"log": [LONG]})
    shrinking = Shrinking(database.dialect, saver.serde, THREAD)
    await shrinking.prepare(database.scan)
    assert not await database.write(lambda tx: shrinking.remove(tx, Piece()))
    output = await run(saver, graph, {"log": ["between"]})
    while not await database.write(lambda tx: shrinking.remove(tx, Piece())):
        pass
    assert (await graph.aget_state(config(THREAD))).values == output
    assert len((await contents(database, THREAD))["checkpoints"]) == 1


async def test_a_thread_without_checkpoints(saver: Saver, database: Database) -> None:
    await shrink(saver, database, THREAD)
    assert not any((await contents(database, THREAD)).values())


async def test_a_piece_that_is_rolled_back_is_done_again(
    saver: Saver, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pieces, "PIECE_SECONDS", 60)
    graph = chain(Log, *"ab").copy(update={"checkpointer": saver})
    for _ in range(3):
        await run(saver, graph, {"log": [LONG]})
    shrinking = Shrinking(database.dialect, saver.serde, THREAD)
    await shrinking.prepare(database.scan)

    async def fail(tx: Transaction) -> None:
        assert await shrinking.remove(tx, Piece())
        raise RuntimeError("the connection was lost")

    with pytest.raises(RuntimeError):
        await database.write(fail)
    assert len((await contents(database, THREAD))["checkpoints"]) > 1
    await in_pieces(database, shrinking.remove)
    assert len((await contents(database, THREAD))["checkpoints"]) == 1
