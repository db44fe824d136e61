"""The rules of the queue, checked on every change that any process makes to a run.

Triggers write each change down, in the transaction that makes it; ``Rules`` goes through these
one by one and keeps a picture of its own. It raises ``AssertionError`` where a rule is broken.
"""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass
from typing import Any

from simulated_time import Clock

TABLES = (
    "runs", "threads", "workers", "events", "checkpoints", "checkpoint_values",
    "checkpoint_writes", "idempotency_keys", "changes",
)  # fmt: skip

TRIGGERS = """
CREATE TEMP TABLE changes (
    kind TEXT, run_id TEXT, thread_id TEXT, seq INTEGER, due INTEGER, strategy TEXT,
    before TEXT, status TEXT, attempt INTEGER, handed_back INTEGER, owner TEXT, writer TEXT,
    started_at INTEGER, has_lease INTEGER, temporary INTEGER);
CREATE TEMP TRIGGER run_inserted AFTER INSERT ON main.runs BEGIN
    INSERT INTO changes VALUES ('insert', NEW.run_id, NEW.thread_id, NEW.seq, NEW.created_at,
        NEW.multitask_strategy, NULL, NEW.status, NEW.attempt, 0, NEW.owner, writer(), 0, 0,
        NEW.temporary);
END;
CREATE TEMP TRIGGER run_updated AFTER UPDATE ON main.runs
WHEN OLD.status <> NEW.status OR OLD.attempt <> NEW.attempt BEGIN
    INSERT INTO changes VALUES ('update', NEW.run_id, NEW.thread_id, NEW.seq, NEW.created_at,
        NEW.multitask_strategy, OLD.status, NEW.status, NEW.attempt,
        NEW.handed_back, NEW.owner, writer(), NEW.started_at,
        EXISTS (SELECT 1 FROM workers WHERE owner = coalesce(NEW.owner, OLD.owner)), NEW.temporary);
END;
CREATE TEMP TRIGGER run_deleted AFTER DELETE ON main.runs BEGIN
    INSERT INTO changes VALUES ('delete', OLD.run_id, OLD.thread_id, OLD.seq, OLD.created_at,
        '', OLD.status, NULL, OLD.attempt, 0, OLD.owner, writer(), 0, 0,
        OLD.temporary);
END;
CREATE TEMP TRIGGER checkpoint_inserted AFTER INSERT ON main.checkpoints
WHEN NOT EXISTS (
    SELECT 1 FROM runs WHERE run_id = NEW.run_id AND status = 'running' AND owner = writer()
        AND attempt = json_extract(NEW.metadata, '$.attempt'))
BEGIN
    INSERT INTO changes (kind, run_id, writer) VALUES ('stray checkpoint', NEW.run_id, writer());
END;
"""

MOMENT_US = 2000
"""Timers go off a little after their time."""

# But for a run's last word, for those who watched it and were away when it was deleted.
LEFT_BEHIND = """
SELECT 'event' AS what, run_id FROM events WHERE run_id NOT IN (SELECT run_id FROM runs)
    AND NOT (kind = 'protocol' AND name = 'lifecycle' AND thread_id IN (
        SELECT thread_id FROM threads))
UNION ALL
SELECT 'counter', thread_id FROM event_counters
    WHERE thread_id NOT IN (SELECT thread_id FROM threads)
UNION ALL
SELECT 'checkpoint', run_id FROM checkpoints WHERE run_id NOT IN (SELECT run_id FROM runs)
"""


@dataclass
class Run:
    """A run as the changes tell of it."""

    run_id: str
    thread_id: str
    place: tuple[int, int]
    status: str = "pending"
    attempt: int = 0
    handed_back: int = 0
    is_doomed: bool = False
    """Its cancel had been answered when it was claimed."""
    owner: str | None = None

    @property
    def in_flight(self) -> bool:
        return self.status in ("pending", "running")


