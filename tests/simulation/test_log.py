"""The event log in any order of writing, reading, leaving, restarting, and clocks going wrong."""

from __future__ import annotations

import asyncio
import os
import sqlite3
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import HealthCheck, given, note, settings
from hypothesis import strategies as st
from processes import SharedDatabase, connect
from schedules import Dice
from simulated_time import Clock, TurnedLoop

from treadle.streaming import entries
from treadle.streaming import log as module
from treadle.streaming.entries import Entry
from treadle.streaming.log import EventHub, Reader, ThreadLog

SCHEDULES = int(os.environ.get("TREADLE_SCHEDULES", "10000")) // 10
STEPS = (
    "append", "append", "append", "append", "read", "read", "take", "take", "take", "leave",
    "leave", "hold", "release", "replay", "tick", "restart",
)  # fmt: skip
THREADS = ("thread 1", "thread 1", "thread 1", "thread 2")
RUNS = ("run 1", "run 2")
SIZES = (1, 10, 600)
TICKS_US = (1, 1000, 6000, 2_000_000, -5_000_000)
ENTRY_BYTES, TAKE_BYTES, LIMIT_BYTES, REPLAY_BYTES = 10, 300, 2000, 700
LAST = 2**62
LONGEST_REST_TURNS = 1000
TURNS_TO_HEAR = 5


class Audience:
    """One reader: what it should get, and what it has got."""

    def __init__(self, log: ThreadLog) -> None:
        self.reader: Reader = log.read()
        self.due: list[int] = []
        self.got: list[int] = []
        self.taking: asyncio.Task[Any] | None = None
        self.was_late = False

    @property
    def is_over(self) -> bool:
        """Whether it gets no more: it fell behind, or the process ends and it has got all."""
        return self.reader.cut_off or (self.reader.closed and self.got == self.due)

    def look(self) -> None:
        """Take in what ``next`` has given, if it has."""
        if self.taking is not None and self.taking.done():
            for entry in self.taking.result() or ():
                self.got.append(entry.id)
            self.taking = None
        assert self.was_late or not self.reader.cut_off, "cut off without need"
        assert self.got == self.due[: len(self.got)], "not what was appended since it registered"


