from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from checkpointed import DeltaLog, Log, chain
from langgraph.checkpoint.base import empty_checkpoint
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import START, StateGraph
from langgraph.types import Command, Send, interrupt

from treadle.checkpoints import RunSaver, Saver
from treadle.database import Database, Transaction
from treadle.ids import new_id

THREAD = new_id()


def config(**named: Any) -> Any:
    return {"configurable": {"thread_id": THREAD, **named}, "metadata": {"run_id": new_id()}}


async def rows(database: Database, table: str) -> int:
    return (await database.read_all(f"SELECT COUNT(*) AS n FROM {table}"))[0]["n"]


def questions(state: Any) -> list[list[Any]]:
    return [[one.value for one in task.interrupts] for task in state.tasks]


@pytest.mark.parametrize("sync", [True, False])
@pytest.mark.parametrize("durability", ["sync", "async", "exit"])
async def test_a_graph_runs_as_on_the_memory_saver(
    saver: Saver, sync: bool, durability: Any
) -> None:
    for state in (Log, DeltaLog):
        thread = {"configurable": {"thread_id": (thread_id := new_id())}}
        reference = chain(state, *"abcd", checkpointer=InMemorySaver(), asks="c")
        for asked in ({"log": ["in"]}, Command(resume="!"), {"log": ["again"]}, {"log": ["more"]}):
            run = RunSaver(saver, thread_id, sync=sync)
            graph = chain(state, *"abcd", checkpointer=run, asks="c")
            output = await graph.ainvoke(asked, thread, durability=durability)
            await run.settle()
            expected = await reference.ainvoke(asked, thread, durability=durability)
            assert output["log"] == expected["log"]
            ours = await graph.copy(update={"checkpointer": saver}).aget_state(thread)
            theirs = await reference.aget_state(thread)
            assert (ours.values, ours.next) == (theirs.values, theirs.next)
            assert questions(ours) == questions(theirs)
        ours_past = [s async for s in graph.aget_state_history(thread)]
        theirs_past = [s async for s in reference.aget_state_history(thread)]
        assert [(s.values, s.next) for s in ours_past] == [(s.values, s.next) for s in theirs_past]


@pytest.mark.parametrize("durability", ["sync", "async", "exit"])
async def test_it_knows_the_final_values_and_interrupts(saver: Saver, durability: Any) -> None:
    for asked in ({"log": ["in"]}, None, Command(resume="yes")):
        run = RunSaver(saver, THREAD, sync=False)
        graph = chain(Log, *"abc", checkpointer=run, asks="b")
        await graph.ainvoke(asked, config(), durability=durability)
        state = await graph.aget_state(config())
        assert run.channel_values.items() >= state.values.items()
        assert not run.needs_replay
        assert run.last_checkpoint_id == state.config["configurable"]["checkpoint_id"]
        assert run.last_metadata is not None
        assert run.last_metadata["step"] == state.metadata["step"]
        waiting = {task.id: list(task.interrupts) for task in state.tasks if task.interrupts}
        assert run.interrupts == waiting
        assert bool(waiting) == (asked != Command(resume="yes"))


async def test_of_two_questions_the_one_without_an_answer_stays(saver: Saver) -> None:
    def ask(state: Any) -> Any:
        return {"log": [interrupt(state["last"])]}

    builder = StateGraph(Log).add_node("ask", ask)
    builder.add_conditional_edges(START, lambda _: [Send("ask", {"last": i}) for i in "12"])
    first = RunSaver(saver, THREAD, sync=False)
    await builder.compile(checkpointer=first).ainvoke({"log": []}, config())
    await first.settle()
    assert [i.value for asked in first.interrupts.values() for i in asked] == ["1", "2"]
    ((_, [answered]), (still, [open_question])) = first.interrupts.items()
    second = RunSaver(saver, THREAD, sync=False)
    await builder.compile(checkpointer=second).ainvoke(
        Command(resume={answered.id: "yes"}), config()
    )
    assert second.interrupts == {still: [open_question]}
    assert len(second.pending_writes) == 2


async def test_delta_channels_need_a_replay_and_snapshots_do_not(saver: Saver) -> None:
    run = RunSaver(saver, THREAD, sync=False)
    graph = chain(DeltaLog, "a", checkpointer=run)
    needed: set[bool] = set()
    for _ in range(4):
        await graph.ainvoke({"log": ["in"]}, config())
        needed.add(run.needs_replay)
        if not run.needs_replay:
            state = await graph.aget_state(config())
            assert run.channel_values["log"] == state.values["log"]
    assert needed == {True, False}


async def test_what_is_put_soon_is_committed_together_and_read_at_once(
    saver: Saver, database: Database
) -> None:
    begun: list[int] = []

    async def guard(_: Transaction) -> None:
        begun.append(1)

    run = RunSaver(saver, THREAD, sync=False, guard=guard)
    graph = chain(Log, *"abcdef", checkpointer=run)
    await graph.ainvoke({"log": []}, config())
    await run.settle()
    assert len(begun) < 8
    assert await rows(database, "checkpoints") == 8

    checkpoint = empty_checkpoint()
    await run.aput(config(checkpoint_ns="inner"), checkpoint, {}, {})
    assert await rows(database, "checkpoints") == 8
    assert await run.aget_tuple(config(checkpoint_ns="other")) is None
    assert await rows(database, "checkpoints") == 8  # what it read did not have to wait
    found = await run.aget_tuple(config(checkpoint_ns="inner"))
    assert found is not None
    assert found.checkpoint["id"] == checkpoint["id"]
    assert await rows(database, "checkpoints") == 9