class Rules:
    """What has been accepted, in order, and what became of it.

    ``writer`` is the owner of the process whose turn it is.
    """

    writer = ""

    def __init__(self, connection: sqlite3.Connection, clock: Clock) -> None:
        self._connection, self._clock = connection, clock
        self.runs: dict[str, Run] = {}
        self.accepted: list[str] = []
        self.cancelled: set[str] = set()
        self.temporary: set[str] = set()
        self.keys: dict[object, str] = {}

    def check(self) -> None:
        """Take in what has changed, and look at the threads. No transaction may be open."""
        execute = self._connection.execute
        changes = execute("SELECT * FROM changes").fetchall()
        if not changes:
            return
        execute("DELETE FROM changes")
        for change in changes:
            getattr(self, f"_{change['kind'].replace(' ', '_')}")(change)
        threads = dict(execute("SELECT thread_id, status FROM threads").fetchall())
        busy = {run.thread_id for run in self.runs.values() if run.in_flight}
        assert busy == {thread_id for thread_id, status in threads.items() if status == "busy"}, (
            f"busy are {threads}, in flight is something on {busy}"
        )
        ownerless = [run for run in self.runs.values() if run.thread_id not in threads]
        assert not ownerless, f"{ownerless} have no thread"

    def name(self, run_id: str) -> str:
        """A run as schedules name it: by its place in the order of acceptance."""
        known = run_id in self.accepted
        return f"run {self.accepted.index(run_id)}" if known else "an unknown run"

    def in_flight(self) -> list[Run]:
        return [run for run in self.runs.values() if run.in_flight]

    def startable(self) -> list[Run]:
        """Runs that are due, for a moment already, and that no other run of the thread holds up."""
        due = self._clock.us - MOMENT_US
        return [
            run
            for run in self.runs.values()
            if run.status == "pending" and run.place[0] <= due and not self._others(run, "running")
        ]

    def _others(self, run: Run, status: str) -> list[Run]:
        return [
            other
            for other in self.runs.values()
            if other.thread_id == run.thread_id and other.status == status and other is not run
        ]

    # -- changes ---------------------------------------------------------------------------

    def _insert(self, change: Any) -> None:
        run = Run(change["run_id"], change["thread_id"], (change["due"], change["seq"]))
        assert (change["status"], change["attempt"]) == ("pending", 0)
        if change["strategy"] != "enqueue":
            # What has begun may have to go on, only to end.
            waiting = [other for other in self._others(run, "pending") if not other.attempt]
            assert not waiting, "a newcomer left others pending"
        if change["strategy"] == "reject":
            in_flight = self._others(run, "pending") + self._others(run, "running")
            assert not in_flight, "accepted, though others are in flight"
        self.runs[run.run_id] = run
        self.accepted.append(run.run_id)
        if change["temporary"]:
            self.temporary.add(run.thread_id)
        else:
            self.temporary.discard(run.thread_id)

    def _update(self, change: Any) -> None:
        run = self.runs[change["run_id"]]
        move = (change["before"], change["status"])
        assert change["before"] == run.status
        if move == ("pending", "running"):
            self._claimed(run, change)
        elif move == ("running", "pending"):
            self._given_up(run, change)
        elif run.status == "running":
            assert change["status"] in ("success", "error", "timeout", "interrupted")
            assert change["attempt"] == run.attempt
            assert change["writer"] == run.owner, "ended by one who does not own it"
            ended_well = change["status"] != "interrupted"
            assert not (run.is_doomed and ended_well), "executed though its cancel was accepted"
        else:
            assert move == ("pending", "interrupted"), f"{move} is no move of a run"
            assert run.attempt == 0, "ended where it waited to go on"
        run.status, run.attempt, run.owner = change["status"], change["attempt"], change["owner"]

    def _claimed(self, run: Run, change: Any) -> None:
        assert run.place[0] <= change["started_at"] <= self._clock.us, "claimed before it is due"
        assert change["has_lease"], "claimed by one who has no lease"
        assert change["owner"] == change["writer"]
        assert change["attempt"] == run.attempt + 1
        assert not self._others(run, "running"), "claimed beside another run of its thread"
        earlier = [other for other in self._others(run, "pending") if other.place < run.place]
        assert not earlier, "claimed before one that is due earlier"
        run.is_doomed = run.run_id in self.cancelled

    def _given_up(self, run: Run, change: Any) -> None:
        assert change["attempt"] == run.attempt
        if change["handed_back"] != run.handed_back:
            assert change["handed_back"] == run.handed_back + 1
            assert change["writer"] == run.owner, "handed back by one who does not own it"
            run.handed_back += 1
        elif change["writer"] != run.owner:
            assert not change["has_lease"], "taken from one who has a lease"

    def _delete(self, change: Any) -> None:
        del self.runs[change["run_id"]]

    def _stray_checkpoint(self, change: Any) -> None:
        raise AssertionError(f"{change['writer']} wrote a checkpoint of a run that it doesn't own")
