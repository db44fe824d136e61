"""Runs as protocol v2 tells of them: one begin, one end, whatever becomes of them."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from treadle.auth import ANYONE
from treadle.errors import Conflict
from treadle.runs.answering import NoInterruptedRun, UnknownInterrupt
from treadle.runs.execution import Execution
from treadle.serialization import loads
from treadle.streaming.protocol.commands import Context
from treadle.streaming.protocol.envelope import ENDS, Emission, envelope_of
from treadle.streaming.protocol.feed import Feed
from treadle.streaming.protocol.run_commands import RunCommands

KEPT = {"stream_resumable": True}


class Watcher:
    """Somebody who watches a thread from now on."""

    def __init__(self, feed: Feed) -> None:
        self.feed = feed
        self.entries: list[Any] = []

    @classmethod
    async def of(cls, house: Any, thread: str) -> Watcher:
        watcher = cls(await Feed.open(house.events, thread))
        async for page in watcher.feed.past(0, watcher.feed.position):
            watcher.entries += page
        return watcher

    async def until_end(self, many: int = 1) -> list[str]:
        """What the runs went through, up to so many ends."""
        async with asyncio.timeout(5):
            while len([s for s in self.states if s in ENDS]) < many:
                self.entries += await self.feed.next(1) or ()
        self.feed.close()
        return self.states

    @property
    def states(self) -> list[str]:
        return [entry.label for entry in self.entries if entry.name == "lifecycle"]

    @property
    def numbers(self) -> list[int]:
        return [entry.seq for entry in self.entries]


@pytest.fixture
def watch(house: Any) -> Any:
    return lambda thread: Watcher.of(house, thread)


@pytest.fixture
def command(house: Any) -> Any:
    commands = RunCommands(house.service, house.events)

    async def command(thread: str, name: str, **params: Any) -> Any:
        result, seq = await getattr(commands, name)(Context(ANYONE, "request", thread), params)
        return result.get("run_id"), seq

    return command


async def settled(house: Any) -> None:
    """Once no run of the house is in flight."""
    sql = "SELECT 1 FROM runs WHERE status IN ('pending', 'running')"

    async def is_idle() -> bool:
        return await house.database.read_one(sql) is None and house.worker.active == 0

    await house.until(is_idle)


@pytest.mark.parametrize("fields", [KEPT, {}], ids=["kept", "not kept"])
@pytest.mark.parametrize(("graph", "end"), [("chain", "completed"), ("boom", "failed"),
                                            ("question", "interrupted")])  # fmt: skip
async def test_a_run_has_one_begin_and_one_end(house, watch, graph, end, fields):
    thread = await house.thread()
    watcher = await watch(thread)
    await house.run(thread, graph, **fields)
    assert await watcher.until_end() == ["running", end]
    assert watcher.numbers == list(range(1, len(watcher.numbers) + 1))
    assert watcher.entries[-1].label == end, "nothing comes after the end"


@pytest.mark.parametrize("action", ["interrupt", "rollback"])
async def test_a_run_that_is_cancelled_has_its_end(house, watch, action):
    thread = await house.thread()
    watcher = await watch(thread)
    run = await house.create(thread, "gated", input={"gate": "g"}, **KEPT)
    await house.at("g")
    await house.cancel(run, action)
    assert await watcher.until_end() == ["running", "interrupted"]
    late = await watch(thread)
    assert late.states == (["running", "interrupted"] if action == "interrupt" else ["interrupted"])


@pytest.mark.parametrize("action", ["interrupt", "rollback"])
async def test_a_run_that_had_not_begun_has_its_end_too(house, watch, graphs, action):
    thread = await house.thread()
    await house.create(thread, "gated", input={"gate": "g"})
    await house.at("g")
    watcher = await watch(thread)
    waiting = await house.create(thread, "chain", **KEPT)
    await house.service.cancel(ANYONE, thread, waiting.run_id, action)
    [end] = [e for e in watcher.entries if e.run_id == waiting.run_id] or (
        await asyncio.wait_for(until_of(watcher, waiting.run_id), 5)
    )
    assert end.label == "interrupted"
    graphs.gates["g"].set()
    await settled(house)


async def until_of(watcher: Watcher, run_id: str) -> list[Any]:
    while True:
        watcher.entries += await watcher.feed.next(1) or ()
        if found := [e for e in watcher.entries if e.run_id == run_id]:
            return found


async def test_a_run_that_is_deleted_in_its_course_has_its_end(house, watch):
    thread = await house.thread()
    watcher = await watch(thread)
    run = await house.create(thread, "gated", input={"gate": "g"}, **KEPT)
    await house.at("g")
    await house.service.delete(ANYONE, thread, run.run_id)
    assert await watcher.until_end() == ["running", "interrupted"]
    await settled(house)


async def test_a_thread_that_is_deleted_ends_what_goes_on_there(house, watch):
    thread = await house.thread()
    watcher = await watch(thread)
    await house.create(thread, "gated", input={"gate": "g"}, **KEPT)
    await house.at("g")
    await asyncio.wait_for(until_told(watcher, "running"), 5)
    await house.threads.delete(ANYONE, thread)
    assert await watcher.until_end() == ["running", "interrupted"]
    await settled(house)


async def until_told(watcher: Watcher, state: str) -> None:
    while state not in watcher.states:
        watcher.entries += await watcher.feed.next(1) or ()


async def test_a_run_that_is_not_kept_tells_of_itself_once_somebody_comes(house, watch, graphs):
    thread = await house.thread()
    await house.create(thread, "gated", input={"gate": "g"})
    await house.at("g")
    first = await watch(thread)
    await asyncio.wait_for(until_told(first, "running"), 5)
    second = await watch(thread)
    assert second.states == ["running"]
    graphs.gates["g"].set()
    assert await first.until_end() == await second.until_end() == ["running", "completed"]
    assert first.numbers == second.numbers
    assert (await watch(thread)).entries == [], "nothing of it is replayed"


async def test_a_run_that_nobody_watches_and_that_is_not_kept_counts_nothing(house):
    thread = await house.thread()
    await house.run(thread)
    assert await house.events.last_seq(thread) == 0


async def test_a_plain_run_shows_values_and_updates_by_node(house, watch):
    thread = await house.thread()
    watcher = await watch(thread)
    await house.run(thread, "chain", stream_mode=["updates"], **KEPT)
    await watcher.until_end()
    updates = [e for e in watcher.entries if e.name == "updates"]
    assert [loads(b"{%b}" % e.params)["node"] for e in updates] == ["a", "b", "c"]
    assert [loads(e.data) for e in updates] == [{"log": [node]} for node in "abc"]
    values = [loads(e.data) for e in watcher.entries if e.name == "values"]
    assert values[-1] == {"log": ["a", "b", "c"]}


async def test_a_command_tells_the_number_before_what_it_brings_about(house, watch, command):
    thread = await house.thread()
    watcher = await watch(thread)
    _, seq = await command(thread, "start", assistant_id="chain", input={})
    assert seq == 0
    await watcher.until_end()
    await settled(house)
    last = watcher.numbers[-1]
    _, seq = await command(thread, "start", assistant_id="chain", input={})
    assert seq == last
    await settled(house)


async def asked(watcher: Watcher) -> str:
    return next(e.label for e in watcher.entries if e.name == "input.requested")


async def test_an_interrupt_is_answered_once(house, watch, command):
    thread = await house.thread()
    watcher = await watch(thread)
    await command(thread, "start", assistant_id="question", input={})
    await watcher.until_end()
    interrupt_id = await asked(watcher)
    answers = [command(thread, "respond", interrupt_id=interrupt_id, response=n) for n in range(3)]
    done = await asyncio.gather(*answers, return_exceptions=True)
    assert sum(isinstance(one, UnknownInterrupt) for one in done) == 2
    await settled(house)
    assert (await house.shown_thread(thread))["values"]["answer"] == 0


async def test_who_answers_what_was_never_asked_is_refused(house, command):
    with pytest.raises(NoInterruptedRun):
        await command(await house.thread(), "respond", interrupt_id="x", response=1)
    thread = await house.thread()
    await house.run(thread)
    with pytest.raises(UnknownInterrupt):
        await command(thread, "respond", interrupt_id="x", response=1)
    assert await house.statuses(thread) == ["success"]


async def test_input_that_comes_while_a_run_goes_on_answers_what_that_run_asks(house, command):
    thread = await house.thread()
    await command(thread, "start", assistant_id="question", input={})
    await command(thread, "start", assistant_id="question", input="Ada")
    await settled(house)
    assert await house.statuses(thread) == ["success", "success"]
    assert (await house.shown_thread(thread))["values"]["answer"] == "Ada"


async def test_reject_is_told_at_once(house, command, graphs):
    thread = await house.thread()
    await command(thread, "start", assistant_id="gated", input={"gate": "g"})
    await house.at("g")
    async with asyncio.timeout(1):
        for key in ("multitaskStrategy", "multitask_strategy"):
            with pytest.raises(Conflict):
                await command(thread, "start", assistant_id="chain", input={}, **{key: "reject"})
    graphs.gates["g"].set()
    await settled(house)


async def test_a_run_that_goes_on_elsewhere_begins_once(open_house, graphs):
    house = await open_house()
    thread = await house.thread()
    await house.create(thread, "gated", input={"gate": "g"}, **KEPT)
    await house.at("g")
    await house.close()
    other = await open_house()
    await other.at("g")
    graphs.gates["g"].set()
    watcher = await Watcher.of(other, thread)
    assert await watcher.until_end() == ["running", "completed"]
    assert watcher.numbers == list(range(1, len(watcher.numbers) + 1))


async def test_the_other_protocol_shows_the_values_of_a_commands_run(house, command):
    thread = await house.thread()
    run_id, _ = await command(thread, "start", assistant_id="chain", input={"log": ["in"]})
    await settled(house)
    kept = await house.events.replay(thread, run_id, 0, 2**62)
    shown = [entry for entry in kept if entry.kind == "event"]
    assert [entry.name for entry in shown] == ["metadata", *["values"] * 4]
    assert loads(shown[-1].data) == {"log": ["in", "a", "b", "c"]}
    assert all(envelope_of(e).method != "metadata" for e in kept if e.seq is not None)


@pytest.mark.parametrize("is_unclear", [False, True])
async def test_an_end_is_told_behind_what_is_saved_again(house, monkeypatch, is_unclear):
    """A commit of what the run has told was lost: it comes before the end, or with it."""
    thread, surely, sent = await house.thread(), Execution._surely, []

    async def overtaking(execution: Any, end: Any) -> Any:
        def save_again() -> None:
            if not sent:
                sent.append(execution._append(Emission("custom", b"{}", numbered=True)))

        async def body(transaction: Any) -> Any:
            if not is_unclear:
                save_again()
            return await end(transaction)

        row = await surely(execution, body)
        save_again()
        return row

    monkeypatch.setattr(Execution, "_surely", overtaking)
    reader = await house.events.open_reader(thread, numbered=True)
    run = await house.create(thread, watch="end", **KEPT)
    assert (await house.outcome(run)).status == "success"
    told = list(await reader.next(1) or ())
    assert told.index(sent[0]) < len(told) - 1
    assert told[-1].kind == "end"
    if not is_unclear:
        numbers = [entry.seq for entry in told if entry.seq is not None]
        assert numbers == list(range(1, len(numbers) + 1))
    reader.close()
