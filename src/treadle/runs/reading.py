"""What may be asked of runs, and who may ask. Nothing here changes anything."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from treadle.auth import Caller, Filter, authorize
from treadle.database import Row
from treadle.errors import NotFound
from treadle.runs import queries
from treadle.runs.created import run_json
from treadle.runs.outcome import Outcome
from treadle.runs.rooms import Rooms
from treadle.serialization import dumps, fragment, loads
from treadle.streaming.entries import LAST_ID
from treadle.streaming.log import Reader

Json = dict[str, Any]
_ANY_ANSWER: Json = {"value": None, "id": None, "response_schema": None}


class RunReading:
    """Runs as they are, and readers of what becomes of them."""

    def __init__(self, rooms: Rooms) -> None:
        self._rooms = rooms
        self._database = rooms.database

    async def check_thread(self, caller: Caller, thread_id: str, action: str = "read") -> None:
        """Raise ``NotFound`` unless the caller may see the thread."""
        visible = await authorize(caller, "threads", action, {"thread_id": thread_id})
        condition, params = self._visible(visible)
        sql = queries.THREAD_EXISTS + condition
        if await self._database.read_one(sql, {"thread_id": thread_id, **params}) is None:
            raise NotFound(f"Thread with ID {thread_id} not found")

    async def may_watch(
        self, caller: Caller, thread_id: str
    ) -> Callable[[], Awaitable[bool]] | None:
        """Make sure that the caller may see the thread, which need not be there yet.

        Then the answer says, once it is there, whether they may; None if they may see any.
        Raises ``NotFound``.
        """
        visible = await authorize(caller, "threads", "read", {"thread_id": thread_id})
        if visible is None:
            return None
        condition, params = self._visible(visible)
        params["thread_id"] = thread_id

        async def may_see() -> bool:
            row = await self._database.read_one(queries.THREAD_EXISTS + condition, params)
            return row is not None

        if await may_see():
            return None
        if await self._database.read_one(queries.THREAD_EXISTS, params) is not None:
            raise NotFound(f"Thread with ID {thread_id} not found")
        return may_see

    async def assistant_of(self, caller: Caller, thread_id: str) -> str | None:
        """The assistant of the thread's last run; None if there is none, or no such thread."""
        return (await self._thread_metadata(caller, thread_id)).get("assistant_id")

    async def graph_of(self, caller: Caller, thread_id: str) -> str | None:
        """The graph of the thread's last run; None if there is none, or no such thread."""
        return (await self._thread_metadata(caller, thread_id)).get("graph_id")

    async def _thread_metadata(self, caller: Caller, thread_id: str) -> Json:
        visible = await authorize(caller, "threads", "read", {"thread_id": thread_id})
        condition, params = self._visible(visible)
        sql = queries.THREAD_FOR_RUN + condition
        row = await self._database.read_one(sql, {"thread_id": thread_id, **params})
        return {} if row is None else loads(row["metadata"])

    async def get(self, caller: Caller, thread_id: str, run_id: str) -> Json:
        """A run. Raises ``NotFound``."""
        await self.check_thread(caller, thread_id)
        return run_json(await self._row(thread_id, run_id))

    async def _row(self, thread_id: str, run_id: str) -> Row:
        row = await self._database.read_one(queries.RUN, {"thread_id": thread_id, "run_id": run_id})
        if row is None:
            raise NotFound(f"Run {run_id} not found on thread {thread_id}")
        return row

    async def list(
        self, caller: Caller, thread_id: str, *, limit: int, offset: int, status: str | None
    ) -> list[Json]:
        """The runs of a thread, newest first."""
        await self.check_thread(caller, thread_id)
        rows = await self._database.read_all(
            queries.LIST_RUNS,
            {"thread_id": thread_id, "limit": limit, "offset": offset, "status": status},
        )
        return [run_json(row) for row in rows]

    async def join(
        self, caller: Caller, thread_id: str, run_id: str, *, events: bool
    ) -> tuple[Reader, Row, bool]:
        """A reader from now on, the run's row, and whether the run has ended.

        Up to the reader's ``start_id``, what was kept of the run is in the database. The reader
        is registered before the row is read, so no end is missed between.
        """
        await self.check_thread(caller, thread_id)
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
        thread = await self._database.read_one(
            queries.THREAD_OUTCOME, {"thread_id": row["thread_id"]}
        )
        if thread is None or thread["state_values"] is None:
            values: Any = {}
        else:
            values = loads(thread["state_values"])
        waiting = loads(thread["interrupts"] or "{}") if thread else {}
        if waiting and (not values or isinstance(values, dict)):
            asked = [{**_ANY_ANSWER, **question} for task in waiting.values() for question in task]
            values = {**(values or {}), "__interrupt__": asked}
        return dumps(values)

    async def outcome_of(self, thread_id: str, run_id: str) -> Outcome | None:
        """How a run has ended, as far as the database tells; None if it is not there."""
        params = {"thread_id": thread_id, "run_id": run_id}
        row = await self._database.read_one(queries.RUN, params)
        if row is None:
            return None
        return Outcome.told(row["status"], await self.ended_output(row))

    def _visible(self, visible: Filter | None) -> tuple[str, Json]:
        if visible is None:
            return "", {}
        condition, params = self._database.dialect.json_contains(
            "threads.metadata", visible, "auth"
        )
        return f" AND {condition}", params
