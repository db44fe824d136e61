"""Schedules: what clients and workers do, in any order, and what has to hold at every step.

A schedule is bytes, two for each step: hypothesis makes them up, and cuts one that fails down to
the shortest. Between steps each process goes as far as its schedule says, so that requests,
claims and ends meet in every order. At the end, all is let come to rest.
"""

from __future__ import annotations

import gc
import sqlite3
import sys
import tempfile
import traceback
import warnings
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, Phase, given, note, seed, settings
from hypothesis import strategies as st
from processes import SLOTS, Process, connect, simulated
from queue_rules import LEFT_BEHIND, TABLES, TRIGGERS, Rules
from simulated_time import Clock
from structlog.testing import capture_logs

from treadle.auth import ANYONE
from treadle.clock import SECOND_US
from treadle.errors import RequestError
from treadle.idempotency import IdempotencyKey
from treadle.runs.models import StatelessRunCreate, WatchedRunCreate

ONE_PROCESS = (
    "create", "create", "create", "create", "finish", "finish", "fail", "ask", "step", "event",
    "cancel", "cancel", "cancel all", "delete run", "delete thread", "join", "tick",
)  # fmt: skip
MORE_PROCESSES = (
    "create", "create", "create", "create", "finish", "finish", "fail", "step", "cancel",
    "delete run", "delete thread", "tick", "tick", "freeze", "mute", "recover", "recover",
    "kill", "close", "start", "start", "start",
)  # fmt: skip
STEPS = {"one process": ONE_PROCESS, "more processes": MORE_PROCESSES}
THREADS = ("00000000-0000-0000-0000-00000000000a", "00000000-0000-0000-0000-00000000000b")
STRATEGIES = ("enqueue", "enqueue", "reject", "interrupt", "rollback")
DELAYS_SECONDS = (0, 0, 0, 0, 1, 10)
TICKS_SECONDS = (0.001, 1, 5, 16, 3601)
GRACES_SECONDS = (0, 1)
KEYS = (None, None, None, "key")
WATCHES = ("end", "end", "events", "nothing")
MAX_PROCESSES = 3
ROUNDS_TO_REST = 20
ROUND_SECONDS = 16


class Dice:
    """The choices of one step, out of its two bytes."""

    def __init__(self, number: int) -> None:
        self._number = number

    def take(self, options: Any) -> Any:
        self._number, index = divmod(self._number, len(options))
        return options[index]


