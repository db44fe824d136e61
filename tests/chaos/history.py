"""What clients did and were told, and what must follow from it.

Each client notes every call with the time before and after. A call whose answer was lost may or
may not have taken effect; one that was acknowledged has. All times are of the monotonic clock,
as in the journal.
"""

from __future__ import annotations

import json
import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from arena import Books, Visit, overlaps

NEEDLE = re.compile(rb"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}|c[0-9]+n[0-9]+:")
SLACK_NS = 400_000_000
"""How long after a cancel's answer a run may still begin a node: it takes a moment to hear it."""
OUTAGE_NS = 3_000_000_000
"""How long after an outage a process may take to hear of what it missed."""
NODES = {
    "steps": ["one", "two", "three"],
    "fan": ["open", "left", "right", "close"],
    "ask": ["before"],
    "stubborn": ["cling"],
}
SIDE_BY_SIDE = frozenset({"left", "right"})
ENDS = {"completed", "failed", "interrupted"}
IN_FLIGHT = ("pending", "running")
NOTHING_TO_RESUME = "the thread has no checkpoint to resume from"


@dataclass
class Call:
    """One call: ``status`` is None if the answer was lost."""

    client: int
    what: str
    thread: str
    run: str = ""
    token: str = ""
    strategy: str = ""
    action: str = ""
    delayed: bool = False
    begun: int = 0
    ended: int = 0
    status: int | None = None
    told: Any = None

    @property
    def acknowledged(self) -> bool:
        return self.status is not None and 200 <= self.status < 300

    @property
    def possible(self) -> bool:
        return self.status is None or self.acknowledged


