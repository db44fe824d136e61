"""What may be asked of runs, and who may ask. Nothing here changes anything."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Any

from treadle.auth import Caller, Filter, authorize, narrowed
from treadle.database import Row
from treadle.errors import NotFound
from treadle.runs import queries
from treadle.runs.created import started_run_json
from treadle.runs.outcome import Outcome, output_json
from treadle.runs.rooms import Rooms
from treadle.serialization import dumps, fragment, loads
from treadle.streaming.entries import LAST_ID
from treadle.streaming.log import Reader
from treadle.threads.access import not_found, restricted

Json = dict[str, Any]
_ANY_ANSWER: Json = {"value": None, "id": None, "response_schema": None}


class RunReading:
    """Runs as they are, and readers of what becomes of them."""

    def __init__(self, rooms: Rooms) -> None:
        self._rooms = rooms
        self._database = rooms.database

    async def check_thread(self, caller: Caller, thread_id: str) -> None:
        """Raise ``NotFound`` unless the caller may see the thread."""
        visible = await authorize(caller, "threads", "read", {"thread_id": thread_id})
        if not await self.is_visible(thread_id, visible):
            raise not_found(thread_id)

    async def is_visible(self, thread_id: str, visible: Filter | None) -> bool:
        """Whether the thread is there, and the filter lets it through."""
        sql, params = restricted(self._database.dialect, queries.THREAD_EXISTS, thread_id, visible)
        return await self._database.read_one(sql, params) is not None

    async def may_watch(
        self, caller: Caller, thread_id: str
    ) -> Callable[[], Awaitable[bool]] | None:
        """Make sure that the caller may see the thread, which need not be there yet.

        The answer says whether they may see what is there by then; None if they may see any
        thread. Raises ``NotFound``.
        """
        visible = await authorize(caller, "threads", "read", {"thread_id": thread_id})
        if visible is None:
            return None
        may_see = partial(self.is_visible, thread_id, visible)
        if not await may_see() and await self.is_visible(thread_id, None):
            raise not_found(thread_id)
        return may_see

    async def assistant_of(self, caller: Caller, thread_id: str) -> str | None:
        """The assistant of the thread's last run; None if there is none, or no such thread."""
        return (await self._thread_metadata(caller, thread_id)).get("assistant_id")

    async def graph_of(self, caller: Caller, thread_id: str) -> str | None:
        """The graph of the thread's last run; None if there is none, or no such thread."""
        return (await self._thread_metadata(caller, thread_id)).get("graph_id")

    async def _thread_metadata(self, caller: Caller, thread_id: str) -> Json:
        visible = await authorize(caller, "threads", "read", {"thread_id": thread_id})
        dialect = self._database.dialect
        sql, params = restricted(dialect, queries.THREAD_FOR_RUN, thread_id, visible)
        row = await self._database.read_one(sql, params)
        return {} if row is None else loads(row["metadata"])

    async def get(self, caller: Caller, thread_id: str, run_id: str) -> Json:
        """A run. Raises ``NotFound``."""
        await self.check_thread(caller, thread_id)
        return started_run_json(await self._row(thread_id, run_id), self._rooms.url)

    async def _row(self, thread_id: str, run_id: str) -> Row:
        row = await self._database.read_one(queries.RUN, {"thread_id": thread_id, "run_id": run_id})
        if row is None:
            raise NotFound(f"Run {run_id} not found on thread {thread_id}")
        return row

    async def list(
        self, caller: Caller, thread_id: str, *, limit: int, offset: int, status: str | None
    ) -> list[Json]:
        """The runs of a thread, newest first."""
        readable = await authorize(caller, "threads", "read", {"thread_id": thread_id})
        value: Json = {"thread_id": thread_id, "metadata": {}}
        searchable = await authorize(caller, "threads", "search", value)
        if not await self.is_visible(thread_id, narrowed(readable, searchable)):
            raise not_found(thread_id)
        rows = await self._database.read_all(
            queries.LIST_RUNS,
            {"thread_id": thread_id, "limit": limit, "offset": offset, "status": status},
        )
        return [started_run_json(row, self._rooms.url) for row in rows]

    async def in_flight(self, thread_metadata: Json) -> Sequence[tuple[str, str]]:
        """The runs in flight on threads with this metadata: their threads' ids, and their own.

        For the server itself: what is done with them has yet to pass the gate.
        """
        condition, params = self._database.dialect.json_contains(
            "threads.metadata", thread_metadata, "metadata"
        )
        sql = queries.IN_FLIGHT_WITH.format(condition=condition)
        rows = await self._database.read_all(sql, params)
        return [(row["thread_id"], row["run_id"]) for row in rows]

    async def join(
        self, caller: Caller, thread_id: str, run_id: str, *, events: bool
    ) -> tuple[Reader, Row, bool]:
        """A reader from now on, the run's row, and whether the run has ended.

        Up to the reader's ``start_id``, what was kept of the run is in the database. The reader
        is registered before the row is read, so no end is missed between.
        """
        visible = await authorize(caller, "threads", "read", {"thread_id": thread_id})
        return await self.join_visible(thread_id, run_id, visible, events=events)

    async def join_visible(
        self, thread_id: str, run_id: str, visible: Filter | None, *, events: bool
    ) -> tuple[Reader, Row, bool]:
        """``join`` on a thread that the filter lets through."""
        if not await self.is_visible(thread_id, visible):
            raise not_found(thread_id)
        reader = await self._rooms.events.open_reader(thread_id, watches=events)
        try:
            row = await self._row(thread_id, run_id)
        except BaseException:
            reader.close()
            raise
        ended = row["status"] not in ("pending", "running")
        if ended:
            # Its last events are kept, but perhaps not told yet; nobody waits for them here.
            reader.start_id = LAST_ID
        return reader, row, ended

    async def ended_output(self, row: Row) -> bytes:
        """What joining a run that has ended gives: its error, or its thread's values now."""
        if row["error"] and row["status"] == "error":
            return dumps({"__error__": fragment(row["error"])})
        thread = await self._thread_outcome(row["thread_id"])
        return b"{}" if thread is None else _thread_output(thread)

    async def joined_output(self, thread_id: str, run_id: str, outcome: Outcome | None) -> bytes:
        """What who joined a run is told at its end: its output, or what is there if all went back.

        A run that was rolled back leaves its thread, which has the values from before it.
        """
        if outcome is not None and outcome.status == "interrupted":
            params = {"thread_id": thread_id, "run_id": run_id}
            thread = await self._thread_outcome(thread_id)
            if thread is not None and await self._database.read_one(queries.RUN, params) is None:
                return _thread_output(thread)
        return output_json(outcome)

    async def _thread_outcome(self, thread_id: str) -> Row | None:
        return await self._database.read_one(queries.THREAD_OUTCOME, {"thread_id": thread_id})

    async def outcome_of(self, thread_id: str, run_id: str) -> Outcome | None:
        """How a run has ended, as far as the database tells; None if it is not there."""
        params = {"thread_id": thread_id, "run_id": run_id}
        row = await self._database.read_one(queries.RUN, params)
        if row is None:
            return None
        return Outcome.told(row["status"], await self.ended_output(row))


def _thread_output(thread: Row) -> bytes:
    """A thread's values as joining shows them, with the questions that wait there."""
    values: Any = {} if thread["state_values"] is None else loads(thread["state_values"])
    waiting = loads(thread["interrupts"] or "{}")
    if waiting and (not values or isinstance(values, dict)):
        asked = [{**_ANY_ANSWER, **question} for task in waiting.values() for question in task]
        values = {**(values or {}), "__interrupt__": asked}
    return dumps(values)