class World:
    """Processes over one database. ``told`` is what has happened."""

    def __init__(self, connection: sqlite3.Connection, clock: Clock, full: bool) -> None:
        self._connection, self._clock, self._full = connection, clock, full
        self.rules = Rules(connection, clock)
        self.started = 0
        self.processes: list[Process] = []
        self.told: list[str] = []

    # -- processes -------------------------------------------------------------------------

    def start(self) -> None:
        """Another process opens the database."""
        process = Process(self._clock, self._connection, self.started, self._full)
        self.started += 1
        self.processes.append(process)
        Rules.writer = process.owner
        process.open(alone=len(self.processes) == 1)

    def drop(self, process: Process) -> None:
        """A process ends, right where it is."""
        process.kill()
        self.processes.remove(process)

    def turn(self, process: Process, turns: int | None) -> None:
        """Let a process go on for some turns of its loop, or until it rests."""
        if process.is_frozen:
            return
        Rules.writer = process.owner
        if turns is None:
            process.settle()
        else:
            process.loop.turn(turns)
        if process.loop.errors:
            raise process.loop.errors[0]

    def tick(self, seconds: float) -> None:
        self._clock.us += int(seconds * SECOND_US)
        for process in self.processes:
            if not (process.is_frozen or process.is_mute):
                process.beat()

    # -- steps -----------------------------------------------------------------------------

    def play(self, schedule: bytes, steps: tuple[str, ...]) -> None:
        """Go through a schedule."""
        self.start()
        if steps is MORE_PROCESSES:
            self._begin_run(self.processes[0], Dice(0))
            self.turn(self.processes[0], None)
            self.start()
            self.rules.check()
            self.told.append("run 0 is created, on process 0; then process 1 is started")
        for at in range(0, len(schedule) - 1, 2):
            if not self.processes:
                self.start()
            dice = Dice(schedule[at] | schedule[at + 1] << 8)
            step = dice.take(steps)
            turns = dice.take((None, 0, 1, 2))
            process = dice.take(self.processes[::-1])
            done = self._begin(step, process, dice)
            until = "until it rests" if turns is None else f"{turns} turns"
            idle = dice.take((1, 0))
            self.told.append(f"process {process.name}: {done}; {until}, the others {idle}")
            for other in list(self.processes):
                self.turn(other, turns if other is process else idle)
            self.rules.check()
            if turns is None and self.started == 1 and process.worker.active < SLOTS:
                assert not self.rules.startable(), "a run that could have started by now"

    def _begin(self, step: str, process: Process, dice: Dice) -> str:
        """Begin what a step says; what that was."""
        if step == "create":
            return self._begin_run(process, dice)
        if step in ("finish", "fail", "ask", "step", "event"):
            if not (drives := process.drives()):
                return "nothing"
            drive = dice.take(drives)
            process.loop.call_now(drive.order, step)
            return f"{step} {self.rules.name(drive.claim.run_id)}"
        if step in ("join", "cancel", "delete run"):
            if not (runs := list(self.rules.runs.values())):
                return "nothing"
            run = dice.take(runs[::-1])
            place = run.thread_id, run.run_id
            if step == "delete run":
                process.do(process.service.delete(ANYONE, *place))
                return f"delete {self.rules.name(run.run_id)}"
            if step == "join":
                process.do(self._join(process, *place))
                return f"join {self.rules.name(run.run_id)}"
            how = dice.take(("interrupt", "rollback")), dice.take((False, True))
            process.do(self._cancel(process, *place, *how))
            return f"cancel {self.rules.name(run.run_id)} (action, wait: {how})"
        if step == "cancel all":
            how = dice.take(("pending", "running", "all")), dice.take(("interrupt", "rollback"))
            process.do(process.service.cancel_by_status(ANYONE, *how))
            return f"cancel {how}"
        if step == "delete thread":
            thread_id = dice.take(THREADS)
            process.do(process.threads.delete(ANYONE, thread_id))
            return f"delete thread {thread_id[-1]}"
        if step == "tick":
            seconds = dice.take(TICKS_SECONDS)
            self.tick(seconds)
            return f"{seconds} s pass"
        return self._befall(step, process, dice)

    def _befall(self, step: str, process: Process, dice: Dice) -> str:
        """What happens to a process as a whole."""
        if step == "start":
            if len(self.processes) == MAX_PROCESSES:
                return "nothing"
            self.start()
            return f"start {self.processes[-1].name}"
        if step == "kill":
            self.drop(process)
        elif step == "close" and not process.is_closing:
            process.close(dice.take(GRACES_SECONDS))
        elif step == "recover":
            process.is_frozen = process.is_mute = False
        else:
            process.is_frozen, process.is_mute = step == "freeze", True
        return step

    # -- requests --------------------------------------------------------------------------

    def _begin_run(self, process: Process, dice: Dice) -> str:
        """Somebody wants a run, on a thread or on one of its own, and waits for its end."""
        thread_id = dice.take((*THREADS, THREADS[0], None, *list(self.rules.temporary)[-1:]))
        watch, strategy, delay, resumable, key = (
            dice.take(WATCHES),
            dice.take(STRATEGIES),
            dice.take(DELAYS_SECONDS),
            dice.take((False, True)),
            dice.take(KEYS),
        )
        fields: dict[str, Any] = {
            "assistant_id": "graph",
            "multitask_strategy": strategy,
            "after_seconds": delay,
            "stream_resumable": resumable,
        }
        if thread_id is None:
            kept = "keep" if delay else "delete"
            body: Any = StatelessRunCreate(**fields, on_completion=kept)
        else:
            body = WatchedRunCreate(**fields, if_not_exists="create")
        made = IdempotencyKey("", key, str(thread_id)) if key else None
        process.do(self._run(process, thread_id, body, watch, made))
        return (
            f"create on {thread_id and thread_id[-4:]}: {strategy}, due in {delay} s,"
            f" resumable: {resumable}, watch: {watch}, key: {key}"
        )

    async def _run(
        self,
        process: Process,
        thread_id: str | None,
        body: Any,
        watch: Any,
        key: IdempotencyKey | None,
    ) -> None:
        created = await process.service.create(ANYONE, "", thread_id, body, watch, key)
        if key is not None:
            assert self.rules.keys.setdefault(key, created.run_id) == created.run_id
        if created.ended is None and watch != "nothing":
            await process.hear(created.reader, created.run_id)

    async def _join(self, process: Process, thread_id: str, run_id: str) -> None:
        reader, _, ended = await process.service.join(ANYONE, thread_id, run_id, events=False)
        if not ended:
            await process.hear(reader, run_id)
        reader.close()

    async def _cancel(
        self, process: Process, thread_id: str, run_id: str, action: Any, wait: bool
    ) -> None:
        place = ANYONE, thread_id, run_id, action
        cancel = process.service.cancel_watched if wait else process.service.cancel
        reader = await cancel(*place)
        self.rules.check()  # what was claimed until now, was claimed before this
        self.rules.cancelled.add(run_id)
        if reader is not None:
            await process.hear(reader, run_id)

    # -- the end ---------------------------------------------------------------------------

    def rest(self) -> None:
        """All trouble is over: every run comes to its end, and whoever waits hears of it."""
        self.told.append("all comes to rest")
        for _ in range(ROUNDS_TO_REST):
            for process in [process for process in self.processes if process.is_lost]:
                self.drop(process)
            if all(process.is_closing for process in self.processes):
                self.start()
            for process in self.processes:
                process.is_frozen = process.is_mute = False
                self.turn(process, None)
                for drive in process.drives():
                    process.loop.call_now(drive.order, "finish")
                self.turn(process, None)
            self.rules.check()
            if not self.rules.in_flight():
                break
            self.tick(ROUND_SECONDS)
        assert not self.rules.in_flight(), "runs that never end"
        for process in self.processes:
            for task in process.doings:
                error = task.exception() if task.done() else None
                if error is not None and not isinstance(error, RequestError):
                    raise error
        if self.started == 1:
            self._check_rest(self.processes[0])

    def _check_rest(self, process: Process) -> None:
        """What is true once one process alone has done all there was to do."""
        unheard = [self.rules.name(run_id) for run_id in process.unheard]
        assert not unheard, f"waiters that never hear of {unheard}"
        assert all(task.done() for task in process.doings), "requests that are never answered"
        left = [tuple(row) for row in self._connection.execute(LEFT_BEHIND)]
        threads = dict(self._connection.execute("SELECT thread_id, status FROM threads").fetchall())
        left += [("thread", thread_id) for thread_id in self.rules.temporary & threads.keys()]
        assert not left, f"left behind: {left}"


