"""The rules of runs: creating beside others, reading, joining, cancelling, deleting."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from treadle.auth import ANYONE
from treadle.database import Transaction
from treadle.errors import Conflict, Invalid, NotFound, Refused
from treadle.ids import new_id
from treadle.runs.models import StatelessRunCreate
from treadle.serialization import dumps, loads

# -- creating ----------------------------------------------------------------------------------


async def test_a_run_is_pending_and_its_thread_busy_at_once(open_house):
    house = await open_house(work=False)
    thread = await house.thread()
    created = await house.create(thread, metadata={"m": 1})
    shown = loads(dumps(created.json))
    assert shown == await house.shown(created)
    assert shown["status"] == "pending"
    assert shown["metadata"]["m"] == 1
    assert shown["kwargs"]["config"]["configurable"]["thread_id"] == thread
    state = await house.shown_thread(thread)
    assert state["status"] == "busy"
    names = {"graph_id": "chain", "assistant_id": shown["assistant_id"]}
    assert names.items() <= state["metadata"].items()
    assert "m" not in state["metadata"]


async def test_a_run_that_brings_its_thread_gives_it_its_metadata(open_house):
    house = await open_house(work=False)
    thread = new_id()
    await house.create(thread, if_not_exists="create", metadata={"m": 1})
    state = await house.shown_thread(thread)
    assert (state["status"], state["metadata"]["m"]) == ("busy", 1)


async def counts(house: Any) -> tuple[int, ...]:
    rows = [
        await house.database.read_one(f"SELECT count(*) AS n FROM {table}")
        for table in ("threads", "runs")
    ]
    return tuple(row["n"] for row in rows)


@pytest.mark.parametrize(
    ("graph", "fields", "error", "said"),
    [
        ("nope", {}, Invalid, "Invalid assistant: 'nope'"),
        (
            "00000000-0000-4000-8000-000000000000",
            {},
            NotFound,
            "Thread or assistant not found|not found",
        ),
        ("chain", {"context": {"a": 1}, "config": {"configurable": {"b": 1}}}, Refused, "both"),
        ("chain", {"command": {"bogus": 1}}, Invalid, "unknown keys"),
        ("chain", {"command": {"goto": "nope"}}, Invalid, "unknown node 'nope'"),
        ("chain", {"interrupt_before": ["nope"]}, Invalid, "unknown node 'nope'"),
        ("chain", {"webhook": "ftp://example.com"}, Invalid, "scheme 'ftp'"),
        ("chain", {"checkpoint_id": "x"}, Invalid, "Invalid checkpoint ID"),
        ("chain", {"command": {"update": 5}}, Invalid, "command.update is 5"),
        ("chain", {"command": {"update": {}}}, Invalid, "command.update is empty"),
    ],
)
async def test_what_is_refused_leaves_nothing_behind(open_house, graph, fields, error, said):
    house = await open_house(work=False)
    for thread, more in ((None, {}), (new_id(), {"if_not_exists": "create"})):
        with pytest.raises(error, match=said):
            await house.create(thread, graph, "events", **fields, **more)
    assert await counts(house) == (0, 0)
    assert house.events._logs == {}


async def test_a_checkpoint_that_the_thread_does_not_have(open_house):
    house = await open_house(work=False)
    named: Any = {"checkpoint_id": new_id()}
    with pytest.raises(NotFound, match=r"Checkpoint .* not found"):
        await house.create(new_id(), "chain", "events", if_not_exists="create", **named)
    assert await counts(house) == (0, 0)
    made = await house.create(None, "chain", **named)  # a stateless run has nothing to start from
    assert "checkpoint_id" not in loads(dumps(made.json))["kwargs"]["config"]["configurable"]


async def test_a_thread_that_is_not_there(house):
    with pytest.raises(NotFound, match=r"Thread or assistant not found\."):
        await house.create(new_id())


async def test_a_batch_is_accepted_whole_or_not_at_all(open_house):
    house = await open_house(work=False)
    body = (await house.create(None, "chain")).json
    good = StatelessRunCreate(assistant_id=body["assistant_id"])
    bad = StatelessRunCreate(assistant_id=new_id())
    before = await counts(house)
    with pytest.raises(NotFound):
        await house.service.create_many(ANYONE, "r", None, [good, bad])
    assert await counts(house) == before
    made = await house.service.create_many(ANYONE, "r", None, [good, good])
    assert len({run.thread_id for run in made}) == 2


# -- beside other runs -------------------------------------------------------------------------


async def busy(house: Any, *behind: str) -> tuple[str, Any, list[Any]]:
    """A thread with a run at its gate, and runs behind it."""
    thread = await house.thread()
    await house.run(thread)
    running = await house.create(thread, "gated", "end", input={"gate": "a"})
    await house.at("a")
    return thread, running, [await house.create(thread, graph, "end") for graph in behind]


async def test_reject(house, graphs):
    thread, running, _ = await busy(house)
    with pytest.raises(Conflict, match="already running a task"):
        await house.create(thread, multitask_strategy="reject")
    assert await house.statuses(thread) == ["success", "running"]
    graphs.gates["a"].set()
    await house.outcome(running)
    outcome = await house.run(thread, multitask_strategy="reject")
    assert outcome.status == "success"


async def test_of_many_that_reject_each_other_one_is_accepted(open_house):
    house = await open_house(work=False)
    thread = await house.thread()
    answers = await asyncio.gather(
        *(house.create(thread, multitask_strategy="reject") for _ in range(20)),
        return_exceptions=True,
    )
    assert sum(isinstance(answer, Conflict) for answer in answers) == 19
    assert await house.statuses(thread) == ["pending"]


async def test_enqueue(house, graphs):
    thread, running, [behind] = await busy(house, "chain")
    assert await house.statuses(thread) == ["success", "running", "pending"]
    graphs.gates["a"].set()
    assert (await house.outcome(running)).status == "success"
    assert (await house.outcome(behind)).status == "success"


@pytest.mark.parametrize("strategy", ["interrupt", "rollback"])
async def test_a_newcomer_that_pushes_the_others_aside(house, strategy):
    thread, running, [behind] = await busy(house, "chain")
    newcomer = await house.create(thread, watch="end", multitask_strategy=strategy)
    outcomes = [await house.outcome(run) for run in (running, behind, newcomer)]
    assert [outcome.status for outcome in outcomes] == ["interrupted", "interrupted", "success"]
    if strategy == "interrupt":
        assert await house.statuses(thread) == ["success", "interrupted", "interrupted", "success"]
        log = [*"abc", "first", *"abc"]
    else:
        assert await house.statuses(thread) == ["success", "success"]
        log = [*"abc", *"abc"]
    shown = await house.shown_thread(thread)
    assert (shown["status"], shown["error"], shown["values"]["log"]) == ("idle", None, log)


@pytest.mark.parametrize("strategy", ["interrupt", "rollback"])
async def test_many_newcomers_at_once(house, strategy):
    """Each pushes aside all before it: the last one alone is left to run."""
    thread, running, _ = await busy(house)
    newcomers = await asyncio.gather(
        *(house.create(thread, watch="end", multitask_strategy=strategy) for _ in range(10))
    )
    outcomes = [await house.outcome(run) for run in (running, *newcomers)]
    statuses = [outcome.status for outcome in outcomes]
    assert statuses == ["interrupted"] * 10 + ["success"]
    assert (await house.shown_thread(thread))["status"] == "idle"


# -- cancelling --------------------------------------------------------------------------------


@pytest.mark.parametrize("action", ["interrupt", "rollback"])
async def test_cancelling_a_pending_run(house, graphs, action):
    thread, running, [behind] = await busy(house, "chain")
    await house.cancel(behind, action)
    outcome = await house.outcome(behind)
    assert (outcome.status, outcome.output) == ("interrupted", {"log": [*"abc"]})
    left = ["interrupted"] if action == "interrupt" else []
    assert await house.statuses(thread) == ["success", "running", *left]
    assert (await house.shown_thread(thread))["status"] == "busy"
    graphs.gates["a"].set()
    await house.outcome(running)
    assert (await house.shown_thread(thread))["status"] == "idle"


async def test_cancelling_the_only_pending_run_frees_its_thread(house):
    thread = await house.thread()
    await house.run(thread, "question")
    before = await house.shown_thread(thread)
    run = await house.create(thread, watch="end", after_seconds=60)
    assert (await house.shown_thread(thread))["status"] == "busy"
    await house.cancel(run)
    after = await house.shown_thread(thread)
    assert after["status"] == before["status"] == "interrupted"
    assert after["interrupts"] == before["interrupts"]
    run.reader.close()


async def test_a_temporary_run_that_is_cancelled_while_pending_takes_its_thread_along(house):
    run = await house.create(None, watch="end", after_seconds=60)
    await house.cancel(run)
    assert (await house.outcome(run)).status == "interrupted"
    assert await counts(house) == (0, 0)


async def test_cancelling_what_has_ended_or_never_was(house):
    thread = await house.thread()
    run = await house.create(thread, watch="end")
    await house.outcome(run)
    cancel = house.service.cancel
    with pytest.raises(NotFound, match=r"No matching runs to cancel"):
        await cancel(ANYONE, thread, run.run_id, "interrupt")
    for place in ((thread, new_id()), (new_id(), run.run_id)):
        with pytest.raises(NotFound, match=r"No runs found to cancel"):
            await cancel(ANYONE, *place, "interrupt")
    await house.service.hung_up(ANYONE, thread, run.run_id)
    await house.until(lambda: house.events._logs == {})


async def test_those_in_flight_among_several_are_cancelled(house):
    thread, running, [behind] = await busy(house, "chain")
    ended = await house.database.read_one("SELECT run_id FROM runs WHERE status = 'success'")
    ids = [ended["run_id"], running.run_id, behind.run_id, new_id()]
    await house.service.cancel_many(ANYONE, thread, ids, "interrupt")
    await house.outcome(running)
    await house.outcome(behind)
    assert await house.statuses(thread) == ["success", "interrupted", "interrupted"]
    with pytest.raises(NotFound):
        await house.service.cancel_many(ANYONE, thread, ids, "interrupt")


@pytest.mark.parametrize(
    ("status", "left"),
    [
        ("pending", ["running", "interrupted"]),
        ("running", ["interrupted", "success"]),
        ("all", ["interrupted", "interrupted"]),
    ],
)
async def test_cancelling_by_status(house, status, left):
    thread, running, [behind] = await busy(house, "chain")
    await house.service.cancel_by_status(ANYONE, status, "interrupt")
    if status != "pending":
        await house.outcome(running)
    await house.outcome(behind)
    assert await house.statuses(thread) == ["success", *left]


async def test_a_joiner_of_a_cancelled_run_gets_its_partial_values(house):
    thread, running, _ = await busy(house)
    reader, _, ended = await house.service.join(ANYONE, thread, running.run_id, events=False)
    assert not ended
    await house.service.cancel(ANYONE, thread, running.run_id, "interrupt")
    outcome = await house.outcome(running)
    assert outcome.output == {"gate": "a", "log": [*"abc", "first"]}
    reader.close()


# -- joining -----------------------------------------------------------------------------------


async def output(house: Any, run: Any) -> Any:
    """What joining gives after the end."""
    reader, row, ended = await house.service.join(ANYONE, run.thread_id, run.run_id, events=False)
    reader.close()
    assert ended
    return loads(await house.service.ended_output(row))


async def test_joining_an_ended_run_gives_the_values_of_its_thread_now(house):
    thread = await house.thread()
    run = await house.create(thread, watch="end")
    await house.outcome(run)
    assert await output(house, run) == {"log": [*"abc"]}
    await house.run(thread)
    assert await output(house, run) == {"log": [*"abcabc"]}


async def test_joining_a_failed_run_gives_its_error_as_long_as_the_thread_has_it(house):
    run = await house.create(await house.thread(), "boom", "end")
    await house.outcome(run)
    expected = {"error": "ValueError", "message": "the boiler exploded"}
    assert await output(house, run) == {"__error__": expected}


async def test_joining_at_a_question_gives_values_and_the_question(house):
    run = await house.create(await house.thread(), "question", "end", input={"gate": "g"})
    await house.outcome(run)
    found = await output(house, run)
    assert found["gate"] == "g"
    assert [asked["value"] for asked in found["__interrupt__"]] == ["well?"]


async def test_joining_what_is_not_there_leaves_no_reader(house):
    thread = await house.thread()
    with pytest.raises(NotFound, match=r"Run .* not found"):
        await house.service.join(ANYONE, thread, new_id(), events=True)
    with pytest.raises(NotFound, match=r"Thread with ID .* not found"):
        await house.service.join(ANYONE, new_id(), new_id(), events=True)
    assert house.events._logs == {}


# -- reading -----------------------------------------------------------------------------------


async def test_listing(open_house):
    house = await open_house(work=False)
    thread = await house.thread()
    made = [(await house.create(thread)).run_id for _ in range(5)]

    async def listed(limit: int = 10, offset: int = 0, status: str | None = None) -> list[str]:
        runs = await house.service.list(ANYONE, thread, limit=limit, offset=offset, status=status)
        return [run["run_id"] for run in runs]

    assert await listed() == made[::-1]
    assert await listed(limit=2, offset=1) == made[3:1:-1]
    assert await listed(limit=0) == []
    assert await listed(offset=9) == []
    assert await listed(status="pending", limit=1) == [made[-1]]
    assert await listed(status="success") == []


async def test_a_run_of_another_thread_is_not_found(open_house):
    house = await open_house(work=False)
    run = await house.create(await house.thread())
    with pytest.raises(NotFound, match=r"Run .* not found on thread"):
        await house.service.get(ANYONE, await house.thread(), run.run_id)


# -- deleting ----------------------------------------------------------------------------------


async def events_of(house: Any, run: Any) -> int:
    await house.database.flush()
    row = await house.database.read_one(
        "SELECT count(*) AS n FROM events WHERE run_id = :r", {"r": run.run_id}
    )
    return row["n"]


async def test_deleting_an_ended_run(house):
    thread = await house.thread()
    await house.run(thread)
    run = await house.create(thread, watch="end", stream_resumable=True)
    await house.outcome(run)
    assert await events_of(house, run) > 0
    await house.service.delete(ANYONE, thread, run.run_id)
    assert await house.statuses(thread) == ["success"]
    assert await events_of(house, run) == 0
    state = await house.threads.states.get(ANYONE, thread, subgraphs=False)
    assert loads(dumps(state))["values"] == {"log": [*"abc"]}
    with pytest.raises(NotFound, match="Run not found"):
        await house.service.delete(ANYONE, thread, run.run_id)


async def test_deleting_a_running_run_stops_it_and_frees_its_thread(house, graphs):
    thread, running, [behind] = await busy(house, "chain")
    await house.service.delete(ANYONE, thread, running.run_id)
    assert await house.outcome(running) is None
    assert (await house.outcome(behind)).status == "success"
    assert await house.statuses(thread) == ["success", "success"]
    shown = await house.shown_thread(thread)
    assert (shown["status"], shown["values"]["log"]) == ("idle", [*"abcabc"])
    assert graphs.journal[:6] == [*"abc", "first", "+a", "-a"]


async def test_deleting_a_pending_run_frees_its_thread(house):
    thread = await house.thread()
    run = await house.create(thread, watch="end", after_seconds=60)
    await house.service.delete(ANYONE, thread, run.run_id)
    assert await house.outcome(run) is None
    assert (await house.shown_thread(thread))["status"] == "idle"


async def test_those_who_wait_on_a_deleted_thread_are_told(house):
    thread, running, [behind] = await busy(house, "chain")
    await house.threads.delete(ANYONE, thread)
    assert await house.outcome(running) is None
    assert await house.outcome(behind) is None
    await house.until(lambda: house.worker.active == 0)
    assert await counts(house) == (0, 0)
    for table in ("checkpoints", "checkpoint_writes", "events"):
        row = await house.database.read_one(f"SELECT count(*) AS n FROM {table}")
        assert row["n"] == 0, table


async def test_a_thread_made_anew_under_the_same_id_knows_nothing(house):
    thread, running, _ = await busy(house)
    await house.threads.delete(ANYONE, thread)
    await house.outcome(running)
    outcome = await house.run(thread, if_not_exists="create")
    assert outcome.output == {"log": [*"abc"]}
    assert await house.statuses(thread) == ["success"]


# -- nothing is left behind --------------------------------------------------------------------


async def test_whatever_happens_every_run_ends_once_and_every_log_goes(house, graphs):
    """Runs, cancels, deletes and newcomers on a few threads, all at the same time."""
    threads = [await house.thread() for _ in range(4)]
    graphs.gates["open"].set()
    readers: list[Any] = []

    async def visit(number: int) -> None:
        thread = threads[number % 4]
        strategy = ("enqueue", "interrupt", "rollback", "enqueue")[number // 4 % 4]
        run = await house.create(
            thread, "gated", "end", input={"gate": "open"}, multitask_strategy=strategy
        )
        readers.append(run)
        for _ in range(number % 5 * 3):
            await asyncio.sleep(0)
        try:
            if number % 3 == 0:
                await house.cancel(run)
            elif number % 7 == 0:
                await house.service.delete(ANYONE, thread, run.run_id)
        except NotFound:
            pass

    # Not all in one turn: a cancel that meets its run just as it starts is tested elsewhere.
    for number in range(60):
        await visit(number)
    for run in readers:
        await house.outcome(run)
    await house.until(lambda: house.worker.active == 0)
    for thread in threads:
        assert set(await house.statuses(thread)) <= {"success", "interrupted"}
        assert (await house.shown_thread(thread))["status"] in ("idle", "interrupted")

    async def begun(transaction: Transaction) -> Any:
        return await transaction.fetch_all("SELECT 1 FROM runs WHERE status = 'running'")

    assert await house.database.write(begun) == []