class Logs:
    """The logs of one process after another, and all that should be known of them."""

    def __init__(self, connection: sqlite3.Connection, wall: Clock) -> None:
        self._wall, self._clock = wall, Clock()
        self._loop = TurnedLoop(self._clock)
        self._database = SharedDatabase(connection, self._loop, full=False)
        self.told: list[str] = []
        self.kept: dict[str, list[Entry]] = {thread_id: [] for thread_id in THREADS}
        self.last_ids = dict.fromkeys(THREADS, 0)
        self.audiences: dict[str, list[Audience]] = {thread_id: [] for thread_id in THREADS}
        self.left: list[Reader] = []
        self.held: dict[str, ThreadLog] = {}
        self.is_last = False
        self._open()

    def _open(self) -> None:
        self.hub = EventHub(self._database)
        self._await(self.hub.open())

    def _await(self, coroutine: Any) -> Any:
        task = self._loop.create_task(coroutine)
        while not task.done():
            assert self._loop.turn(), "it waits for what never comes"
        return task.result()

    def play(self, schedule: bytes) -> None:
        for at in range(0, len(schedule) - 1, 2):
            dice = Dice(schedule[at] | schedule[at + 1] << 8)
            step, thread_id = dice.take(STEPS), dice.take(THREADS)
            self.told.append(f"{step} {thread_id}")
            self._loop.call_now(self._step, step, thread_id, dice)
            self._loop.turn(TURNS_TO_HEAR if self.is_last else dice.take((0, 1, 3)))
            self._look()
            if self.is_last:
                late = [a for a in self.audiences[thread_id] if a.taking and not a.is_over]
                assert not late, "the last event of a run comes at once"
                self.is_last = False

    def _look(self) -> None:
        for audiences in self.audiences.values():
            for audience in audiences:
                audience.look()

    def _step(self, step: str, thread_id: str, dice: Dice) -> None:
        audiences = self.audiences[thread_id]
        if step == "append":
            self._append(thread_id, dice)
        elif step == "read":
            audiences.append(Audience(self.hub.log(thread_id)))
        elif step == "hold" and thread_id not in self.held:
            log = self.held[thread_id] = self.hub.log(thread_id)
            log.hold()
        elif step == "release" and thread_id in self.held:
            self.held.pop(thread_id).release()
        elif step == "tick":
            passed = dice.take(TICKS_US)
            self._wall.us += passed
            self._clock.us += max(passed, 0)  # the time of loops does not go back
        elif step in ("replay", "restart"):
            # These wait for the database, and turn the loop themselves.
            asyncio._set_running_loop(None)
            self._replay(thread_id, dice) if step == "replay" else self._restart()
        elif audiences:
            audience = dice.take(audiences)
            if step == "take" and audience.taking is None:
                audience.taking = self._loop.create_task(audience.reader.next(1.0))
            elif step == "leave":
                if audience.taking is not None:
                    audience.taking.cancel()
                audience.reader.close()
                audiences.remove(audience)
                self.left.append(audience.reader)
                dice.take(self.left).close()  # once more does no harm

    def _append(self, thread_id: str, dice: Dice) -> None:
        keep, run_id, size = dice.take((True, False)), dice.take(RUNS), dice.take(SIZES)
        last = self.is_last = dice.take((False, True))
        log = self.hub.log(thread_id)
        assert self.held.get(thread_id, log) is log, "a writer's log is no longer the one"
        entry = log.append(run_id, "event", "custom", b"x" * size, keep=keep, last=last)
        assert entry.id > self.last_ids[thread_id], "ids only grow"
        self.last_ids[thread_id] = entry.id
        if keep:
            self.kept[thread_id].append(entry)
        for audience in self.audiences[thread_id]:
            audience.due.append(entry.id)
            audience.was_late |= audience.reader.lag_bytes > LIMIT_BYTES

    def _replay(self, thread_id: str, dice: Dice) -> None:
        kept = self.kept[thread_id]
        run_id = dice.take((None, *RUNS))
        ids = [0, *(entry.id for entry in kept), LAST]
        after_given, until = sorted((dice.take(ids), dice.take(ids[::-1])))
        after = after_given
        found: list[Entry] = []
        while page := self._await(self.hub.replay(thread_id, run_id, after, until)):
            assert sum(len(entry.data) for entry in page[:-1]) < REPLAY_BYTES
            found += page
            assert after < page[-1].id
            after = page[-1].id
        wanted = [
            (entry.id, entry.run_id, entry.data)
            for entry in kept
            if after_given < entry.id <= until and run_id in (None, entry.run_id)
        ]
        assert [(entry.id, entry.run_id, entry.data) for entry in found] == wanted

    def _restart(self) -> None:
        """The process ends in good order, and the next one goes on."""
        self.hub.close()
        self._await(self._database.flush())
        self.rest()
        assert all(a.is_over for audiences in self.audiences.values() for a in audiences)
        for audiences in self.audiences.values():
            audiences.clear()
        self.held.clear()
        self.left.clear()
        # What was not kept is known to nobody any more.
        for thread_id, kept in self.kept.items():
            self.last_ids[thread_id] = kept[-1].id if kept else 0
        self._open()

    def rest(self) -> None:
        """Every reader comes to the end of what it should get, or to where it was cut off."""
        for audiences in self.audiences.values():
            for audience in audiences:
                for _ in range(LONGEST_REST_TURNS):
                    if audience.is_over or len(audience.got) == len(audience.due):
                        break
                    if audience.taking is None:
                        audience.taking = self._loop.create_task(audience.reader.next(1.0))
                    if not self._loop.turn():
                        self._clock.us += 10_000
                    audience.look()
                else:
                    raise AssertionError("a reader that does not hear all")
                assert all(one < other for one, other in pairwise(audience.got))

    def end(self) -> None:
        self._loop.end()


@pytest.fixture(scope="module")
def connection(tmp_path_factory: pytest.TempPathFactory) -> Iterator[sqlite3.Connection]:
    connection = connect(tmp_path_factory.mktemp("log"))
    yield connection
    connection.close()


@settings(
    max_examples=SCHEDULES,
    deadline=None,
    database=None,
    derandomize=True,
    suppress_health_check=list(HealthCheck),
)
@given(schedule=st.binary(min_size=10, max_size=80))
def test_every_reader_gets_what_was_appended_since_it_came(
    connection: sqlite3.Connection, schedule: bytes
) -> None:
    wall = Clock()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "time", wall)
        patch.setattr(entries, "ENTRY_BYTES", ENTRY_BYTES)
        patch.setattr(module, "TAKE_BYTES", TAKE_BYTES)
        patch.setattr(module, "READER_LIMIT_BYTES", LIMIT_BYTES)
        patch.setattr(module, "REPLAY_BYTES", REPLAY_BYTES)
        logs = Logs(connection, wall)
        try:
            logs.play(schedule)
            logs.rest()
        except BaseException:
            note("\n".join(logs.told))
            raise
        finally:
            logs.end()
            connection.execute("DELETE FROM events")
