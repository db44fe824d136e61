"""A context: a thread, and which of its runs are which task.

A task is the run that a message started, and those that went on with it after its questions were
answered. Runs that the runs API made are tasks of their own. In ``metadata.a2a`` of a run is
``task_start_id``, which the message of a task's first run has too; ``task_id``, if the run goes on
with that task; and ``continued``, once another run does.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, cast

from treadle.a2a.errors import invalid, task_not_found
from treadle.a2a.messages import MARK
from treadle.a2a.queries import CONTEXT, IN_ORDER, THREAD_OF
from treadle.auth import Caller, authorize
from treadle.clock import iso
from treadle.database import Database, Row
from treadle.errors import Invalid
from treadle.ids import parse_id
from treadle.serialization import loads
from treadle.threads.access import restricted
from treadle.threads.queries import EXISTS

Json = dict[str, Any]

STATES = {
    "pending": "submitted",
    "running": "working",
    "error": "failed",
    "timeout": "failed",
    "interrupted": "canceled",
}
TERMINAL = ("completed", "failed", "canceled")


def mark_of_run(run: Row) -> Json:
    """What ``metadata.a2a`` says of a run."""
    mark = loads(run["metadata"]).get(MARK)
    return cast("Json", mark) if isinstance(mark, dict) else {}


class Task(NamedTuple):
    """A task: its context, its first run, and the last of its runs."""

    context: Context
    run_id: str
    last: Row

    @property
    def id(self) -> str:
        return f"{self.context.thread_id}:{self.run_id}"

    @property
    def start_id(self) -> str | None:
        """What its message is marked with; None if no message began it."""
        return self.context.start_of(self.run_id)

    @property
    def is_newest(self) -> bool:
        """Whether nothing was started on the context since its last run."""
        return self.context.runs[-1]["run_id"] == self.last["run_id"]

    @property
    def waits(self) -> bool:
        """Whether it has asked something, and waits for the answer."""
        asks = self.context.status == "interrupted"
        return asks and self.is_newest and self.last["status"] == "success"

    @property
    def state(self) -> str:
        if self.waits:
            return "input-required"
        return STATES.get(self.last["status"], "completed")

    @property
    def is_terminal(self) -> bool:
        return self.state in TERMINAL

    @property
    def timestamp(self) -> str:
        return iso(self.last["updated_at"])


class Context:
    """A thread and its runs, in their order."""

    def __init__(self, rows: Sequence[Row]) -> None:
        self._thread = rows[-1]
        self.thread_id: str = self._thread["thread_id"]
        self.status: str = self._thread["thread_status"]
        self.interrupts: str | None = self._thread["interrupts"]
        self.runs = [row for row in rows if row["run_id"] is not None]
        self._first: dict[str, str] = {}
        self._last: dict[str, Row] = {}
        self._by_start: dict[str, str] = {}
        for run in self.runs:
            mark = mark_of_run(run)
            run_id = first = run["run_id"]
            if isinstance(task_id := mark.get("task_id"), str):
                first = task_id.rpartition(":")[2]
            elif isinstance(start := mark.get("task_start_id"), str):
                # Runs of the runs API inherit it from the thread, after the run that it is of.
                self._by_start.setdefault(start, run_id)
            self._first[run_id] = first
            self._last[first] = run

    @property
    def values(self) -> Any:
        """The latest values of the thread."""
        text = self._thread["state_values"]
        return None if text is None else loads(text)

    @property
    def questions(self) -> list[Json]:
        """What the thread waits for: interrupts with their ids and values."""
        waiting: dict[str, list[Json]] = loads(self.interrupts or "{}")
        return [question for asked in waiting.values() for question in asked]

    def task(self, run_id: str) -> Task | None:
        """The task that a run belongs to."""
        first = self._first.get(run_id)
        return None if first is None else Task(self, first, self._last[first])

    @property
    def waiting(self) -> Task | None:
        """The task that waits for an answer."""
        task = self.task(self.runs[-1]["run_id"]) if self.runs else None
        return task if task is not None and task.waits else None

    def start_of(self, run_id: str) -> str | None:
        """The start id of the task whose first run this is."""
        return next((start for start, first in self._by_start.items() if first == run_id), None)

    def task_id_of(self, start: str | None) -> str | None:
        """The id of the task that has this start id."""
        run_id = None if start is None else self._by_start.get(start)
        return None if run_id is None else f"{self.thread_id}:{run_id}"


class Contexts:
    """Reads contexts and finds tasks, as far as the caller may see them."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def read(self, caller: Caller, thread_id: str) -> Context | None:
        """The context; None if there is none that the caller may see."""
        allowed = await authorize(caller, "threads", "read", {"thread_id": thread_id})
        sql, params = restricted(self._database.dialect, CONTEXT, thread_id, allowed)
        rows = await self._database.scan(f"{sql} {IN_ORDER}", params)
        return Context(rows) if rows else None

    async def find(
        self, caller: Caller, assistant_id: str, task_id: str, context_id: str | None = None
    ) -> Task:
        """The task of an assistant. Raises an ``RpcError``."""
        place = await self._place(task_id, context_id)
        if place is not None:
            context = await self.read(caller, place[0])
            task = None if context is None else context.task(place[1])
            if task is not None and task.last["assistant_id"] == assistant_id:
                return task
        raise task_not_found(task_id, context_id)

    async def check_update(self, caller: Caller, task: Task) -> None:
        """Raise an ``RpcError`` unless the caller may change what the task stands for."""
        thread_id = task.context.thread_id
        allowed = await authorize(caller, "threads", "update", {"thread_id": thread_id})
        sql, params = restricted(self._database.dialect, EXISTS, thread_id, allowed)
        if await self._database.read_one(sql, params) is None:
            raise task_not_found(task.id, None)

    async def _place(self, task_id: str, context_id: str | None) -> tuple[str, str] | None:
        """The thread and the run that a task's id names: both of them, or the run alone."""
        thread, _, run = task_id.rpartition(":")
        try:
            run_id = parse_id(run, "run")
            named = parse_id(thread, "thread") if thread else None
            within = None if context_id is None else parse_id(context_id, "thread")
        except Invalid:
            return None
        if named is None and within is None:
            row = await self._database.read_one(THREAD_OF, {"run_id": run_id})
            return None if row is None else (row["thread_id"], run_id)
        if named is not None and within is not None and named != within:
            return None
        return named or within or "", run_id


def parse_context_id(context_id: str) -> str:
    """A context's id as the thread's that it is."""
    try:
        return parse_id(context_id, "thread")
    except Invalid as error:
        raise invalid(f"Failed to create run: {error}") from None


def start_mark(task_start_id: str) -> Mapping[str, Any]:
    """The metadata of a task's first run."""
    return {MARK: {"task_start_id": task_start_id}}


def next_mark(task: Task) -> Mapping[str, Any]:
    """The metadata of a run that goes on with a task."""
    return {MARK: {"task_id": task.id, "task_start_id": task.start_id}}


def continued_mark(task: Task) -> Json:
    """The metadata of a task's last run, once another one goes on with it."""
    metadata: Json = loads(task.last["metadata"])
    return {**metadata, MARK: {**mark_of_run(task.last), "continued": True}}


CONTINUED: Json = {MARK: {"continued": True}}
"""What metadata of such a run contains."""