@dataclass
class History:
    """All calls, and where the last of them has left the database."""

    calls: list[Call]
    visits: Sequence[Visit]
    books: Books
    graphs: dict[str, str]
    """The graph of each thread."""
    outages: Sequence[tuple[int, int]] = ()
    """When the database was not there: nobody heard of anything until its end."""
    runs: dict[str, dict[str, Any]] = field(init=False)
    threads: dict[str, dict[str, Any]] = field(init=False)

    def __post_init__(self) -> None:
        self.runs = {row["run_id"]: row for row in self.books.rows("SELECT * FROM runs")}
        self.threads = {row["thread_id"]: row for row in self.books.rows("SELECT * FROM threads")}
        self.created = {c.run: c for c in self.calls if c.what == "create" and c.run}
        self._of_thread: dict[str, list[Call]] = defaultdict(list)
        for call in self.calls:
            self._of_thread[call.thread].append(call)
        self._visits: dict[str, list[Visit]] = defaultdict(list)
        for visit in self.visits:
            self._visits[visit.run].append(visit)
        self._places: dict[str, set[str]] = defaultdict(set)
        for place, text in self.books.texts():
            for found in NEEDLE.findall(text):
                self._places[found.decode()].add(place)

    def _traces(self, *needles: str) -> list[str]:
        """Where one of ``needles`` occurs: ids, and tokens with a colon."""
        return [f"{n} in {place}" for n in needles for place in sorted(self._places.get(n, ()))]

    def faults(self) -> list[str]:
        """Everything that is not as it has to be."""
        return [
            *(f"overlap: {found}" for found in overlaps(self.visits, SIDE_BY_SIDE)),
            *self.books.faults(),
            *self._missing(),
            *self._not_ended_once(),
            *self._not_stopped(),
            *self._out_of_order(),
            *self._statuses_that_changed(),
            *(fault for thread in self.graphs for fault in self._wrong_log(thread)),
        ]

    # -- what was acknowledged is there, what was removed is not ---------------------------

    def _missing(self) -> Iterator[str]:
        for call in self.calls:
            if not call.acknowledged:
                continue
            gone = call.thread not in self.threads
            if call.what == "thread" and gone and not self._deleted(call.thread):
                yield f"a thread is lost: {call}"
            if call.what == "delete thread" and (not gone or self._traces(call.thread)):
                yield f"a deleted thread has left {self._traces(call.thread)}: {call}"
            if call.what == "delete run":
                # Why the thread's last run ended stays with the thread, and may name the run.
                traces = [t for t in self._traces(call.run) if "threads.error" not in t]
                if call.run in self.runs or traces:
                    yield f"a deleted run has left {traces}: {call}"
        for run, call in self.created.items():
            if run in self.runs or self._deleted(call.thread):
                continue
            if any(c.what == "delete run" and c.run == run and c.possible for c in self.calls):
                continue
            if not any(self._rolls_back(c, call) for c in self._of_thread[call.thread]):
                yield f"a run is lost: {call}"
            if traces := self._traces(run, f"{call.token}:"):
                yield f"a rollback has left {traces}: {call}"

    def _deleted(self, thread: str) -> bool:
        return any(c.what == "delete thread" and c.possible for c in self._of_thread[thread])

    @staticmethod
    def _rolls_back(call: Call, target: Call) -> bool:
        """Whether ``call`` can have been the one that rolled ``target`` back."""
        if not call.possible or call.ended < target.begun:
            return False
        if call.what == "cancel":
            return call.run == target.run and call.action == "rollback"
        return call.what == "create" and call is not target and call.strategy == "rollback"

    def _came_too_late(self, row: Any) -> bool:
        """Whether a run was to resume what somebody took away before it began."""
        takers = (c for c in self._of_thread[row["thread_id"]] if c.possible)
        return NOTHING_TO_RESUME in str(row["error"]) and any(
            c.what == "delete run" or "rollback" in (c.action, c.strategy) for c in takers
        )

    # -- ends ------------------------------------------------------------------------------

    def _not_ended_once(self) -> Iterator[str]:
        for run, row in self.runs.items():
            if row["status"] in IN_FLIGHT:
                yield f"run {run} is {row['status']} for ever"
            elif row["status"] in ("error", "timeout") and not self._came_too_late(row):
                yield f"run {run} has failed: {row['error']}"
        kept: dict[str, list[str]] = defaultdict(list)
        told: dict[str, list[str]] = defaultdict(list)
        for event in self.books.rows("SELECT run_id, kind, name, label FROM events ORDER BY id"):
            if event["kind"] != "protocol":
                kept[event["run_id"]].append(event["kind"])
            elif event["name"] == "lifecycle":
                told[event["run_id"]].append(event["label"])
        for run, kinds in kept.items():
            if kinds.count("end") != 1 or kinds[-1] != "end":
                yield f"the kept events of run {run} are {Counter(kinds)}, the last {kinds[-1]}"
        for run, states in told.items():
            if states[-1] not in ENDS or len(ENDS.intersection(states)) != 1 or len(states) > 2:
                yield f"run {run} was told to be {states}"

    def _not_stopped(self) -> Iterator[str]:
        """Runs that went on although it was acknowledged that they were ended."""
        for call in self.calls:
            if not call.acknowledged:
                continue
            if call.what in ("delete run", "delete thread"):
                targets = [c for c in self._of_thread[call.thread] if c.what == "create"]
                targets = [c for c in targets if call.what == "delete thread" or c.run == call.run]
            elif call.what == "cancel":
                targets = [c for c in self._of_thread[call.thread] if c.what == "create"]
                targets = [c for c in targets if c.run == call.run]
                row = self.runs.get(call.run)
                if row is not None and (
                    call.action == "rollback" or row["status"] != "interrupted"
                ):
                    yield f"run is {row['status']} after {call}"
            elif call.what == "create" and call.strategy in ("interrupt", "rollback"):
                targets = [
                    c
                    for c in self._of_thread[call.thread]
                    if c.what == "create" and c.acknowledged and c.ended < call.begun
                ]
            else:
                continue
            for target in targets:
                for visit in self._visits[target.run] if target.run else ():
                    if visit.start > self._heard_by(call.ended):
                        yield f"{visit.node} of {target} began after {call}"

    def _heard_by(self, told: int) -> int:
        """When everybody has heard of what was told at a time."""
        heard = told + SLACK_NS
        for begun, ended in sorted(self.outages):
            if begun <= heard and told <= ended:
                heard = max(heard, ended + OUTAGE_NS)
        return heard

    # -- order -----------------------------------------------------------------------------

    def _out_of_order(self) -> Iterator[str]:
        first = {run: visits[0].start for run, visits in self._visits.items() if visits}
        for calls in self._of_thread.values():
            runs = [c for c in calls if c.what == "create" and c.run in first and not c.delayed]
            for one in runs:
                for other in runs:
                    accepted_before = one.acknowledged and one.ended < other.begun
                    if accepted_before and first[one.run] > first[other.run]:
                        yield f"{other}\n  began before {one}"

    def _statuses_that_changed(self) -> Iterator[str]:
        seen: dict[str, list[Call]] = defaultdict(list)
        for call in sorted(self.calls, key=lambda call: call.begun):
            if call.what == "get run" and call.told and call.told not in IN_FLIGHT:
                seen[call.run].append(call)
        for run, calls in seen.items():
            told = {call.told for call in calls}
            if run in self.runs:
                told.add(self.runs[run]["status"])
            if len(told) > 1:
                yield f"run {run} has ended as {told}"

    # -- states ----------------------------------------------------------------------------

    def _wrong_log(self, thread: str) -> Iterator[str]:
        """The log of a thread tells of each run what its end promises, in order."""
        calls = self._of_thread[thread]
        if any(c.what == "delete run" and c.possible for c in calls):
            return  # what later runs have built on a deleted one stays
        if thread not in self.threads:
            return
        values = json.loads(self.threads[thread]["state_values"] or "{}") or {}
        log: list[str] = values.get("log", [])
        for entry, count in Counter(log).items():
            if count > 1:
                yield f"{entry} is {count} times in the log of {thread}: {log}"
        places: dict[str, list[int]] = defaultdict(list)
        for place, entry in enumerate(log):
            places[entry.partition(":")[0]].append(place)
        for call in calls:
            nodes = {entry.partition(":")[2] for entry in log if entry.startswith(f"{call.token}:")}
            if call.what == "update" and call.acknowledged and not nodes:
                yield f"an update is lost: {call}, {log}"
            if call.what != "create" or not call.token or call.told == "resume":
                continue
            row = self.runs.get(call.run)
            lacking = set(NODES[self.graphs[thread]]) - nodes
            if row is not None and row["status"] == "success" and lacking:
                yield f"{lacking} of a run that succeeded are not in {log}: {call}"
        writers = [
            c
            for c in calls
            if c.what in ("create", "update") and c.token in places and not c.delayed
        ]
        for one in writers:
            for other in writers:
                accepted_before = one.acknowledged and one.ended < other.begun
                if accepted_before and places[one.token][0] > places[other.token][0]:
                    yield f"{other.token} is before {one.token} in {log}"
