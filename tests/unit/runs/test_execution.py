"""One attempt at one run: its verdict, what it leaves on its thread, and its fences."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from treadle.auth import ANYONE
from treadle.checkpoints.run_saver import RunSaver
from treadle.database import Transaction
from treadle.errors import Unavailable
from treadle.runs.execution import Execution
from treadle.runs.outcome import END, EVENT, GONE_KIND
from treadle.serialization import loads
from treadle.streaming.protocol.envelope import PROTOCOL

# -- verdicts ----------------------------------------------------------------------------------


async def verdict(house: Any, thread: str) -> tuple[list[str], str, Any, Any]:
    """The status of runs and thread, the thread's error, and its values."""
    shown = await house.shown_thread(thread)
    return (
        await house.statuses(thread),
        shown["status"],
        shown["error"] and shown["error"]["error"],
        shown["values"],
    )


async def test_success(house):
    thread = await house.thread()
    outcome = await house.run(thread)
    assert loads(outcome.json()) == {"log": ["a", "b", "c"]}
    assert await verdict(house, thread) == (["success"], "idle", None, {"log": ["a", "b", "c"]})


async def test_an_error(house):
    thread = await house.thread()
    outcome = await house.run(thread, "boom")
    expected = {"error": "ValueError", "message": "the boiler exploded"}
    assert loads(outcome.json()) == {"__error__": expected}
    assert await verdict(house, thread) == (["error"], "error", "ValueError", {"log": ["first"]})
    assert (await house.shown_thread(thread))["error"] == expected


async def test_a_later_success_clears_the_error(house):
    thread = await house.thread()
    await house.run(thread, "boom")
    await house.run(thread)
    _, status, error, _ = await verdict(house, thread)
    assert (status, error) == ("idle", None)


async def test_a_question(house):
    thread = await house.thread()
    outcome = await house.run(thread, "question")
    [asked] = loads(outcome.json())["__interrupt__"]
    assert asked["value"] == "well?"
    assert await verdict(house, thread) == (["success"], "interrupted", None, {"log": []})
    [[interrupt]] = (await house.shown_thread(thread))["interrupts"].values()
    assert interrupt == {"value": "well?", "id": asked["id"]}


async def test_an_answer(house):
    thread = await house.thread()
    await house.run(thread, "question")
    await house.run(thread, "question", command={"resume": 42})
    assert await verdict(house, thread) == (
        ["success"] * 2,
        "idle",
        None,
        {"answer": 42, "log": []},
    )
    assert (await house.shown_thread(thread))["interrupts"] == {}


async def test_a_static_stop(house):
    thread = await house.thread()
    await house.run(thread, interrupt_before=["b"])
    assert await verdict(house, thread) == (["success"], "interrupted", None, {"log": ["a"]})
    assert (await house.shown_thread(thread))["interrupts"] == {}


async def test_cancelled_with_interrupt(house):
    thread = await house.thread()
    run = await house.create(thread, "gated", "end", input={"gate": "a"})
    await house.at("a")
    await house.cancel(run)
    values = {"gate": "a", "log": ["first"]}
    assert await verdict(house, thread) == (["interrupted"], "interrupted", "UserInterrupt", values)
    message = (await house.shown_thread(thread))["error"]["message"]
    assert message == f"interrupt requested via POST /threads/{thread}/runs/{run.run_id}/cancel"
    assert loads((await house.outcome(run)).json()) == values


async def test_cancelled_with_rollback(house):
    thread = await house.thread()
    await house.run(thread)
    run = await house.create(thread, "gated", "end", input={"gate": "a"})
    await house.at("a")
    await house.cancel(run, "rollback")
    assert await verdict(house, thread) == (["success"], "idle", None, {"log": ["a", "b", "c"]})
    row = await house.database.read_one(
        "SELECT count(*) AS n FROM checkpoints WHERE run_id = :r", {"r": run.run_id}
    )
    assert row["n"] == 0


