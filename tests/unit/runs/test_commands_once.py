"""What a run is given counts once, wherever its first attempt is cut off."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from treadle.checkpoints.run_saver import RunSaver
from treadle.database import Transaction
from treadle.runs.execution import Execution

NEVER = 99


class Cut:
    """Cuts an attempt off at its ``nth`` put, as a crash does: nothing is written after it.

    An attempt that puts less often is cut off when all it does is to end.
    """

    def __init__(self, patch: pytest.MonkeyPatch, nth: int, when: str) -> None:
        self.puts, self.struck, self.over = 0, asyncio.Event(), asyncio.Event()
        put = RunSaver._put

        async def counted(saver: RunSaver, *rows: Any) -> None:
            if self.struck.is_set():
                await self._strike()
            self.puts += 1
            if self.puts == nth and when == "before":
                await self._strike()
            await put(saver, *rows)
            if self.puts == nth:
                await self._strike()

        async def ended(execution: Execution) -> None:
            await self._strike()

        patch.setattr(RunSaver, "_put", counted)
        patch.setattr(Execution, "_end", ended)

    async def _strike(self) -> None:
        self.struck.set()
        await self.over.wait()
        raise asyncio.CancelledError


async def attempt(house: Any, run: Any, number: int) -> Execution:
    """Claim a run by hand, as the attempt of that number."""

    async def body(transaction: Transaction) -> Any:
        return await transaction.fetch_one(
            "UPDATE runs SET status = 'running', attempt = :n, started_at = 1"
            " WHERE run_id = :r RETURNING *, attempt AS tries",
            {"r": run.run_id, "n": number},
        )

    return Execution(await house.database.write(body), house.rooms)


def open_ids(thread: Any) -> list[str]:
    """What is open, in the order of the questions' texts."""
    asked = [one for some in thread["interrupts"].values() for one in some]
    return [one["id"] for one in sorted(asked, key=lambda one: one["value"])]


def answers(*given: str) -> Any:
    """A resume that names each of the first open questions."""
    return lambda thread: {"command": {"resume": dict(zip(open_ids(thread), given, strict=False))}}


def with_strict(fields: Any) -> Any:
    return lambda thread: {**fields(thread), "strict_resume": True}


def command(**given: Any) -> Any:
    return lambda thread: {"command": given}


def also(fields: Any, **given: Any) -> Any:
    return lambda thread: {"command": {**fields(thread)["command"], **given}}


START = {"input": {}}
TOLD = {"log": ["told"]}
SENT = {"node": "b", "input": {}}

# The graph, what comes before, the run that is cut off, and what comes after.
CASES: dict[str, tuple[str, list[Any], Any, list[Any]]] = {
    "input": ("chain", [START], {"input": {"log": ["in"]}}, []),
    "answer": ("question", [START], command(resume="x"), []),
    "first of two answers": ("twice", [START], command(resume="x"), [command(resume="y")]),
    "named first of two answers": ("twice", [START], answers("x"), [answers("y")]),
    "second of two answers": ("twice", [START, command(resume="x")], command(resume="x"), []),
    "first of two answers below": ("nested", [START], command(resume="x"), [command(resume="y")]),
    "named answer below": ("nested", [START], answers("x"), [answers("y")]),
    "strict answer below": ("nested", [START], with_strict(answers("x")), [answers("y")]),
    "one of several": ("questions", [START], answers("x"), [answers("y")]),
    "one of several, strict": ("questions", [START], with_strict(answers("x")), [answers("y")]),
    "all of several": ("questions", [START], answers("x", "y"), []),
    "empty answer": ("question", [START], command(resume={}), []),
    "update that adds up": ("questions", [START], command(update=TOLD), [answers("x", "y")]),
    "update that is refused twice": (
        "questions", [START], command(update={"answer": 1}), [answers("x", "y")],
    ),
    "update beside others": (
        "questions", [START, command(update=TOLD)], command(update=TOLD), [answers("x", "y")],
    ),
    "answer and update": (
        "twice", [START], command(resume="x", update=TOLD), [command(resume="y")],
    ),
    "named answer and update": (
        "questions", [START], also(answers("x"), update={"answer": 1, **TOLD}), [answers("y")],
    ),
    "update of an ended thread": ("chain", [START], command(update=TOLD), [START]),
    "update after an update": (
        "chain", [START, command(update=TOLD)], command(update=TOLD), [START],
    ),
    "goto": ("chain", [START], command(goto="b"), []),
    "goto after an update": (
        "chain",
        [START, command(update={"answer": 1})],
        command(update={"answer": 2}, goto="c"),
        [],
    ),
    "send": ("chain", [START], command(goto=[SENT, SENT]), []),
    "goto beside a question": ("questions", [START], command(goto="one"), [answers("x", "y")]),
    "send beside a question": (
        "questions", [START], command(goto={"node": "one", "input": {}}), [],
    ),
}  # fmt: skip


async def play(house: Any, thread: str, graph: str, steps: list[Any], **more: Any) -> None:
    for fields in steps:
        run = await create(house, thread, graph, fields, **more)
        await (await attempt(house, run, 1)).start()


async def create(house: Any, thread: str, graph: str, fields: Any, **more: Any) -> Any:
    if callable(fields):
        fields = {"input": None, **fields(await house.shown_thread(thread))}
    return await house.create(thread, graph, **fields, **more)


async def told(house: Any, thread: str) -> Any:
    """How a thread is: its runs, its values, and what it asks."""
    shown = await house.shown_thread(thread)
    values = {**shown["values"], "log": sorted(shown["values"].get("log", []))}
    asked = sorted(one["value"] for some in shown["interrupts"].values() for one in some)
    return await house.statuses(thread), shown["status"], shown["error"], values, asked


async def cut_off(
    house: Any, case: str, durability: str, nth: int, when: str
) -> tuple[bool, list[Any]]:
    """Whether an attempt was cut off there; the thread after the next one, and at last."""
    graph, before, fields, after = CASES[case]
    thread = await house.thread()
    await play(house, thread, graph, before)
    run = await create(house, thread, graph, fields, durability=durability)
    with pytest.MonkeyPatch.context() as patch:
        cut = Cut(patch, nth, when)
        task = (await attempt(house, run, 1)).start()
        await asyncio.wait_for(cut.struck.wait(), 5)
        task.cancel()
        cut.over.set()
        await asyncio.wait([task], timeout=5)
        assert task.done()
    await house.database.flush()
    await (await attempt(house, run, 2)).start()
    found = [await told(house, thread)]
    await play(house, thread, graph, after)
    found.append(await told(house, thread))
    return cut.puts >= nth, found


@pytest.mark.parametrize("durability", ["sync", "async", "exit"])
@pytest.mark.parametrize("case", CASES)
async def test_it_counts_once_wherever_the_attempt_is_cut_off(open_house, graphs, case, durability):
    house = await open_house(work=False)
    graph, before, fields, after = CASES[case]
    thread = await house.thread()
    await play(house, thread, graph, [*before, fields])
    expected = [await told(house, thread)]
    await play(house, thread, graph, after)
    expected.append(await told(house, thread))
    wrong: list[Any] = []
    for nth in range(1, NEVER):
        for when in ("before", "after"):
            was_cut, found = await cut_off(house, case, durability, nth, when)
            if found != expected:
                wrong.append(((nth, when) if was_cut else "ending", found))
        if not was_cut:
            break
    assert wrong == [], f"not {expected}"