async def test_sync_is_durable_when_it_returns(saver: Saver, database: Database) -> None:
    run = RunSaver(saver, THREAD, sync=True)
    where = await run.aput(config(), empty_checkpoint(), {}, {})
    assert await rows(database, "checkpoints") == 1
    await run.aput_writes(where, [("log", 1), ("last", 2)], "task")
    assert await rows(database, "checkpoint_writes") == 2


async def test_values_are_those_of_the_moment_of_the_call(saver: Saver) -> None:
    run = RunSaver(saver, THREAD, sync=False)
    value = ["then"]
    checkpoint = {**empty_checkpoint(), "channel_values": {"log": value}}
    checkpoint["channel_versions"] = {"log": "1"}
    where = await run.aput(config(), checkpoint, {"step": 1}, {"log": "1"})  # type: ignore[arg-type]
    await run.aput_writes(where, [("log", value)], "task")
    value.append("later")
    checkpoint["channel_values"].clear()
    found = await run.aget_tuple(where)
    assert found is not None
    assert found.checkpoint["channel_values"] == {"log": ["then"]}
    assert found.pending_writes == [("task", "log", ["then"])]
    assert set(run.channel_values) == {"log"}


@pytest.mark.parametrize("sync", [True, False])
async def test_a_guard_that_raises_keeps_everything_out(
    saver: Saver, database: Database, sync: bool
) -> None:
    class Fenced(Exception):
        pass

    async def guard(_: Transaction) -> None:
        raise Fenced

    run = RunSaver(saver, THREAD, sync=sync, guard=guard)
    graph = chain(Log, *"ab", checkpointer=run)

    async def drive() -> None:
        await graph.ainvoke({"log": []}, config())
        await run.settle()

    with pytest.raises(Fenced):
        await drive()
    if not sync:
        calls: list[Callable[[], Any]] = [
            run.settle,
            lambda: run.aput(config(), empty_checkpoint(), {}, {}),
            lambda: run.aput_writes(config(checkpoint_id="1"), [], "task"),
            lambda: run.aget_tuple(config()),
        ]
        for call in calls:
            with pytest.raises(Fenced):
                await call()
    await database.flush()
    assert await rows(database, "checkpoints") == 0
    assert await rows(database, "checkpoint_writes") == 0


async def test_a_large_backlog_waits_for_the_database(
    saver: Saver, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("treadle.checkpoints.run_saver.BACKLOG_BYTES", 1000)
    run = RunSaver(saver, THREAD, sync=False)
    where = config(checkpoint_id="1")
    await run.aput_writes(where, [("log", "x" * 900)], "one")
    assert await rows(database, "checkpoint_writes") == 0
    await run.aput_writes(where, [("log", "x" * 900)], "two")
    assert await rows(database, "checkpoint_writes") == 2


@pytest.mark.parametrize("sync", [True, False])
async def test_graphs_that_nodes_call_synchronously(saver: Saver, sync: bool) -> None:
    inner = chain(Log, *"xy", asks="y")

    def call(state: Any) -> Any:
        return {"log": inner.invoke({"log": []})["log"]}

    def call_on_a_loop_of_its_own(state: Any) -> Any:
        return {"log": asyncio.run(inner.ainvoke({"log": []}))["log"]}

    async def call_in_the_way(state: Any) -> Any:
        return inner.invoke({"log": []})

    for node in (call, call_on_a_loop_of_its_own):
        thread = {"configurable": {"thread_id": (thread_id := new_id())}}
        run = RunSaver(saver, thread_id, sync=sync)
        graph = StateGraph(Log).add_node("call", node).add_edge(START, "call")
        graph = graph.compile(checkpointer=run)
        await graph.ainvoke({"log": []}, thread)
        assert run.interrupts
        output = await graph.ainvoke(Command(resume="answer"), thread)
        assert output["log"] == ["x", "answer"]
        await run.settle()

    run = RunSaver(saver, THREAD, sync=sync)
    graph = StateGraph(Log).add_node("call", call_in_the_way).add_edge(START, "call")
    with pytest.raises(RuntimeError, match="Use the async methods there"):
        await graph.compile(checkpointer=run).ainvoke({"log": []}, config())


async def test_every_sync_method_works_on_other_threads(saver: Saver) -> None:
    run = RunSaver(saver, THREAD, sync=False)

    def everything() -> None:
        where = run.put(config(), empty_checkpoint(), {"step": 1}, {})
        run.put_writes(where, [("log", 1)], "task")
        found = run.get_tuple(config())
        assert found is not None
        assert found.pending_writes == [("task", "log", 1)]
        assert [one.config for one in run.list(config())] == [where]
        assert run.get_delta_channel_history(config=where, channels=["log"]) == {
            "log": {"writes": []}
        }
        run.copy_thread(THREAD, copy := new_id())
        run.prune([copy])
        assert run.get_tuple({"configurable": {"thread_id": copy}}) is not None
        run.delete_thread(copy)
        assert found.metadata["run_id"]
        run.delete_for_runs([found.metadata["run_id"]])
        assert run.get_tuple(config()) is None

    await asyncio.to_thread(everything)
    with pytest.raises(RuntimeError, match="gets a thread of its own"):
        run.get_tuple(config())


async def test_a_strict_graph_widens_the_saver_it_was_given(database: Database) -> None:
    from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer

    saver = Saver(database, JsonPlusSerializer(allowed_msgpack_modules=None))
    run = RunSaver(saver, THREAD, sync=False)
    assert run.with_allowlist([("graphs", "Point")]) is run
    assert run.serde is not saver.serde