async def test_a_rollback_goes_back_to_an_open_question(house):
    thread = await house.thread()
    await house.run(thread, "question")
    run = await house.create(thread, "gated", "end", input={"gate": "a"})
    await house.at("a")
    await house.cancel(run, "rollback")
    shown = await house.shown_thread(thread)
    assert shown["status"] == "interrupted"
    assert shown["interrupts"]


async def test_a_run_that_takes_too_long(open_house):
    house = await open_house(bg_job_timeout_secs=0.01)
    outcome = await house.run(await house.thread(), "gated", input={"gate": "never"})
    assert outcome.status == "timeout"
    assert outcome.error["error"] == "TimeoutError"
    assert "0.01 s (BG_JOB_TIMEOUT_SECS)" in outcome.error["message"]


async def test_what_a_timeout_leaves(house):
    thread = await house.thread()
    run = await house.create(thread, "gated", "end", input={"gate": "never"})
    await house.at("never")
    house.worker.execution(run.run_id).stop("timeout")
    await house.outcome(run)
    values = {"gate": "never", "log": ["first"]}
    assert await verdict(house, thread) == (["timeout"], "error", "TimeoutError", values)


async def test_a_node_that_cancels_itself_is_no_cancelled_run(house):
    thread = await house.thread()
    outcome = await house.run(thread, "self_cancelled")
    assert outcome.status == "error"
    statuses, status, *_ = await verdict(house, thread)
    assert (statuses, status) == (["error"], "error")


async def test_a_thread_with_runs_behind_stays_busy(house, graphs):
    thread = await house.thread()
    first = await house.create(thread, watch="end")
    second = await house.create(thread, "gated", "end", input={"gate": "a"})
    assert (await house.outcome(first)).status == "success"
    await house.at("a")
    shown = await house.shown_thread(thread)
    assert shown["status"] == "busy"
    assert shown["values"] == {"log": ["a", "b", "c"]}
    graphs.gates["a"].set()
    await house.outcome(second)
    assert (await house.shown_thread(thread))["status"] == "idle"


@pytest.mark.parametrize("graph", ["chain", "boom", "question"])
async def test_a_temporary_thread_goes_with_its_run(house, graph):
    run = await house.create(None, graph, "end")
    assert await house.outcome(run) is not None
    for table in ("threads", "runs", "checkpoints", "checkpoint_writes"):
        row = await house.database.read_one(f"SELECT count(*) AS n FROM {table}")
        assert row["n"] == 0, table


async def test_a_stateless_run_may_be_kept(house):
    run = await house.create(None, "chain", "end", on_completion="keep")
    await house.outcome(run)
    assert (await house.shown_thread(run.thread_id))["values"] == {"log": ["a", "b", "c"]}


# -- one end -----------------------------------------------------------------------------------


async def entries_of(house: Any, thread: str, graph: str = "chain", **fields: Any) -> list[Any]:
    """Everything that is told of a run, and a while longer."""
    reader = house.events.log(thread).read()
    run = await house.create(thread, graph, "end", **fields)
    await house.outcome(run)
    await house.until(lambda: house.worker.active == 0)
    entries = list(await reader.next(1) or ())
    reader.close()
    return entries


@pytest.mark.parametrize("graph", ["chain", "boom", "question", "self_cancelled"])
async def test_a_run_begins_with_metadata_and_ends_once(house, graph):
    entries = await entries_of(house, await house.thread(), graph)
    assert (entries[0].kind, entries[0].name) == (EVENT, "metadata")
    assert loads(entries[0].data)["attempt"] == 1
    assert [entry.kind for entry in entries].count(END) == 1
    assert entries[-1].kind == END
    names = [entry.name for entry in entries if entry.kind == EVENT]
    assert names.count("metadata") == 1
    assert names.count("error") == (graph in ("boom", "self_cancelled"))