def simulate(
    connection: sqlite3.Connection,
    clock: Clock,
    schedule: bytes,
    steps: tuple[str, ...],
    full: bool,
) -> None:
    """Play one schedule, in a world of its own."""
    world = World(connection, clock, full)
    try:
        world.play(schedule, steps)
        world.rest()
    except BaseException:
        note("\n".join(world.told))
        raise
    finally:
        for process in world.processes:
            process.kill()
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        for table in TABLES:
            connection.execute(f"DELETE FROM {table}")


def simulate_many(kind: str, number: int, schedules: int) -> str | None:
    """Play many schedules of a kind; what went wrong, with the shortest schedule that shows it.

    ``number`` makes them others than those of another number. The steps of each are played twice:
    with commits on the event loop, and as with ``synchronous=full``. To be called in a process of
    its own.
    """
    unraisable: list[Any] = []
    sys.unraisablehook = unraisable.append
    with simulated() as clock, tempfile.TemporaryDirectory() as folder:
        connection = connect(Path(folder))
        connection.create_function("writer", 0, lambda: Rules.writer)
        connection.executescript(TRIGGERS)

        @seed(number)
        @settings(
            max_examples=schedules // 2,
            deadline=None,
            database=None,
            phases=[Phase.generate, Phase.shrink],
            suppress_health_check=list(HealthCheck),
        )
        @given(st.binary(min_size=8, max_size=40))
        def play(schedule: bytes) -> None:
            for full in (False, True):
                simulate(connection, clock, schedule, STEPS[kind], full)

        gc.freeze()
        try:
            with warnings.catch_warnings(), capture_logs():
                warnings.simplefilter("error")
                play()
        except BaseException:
            return traceback.format_exc()
        finally:
            connection.close()
    return str([hook.exc_value for hook in unraisable]) if unraisable else None