async def test_when_the_end_is_told_everything_is_settled(house):
    """Whoever reads of the end finds the run and its thread as they will stay."""
    for graph, expected in (("chain", "idle"), ("boom", "error"), ("question", "interrupted")):
        thread = await house.thread()
        await house.run(thread, graph)
        before = await verdict(house, thread)
        assert before[1] == expected
        await house.until(lambda: house.worker.active == 0)
        assert await verdict(house, thread) == before


async def test_events_are_encoded_only_for_those_who_want_them(house):
    """A run that nobody watches tells of its begin and its end, and of nothing between."""
    thread = await house.thread()
    reader = house.events.log(thread).read(watches=False)
    await house.outcome(await house.create(thread, watch="end"))
    kinds = [(entry.kind, entry.name) for entry in await reader.next(1) or ()]
    assert kinds == [(EVENT, "metadata"), (END, "metadata")]
    reader.close()


async def test_a_resumable_run_keeps_its_events_watched_or_not(house):
    thread = await house.thread()
    run = await house.create(thread, watch="end", stream_resumable=True)
    await house.outcome(run)
    kept = await house.events.replay(thread, run.run_id, 0, 2**62)
    names = [entry.name for entry in kept if entry.kind != PROTOCOL]
    assert names == ["metadata", "values", "values", "values", "metadata"]
    numbered = [(entry.seq, entry.name) for entry in kept if entry.seq is not None]
    assert [seq for seq, _ in numbered] == list(range(1, len(numbered) + 1))
    assert numbered[0][1] == numbered[-1][1] == "lifecycle"


async def test_the_log_of_a_thread_goes_when_nobody_needs_it(house):
    for graph in ("chain", "boom"):
        await house.run(await house.thread(), graph)
    await house.until(lambda: house.worker.active == 0)
    assert house.events._logs == {}


# -- fences ------------------------------------------------------------------------------------


async def moved(house: Any, run: Any) -> None:
    """Another worker takes a run over."""

    async def body(transaction: Transaction) -> None:
        sql = "UPDATE runs SET attempt = attempt + 1, owner = 'another' WHERE run_id = :r"
        await transaction.execute(sql, {"r": run.run_id})

    await house.database.write(body)


async def rows_of(house: Any, thread: str) -> Any:
    """All that the database has of a thread's states and end."""
    return [
        [tuple(dict(row).values()) for row in await house.database.read_all(sql, {"t": thread})]
        for sql in (
            "SELECT status, attempt, error FROM runs WHERE thread_id = :t",
            "SELECT status, state_values, interrupts, error FROM threads WHERE thread_id = :t",
            "SELECT checkpoint_id FROM checkpoints WHERE thread_id = :t ORDER BY 1",
            "SELECT task_id, idx FROM checkpoint_writes WHERE thread_id = :t ORDER BY 1, 2",
        )
    ]


@pytest.mark.parametrize("durability", ["sync", "async", "exit"])
async def test_a_run_that_was_taken_over_writes_nothing_more(house, graphs, durability):
    thread = await house.thread()
    run = await house.create(thread, "gated", "end", input={"gate": "a"}, durability=durability)
    await house.at("a")
    await house.database.flush()
    await moved(house, run)
    before = await rows_of(house, thread)
    graphs.gates["a"].set()
    await house.until(lambda: house.worker.active == 0)
    await house.database.flush()
    assert await rows_of(house, thread) == before
    run.reader.close()


LOG = ["first", "a", "last"]


@pytest.mark.parametrize("is_written", [True, False])
@pytest.mark.parametrize("temporary", [True, False])
async def test_an_end_whose_commit_was_not_answered_is_told_once(
    house, graphs, monkeypatch, is_written, temporary
):
    thread = None if temporary else await house.thread()
    run = await house.create(thread, "gated", "end", input={"gate": "a"}, durability="sync")
    await house.at("a")
    write, lost = house.database.write, 0

    async def unanswered(body: Any, thread_id: str | None = None) -> Any:
        nonlocal lost
        if thread_id is None or "_write_end" not in body.__code__.co_names or lost:
            return await write(body, thread_id)
        lost += 1
        if is_written:
            await write(body, thread_id)
        raise Unavailable("The connection to the database was lost")

    monkeypatch.setattr(house.database, "write", unanswered)
    graphs.gates["a"].set()
    outcome = await house.outcome(run)
    assert lost == 1
    assert (outcome.status, outcome.output["log"]) == ("success", LOG)
    if thread is not None:
        values = {"gate": "a", "log": LOG}
        assert await verdict(house, thread) == (["success"], "idle", None, values)


@pytest.mark.parametrize("durability", ["sync", "async", "exit"])
async def test_a_run_that_loses_the_database_goes_on_later(house, graphs, monkeypatch, durability):
    thread = await house.thread()
    run = await house.create(thread, "gated", "end", input={"gate": "a"}, durability=durability)
    await house.at("a")
    await house.database.flush()
    settle, lost = RunSaver.settle, 0

    async def unanswered(saver: Any) -> None:
        nonlocal lost
        lost += 1
        if lost == 1:
            raise Unavailable("The database does not answer")
        await settle(saver)

    monkeypatch.setattr(RunSaver, "settle", unanswered)
    graphs.gates["a"].set()
    outcome = await house.outcome(run)
    assert outcome.status == "success"
    assert (await house.shown(run))["status"] == "success"
    values = {"gate": "a", "log": LOG}
    assert await verdict(house, thread) == (["success"], "idle", None, values)


async def test_losing_the_database_counts_as_no_try(open_house, monkeypatch):
    house = await open_house(bg_job_max_retries=1)
    settle, losses = RunSaver.settle, iter(range(3))

    async def unanswered(saver: Any) -> None:
        if next(losses, None) is not None:
            raise Unavailable("The database does not answer")
        await settle(saver)

    monkeypatch.setattr(RunSaver, "settle", unanswered)
    outcome = await house.run(await house.thread())
    assert (outcome.status, next(losses, None)) == ("success", None)


@pytest.mark.parametrize("action", ["interrupt", "rollback", "timeout", "delete"])
async def test_nor_does_it_when_it_is_stopped(house, action):
    thread = await house.thread()
    run = await house.create(thread, "gated", "end", input={"gate": "a"})
    await house.at("a")
    await house.database.flush()
    await moved(house, run)
    before = await rows_of(house, thread)
    house.worker.execution(run.run_id).stop(action)
    await house.until(lambda: house.worker.active == 0)
    await house.database.flush()
    assert await rows_of(house, thread) == before
    kinds = [entry.kind for entry in await run.reader.next(1) or ()]
    assert GONE_KIND in kinds
    assert END not in kinds
    run.reader.close()


async def test_a_run_that_was_deleted_writes_nothing_more(house, graphs):
    thread = await house.thread()
    await house.run(thread)
    run = await house.create(thread, "lingering", "end", input={"gate": "a"})
    await house.at("a")
    await house.service.delete(ANYONE, thread, run.run_id)
    graphs.gates["a"].set()
    assert await house.outcome(run) is None
    await house.until(lambda: house.worker.active == 0)
    assert await verdict(house, thread) == (["success"], "idle", None, {"log": ["a", "b", "c"]})


# -- attempts ----------------------------------------------------------------------------------


async def attempt(house: Any, run: Any, number: int) -> Execution:
    """Claim a run by hand, as the attempt of that number."""

    async def body(transaction: Transaction) -> Any:
        return await transaction.fetch_one(
            "UPDATE runs SET status = 'running', attempt = :n, started_at = 1"
            " WHERE run_id = :r RETURNING *, attempt AS tries",
            {"r": run.run_id, "n": number},
        )

    return Execution(await house.database.write(body), house.rooms)


@pytest.mark.parametrize("durability", ["sync", "async"])
async def test_a_second_attempt_goes_on_from_the_last_checkpoint(open_house, graphs, durability):
    house = await open_house(work=False)
    thread = await house.thread()
    run = await house.create(thread, "gated", "end", input={"gate": "a"}, durability=durability)
    first = await attempt(house, run, 1)
    task = first.start()
    await house.at("a")
    task.cancel()
    await asyncio.wait([task])
    await house.database.flush()

    graphs.gates["a"].set()
    second = await attempt(house, run, 2)
    await second.start()
    assert graphs.journal == ["first", "+a", "-a", "+a", "-a", "last"]
    _, status, _, values = await verdict(house, thread)
    assert status == "idle"
    assert values == {"gate": "a", "log": ["first", "a", "last"]}


async def test_a_second_attempt_without_a_checkpoint_starts_anew(open_house, graphs):
    house = await open_house(work=False)
    run = await house.create(await house.thread())
    await (await attempt(house, run, 2)).start()
    assert graphs.journal == [*"abc"]


async def test_a_second_attempt_does_not_take_up_an_older_run(open_house, graphs):
    """The thread's last checkpoint is not this run's: its input still has to be applied."""
    house = await open_house(work=False)
    thread = await house.thread()
    before = await house.create(thread)
    await (await attempt(house, before, 1)).start()
    run = await house.create(thread)
    await (await attempt(house, run, 2)).start()
    assert graphs.journal == [*"abcabc"]


async def test_the_attempt_is_told(open_house):
    house = await open_house(work=False)
    thread = await house.thread()
    run = await house.create(thread, watch="end")
    await (await attempt(house, run, 2)).start()
    entry = (await run.reader.next(1))[0]
    assert loads(entry.data) == {"run_id": run.run_id, "attempt": 2}
    run.reader.close()


# -- what commands may do ----------------------------------------------------------------------


async def test_a_strict_resume_of_what_is_not_open_leaves_the_thread_as_it_was(house):
    thread = await house.thread()
    await house.run(thread, "question")
    before = await house.shown_thread(thread)
    outcome = await house.run(
        thread, "question", command={"resume": {"f" * 32: 1}}, strict_resume=True
    )
    assert outcome.error["error"] == "UnknownInterruptError"
    after = await house.shown_thread(thread)
    assert (after["values"], after["interrupts"]) == (before["values"], before["interrupts"])


@pytest.mark.parametrize("command", [{"resume": 1}, {"update": {"answer": 1}}])
async def test_a_command_on_a_fresh_thread_is_a_plain_error(house, command):
    outcome = await house.run(await house.thread(), "question", command=command)
    assert outcome.error["error"] == "ValueError"
    assert "command" in outcome.error["message"]


async def test_updates_at_an_open_question_add_up_or_are_refused(house):
    thread = await house.thread()
    await house.run(thread, "questions")
    shown = await house.shown_thread(thread)
    first, second = (asked["id"] for [asked] in shown["interrupts"].values())
    both = {"answer": 1, "log": ["told"]}
    await house.run(thread, "questions", command={"resume": {first: "A"}, "update": both})
    before = await house.shown_thread(thread)
    for update in ({"answer": 2}, [["gate", "a"], ["gate", "b"]]):
        command = {"resume": {second: "B"}, "update": update}
        outcome = await house.run(thread, "questions", command=command)
        assert outcome.error["error"] == "InvalidUpdateError"
        assert "takes one value a step" in outcome.error["message"]
        after = await house.shown_thread(thread)
        assert (after["values"], after["interrupts"]) == (before["values"], before["interrupts"])
    command = {"resume": {second: "B"}, "update": {"log": ["more"]}}
    await house.run(thread, "questions", command=command)
    values = (await house.shown_thread(thread))["values"]
    assert values["answer"] == 1
    assert sorted(values["log"]) == ["A", "B", "more", "told"]


async def test_an_empty_answer_is_an_answer(house):
    thread = await house.thread()
    await house.run(thread, "question")
    await house.run(thread, "question", command={"resume": {}})
    assert (await house.shown_thread(thread))["values"]["answer"] == {}
