"""The rules of crons: making, finding, changing and deleting them. ``ticker`` starts their runs."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Protocol

from msgspec import UNSET, UnsetType

from treadle.assistants.models import Assistant
from treadle.auth import Caller, Filter, authorize, condition
from treadle.auth.callers import pack_caller
from treadle.clock import iso, now_us
from treadle.crons import queries
from treadle.crons.models import CronCount, CronCreate, CronPatch, CronRun, CronSearch
from treadle.crons.scheduling import first_tick, parse_end_time, schedule_of
from treadle.database import Database, Row, Transaction
from treadle.database.pages import page_of
from treadle.errors import Invalid, NotFound, Refused
from treadle.ids import new_id, parse_id
from treadle.runs.merging import BOTH_GIVEN, given
from treadle.serialization import dump_text, loads
from treadle.threads.access import restricted

Json = dict[str, Any]

_TOLD_OF_PATCH = ("schedule", "end_time", "enabled", "on_run_completed")
_COLUMNS = {"next_run_date": "next_run_at", "end_time": "ends_at"}


class Assistants(Protocol):
    def id_of(self, named: object) -> str: ...

    async def runnable(self, assistant_id: str, caller: Caller) -> Assistant: ...


class CronService:
    """Crons over a database.

    ``check_webhook`` raises for a target that must not be called; ``changed`` is called when a
    cron may be due earlier than was known.
    """

    def __init__(
        self,
        database: Database,
        assistants: Assistants,
        *,
        check_webhook: Callable[[str], Awaitable[None]],
        changed: Callable[[], None],
    ) -> None:
        self._database, self._assistants = database, assistants
        self._check_webhook, self._changed = check_webhook, changed

    # -- making ----------------------------------------------------------------------------
    async def create(
        self, caller: Caller, thread_id: str | None, wanted: CronCreate, sent: Json
    ) -> Json:
        """A new cron, on a thread or with a new one for each run. ``sent`` is its whole request.

        It changes nothing on its thread, and starts nothing yet.
        """
        assistant_id = self._assistant_id(wanted.assistant_id)
        await self._check_run(wanted)
        timezone = given(wanted.timezone)
        schedule, now = schedule_of(wanted.schedule, timezone), now_us()
        end_time = given(wanted.end_time)
        ends_at = None if end_time is None else parse_end_time(end_time)
        cron_id = new_id()
        payload = _payload({**sent, "assistant_id": assistant_id}, cron_id)
        _check_context(payload)
        values: Json = {
            "cron_id": cron_id,
            "thread_id": thread_id,
            "user_id": caller.identity,
            "schedule": wanted.schedule,
            "end_time": end_time,
        }
        value: Json = {**values, "payload": payload, "metadata": given(wanted.metadata) or {}}
        payload_text = dump_text(payload)
        await authorize(caller, "crons", "create", value)
        visible = await self._visible_thread(caller, thread_id)
        row: Json = {
            **values,
            "assistant_id": assistant_id,
            "caller": pack_caller(caller),
            "timezone": timezone,
            "ends_at": ends_at,
            "enabled": int(wanted.enabled),
            "on_run_completed": None if thread_id else given(wanted.on_run_completed) or "delete",
            "payload": payload_text,
            "metadata": dump_text(value["metadata"]),
            "next_run_at": _until(ends_at, first_tick(schedule, now)),
            "now": now,
        }
        await self._check_assistant(caller, assistant_id, wanted.assistant_id)

        async def insert(transaction: Transaction) -> Row | None:
            if await transaction.fetch_one(queries.ASSISTANT_EXISTS, row) is None:
                raise _no_assistant(wanted.assistant_id)
            if visible is not None and await transaction.fetch_one(*visible) is None:
                raise NotFound(f"Thread with ID '{thread_id}' not found")
            return await transaction.fetch_one(queries.INSERT, row)

        made = await self._database.write(insert)
        assert made is not None
        self._changed()
        return cron_json(made)

    def _assistant_id(self, named: str) -> str:
        try:
            return self._assistants.id_of(named)
        except Invalid:
            raise _no_assistant(named) from None

    async def _check_assistant(self, caller: Caller, assistant_id: str, named: str) -> None:
        try:
            await self._assistants.runnable(assistant_id, caller)
        except NotFound:
            raise _no_assistant(named) from None

    async def _check_run(self, wanted: CronRun) -> None:
        if webhook := given(wanted.webhook):
            await self._check_webhook(webhook)

    async def _visible_thread(
        self, caller: Caller, thread_id: str | None
    ) -> tuple[str, Json] | None:
        """A query for the thread, if there is to be one."""
        if thread_id is None:
            return None
        gate = await authorize(caller, "threads", "read", {"thread_id": thread_id})
        return restricted(self._database.dialect, queries.THREAD_EXISTS, thread_id, gate)

    # -- reading ---------------------------------------------------------------------------
    async def get(self, caller: Caller, cron_id: str) -> Json:
        """A cron; ``NotFound`` if there is none that the caller may see."""
        gate = await authorize(caller, "crons", "read", {"cron_id": cron_id})
        row = await self._database.read_one(*self._one(queries.GET, cron_id, gate))
        if row is None:
            raise _not_found(cron_id)
        return cron_json(row)

    async def search(self, caller: Caller, wanted: CronSearch) -> tuple[list[Json], int]:
        """One page of what matches, as dicts of the selected fields, and how many match."""
        where, params = await self._where(caller, wanted)
        select = queries.SEARCH.format(where=where, order=_order(wanted))
        count = queries.COUNT.format(where=where)
        rows, total = await page_of(
            self._database, select, count, params, wanted.limit, wanted.offset
        )
        found = [cron_json(row) for row in rows]
        if wanted.select:
            chosen = set(wanted.select)
            found = [{k: v for k, v in cron.items() if k in chosen} for cron in found]
        return found, total

    async def count(self, caller: Caller, wanted: CronCount) -> int:
        """How many crons match."""
        where, params = await self._where(caller, wanted)
        rows = await self._database.scan(queries.COUNT.format(where=where), params)
        return rows[0]["n"]

    # -- changing --------------------------------------------------------------------------
    async def patch(self, caller: Caller, cron_id: str, wanted: CronPatch, sent: Json) -> Json:
        """Change a cron. ``sent`` is the whole request; nothing changes if it is refused."""
        if not sent:
            raise Refused("Request body cannot be empty")
        await self._check_run(wanted)
        ends_at = parse_end_time(wanted.end_time) if isinstance(wanted.end_time, str) else None
        value: Json = {"cron_id": cron_id, "payload": sent}
        value |= {field: given(getattr(wanted, field)) for field in _TOLD_OF_PATCH}
        gate = await authorize(caller, "crons", "update", value)

        async def change(transaction: Transaction) -> Row | None:
            row = await transaction.fetch_one(*self._one(queries.GET, cron_id, gate))
            if row is None:
                raise _not_found(cron_id)
            return await transaction.fetch_one(queries.UPDATE, _patched(row, wanted, sent, ends_at))

        changed = await self._database.write(change)
        assert changed is not None
        self._changed()
        return cron_json(changed)

    async def delete(self, caller: Caller, cron_id: str) -> None:
        """Delete a cron. The runs that it has started stay."""
        gate = await authorize(caller, "crons", "delete", {"cron_id": cron_id})
        statement = self._one(queries.DELETE, cron_id, gate)

        async def remove(transaction: Transaction) -> int:
            return await transaction.execute(*statement)

        if not await self._database.write(remove):
            raise _not_found(cron_id)

    # -- inside ----------------------------------------------------------------------------
    def _one(self, sql: str, cron_id: str, gate: Filter | None) -> tuple[str, Json]:
        visible, params = condition(self._database.dialect, "crons.metadata", gate)
        return sql.format(visible=visible), {"cron_id": cron_id, **params}

    async def _where(self, caller: Caller, wanted: CronCount) -> tuple[str, Json]:
        named = {
            "assistant_id": _parsed(wanted.assistant_id, "assistant"),
            "thread_id": _parsed(wanted.thread_id, "thread"),
        }
        conditions, params = await self._visible(caller, wanted, named)
        if metadata := given(wanted.metadata):
            dialect = self._database.dialect
            sql, more = dialect.json_contains("crons.metadata", metadata, "metadata")
            conditions.append(sql)
            params |= more
        for column, found_id in named.items():
            if found_id is not None:
                conditions.append(f"crons.{column} = :{column}")
                params[column] = found_id
        if wanted.enabled is not UNSET:
            conditions.append("enabled = :enabled")
            params["enabled"] = int(wanted.enabled)
        return " AND ".join(conditions), params

    async def _visible(
        self, caller: Caller, wanted: CronCount, named: Json
    ) -> tuple[list[str], Json]:
        """The conditions of what the caller may see: the crons, on threads that they may see."""
        value: Json = {
            **named,
            "limit": wanted.limit if isinstance(wanted, CronSearch) else 0,
            "offset": wanted.offset if isinstance(wanted, CronSearch) else 0,
            "metadata": given(wanted.metadata) or {},
        }
        gate = await authorize(caller, "crons", "search", value)
        threads_gate = await authorize(caller, "threads", "search", {})
        dialect = self._database.dialect
        sql, params = condition(dialect, "crons.metadata", gate)
        if threads_gate is None:
            return [sql], params
        of_thread, more = condition(dialect, "threads.metadata", threads_gate, "thread")
        return [sql, queries.ON_VISIBLE_THREAD.format(visible=of_thread)], params | more


def cron_json(row: Row) -> Json:
    """A row of crons as answers show it."""
    next_run = row["next_run_at"]
    return {
        "cron_id": row["cron_id"],
        "assistant_id": row["assistant_id"],
        "thread_id": row["thread_id"],
        "user_id": row["user_id"],
        "end_time": row["end_time"],
        "schedule": row["schedule"],
        "timezone": row["timezone"],
        "payload": loads(row["payload"]),
        "next_run_date": None if next_run is None else iso(next_run),
        "metadata": loads(row["metadata"]),
        "on_run_completed": row["on_run_completed"],
        "enabled": bool(row["enabled"]),
        "created_at": iso(row["created_at"]),
        "updated_at": iso(row["updated_at"]),
    }


def next_run(row: Row, after: int) -> int | None:
    """The first tick of a cron after a moment; None if there is none before its end."""
    found = schedule_of(row["schedule"], row["timezone"]).next_after(after)
    return None if found is None else _until(row["ends_at"], found)


def _patched(row: Row, wanted: CronPatch, sent: Json, ends_at: int | None) -> Json:
    """The columns of a cron with the patch on top."""
    now, changed = now_us(), dict(row)
    cron_id = row["cron_id"]
    if wanted.on_run_completed is not UNSET and row["thread_id"] is not None:
        raise Invalid(
            "on_run_completed has to be left out: the cron's runs are on a thread that stays"
        )
    for field in ("schedule", "timezone", "end_time", "on_run_completed"):
        value = getattr(wanted, field)
        if value is not UNSET:
            changed[field] = value
    if wanted.end_time is not UNSET:
        changed["ends_at"] = ends_at
    if wanted.enabled is not UNSET:
        changed["enabled"] = int(wanted.enabled)
    if wanted.metadata is not UNSET:
        changed["metadata"] = dump_text(loads(row["metadata"]) | wanted.metadata)
    kept = {key: value for key, value in sent.items() if key != "assistant_id"}
    payload = _payload({**loads(row["payload"]), **kept}, cron_id)
    _check_context(payload)
    changed["payload"] = dump_text(payload)
    if wanted.schedule is not UNSET or wanted.timezone is not UNSET:
        schedule = schedule_of(changed["schedule"], changed["timezone"])
        changed["next_run_at"] = _until(changed["ends_at"], first_tick(schedule, now))
    elif wanted.end_time is not UNSET:
        due = row["next_run_at"]
        changed["next_run_at"] = (
            next_run(changed, now) if due is None else _until(changed["ends_at"], due)
        )
    changed["now"] = max(now, row["updated_at"] + 1)
    return changed


def _parsed(text: str | UnsetType, what: str) -> str | None:
    return None if text is UNSET else parse_id(text, what)


def _payload(sent: Json, cron_id: str) -> Json:
    """A request as crons show it: its configurable names the cron."""
    config: Json = sent.get("config") or {}
    configurable = {**(config.get("configurable") or {}), "cron_id": cron_id}
    return {**sent, "config": {**config, "configurable": configurable}}


def _check_context(payload: Json) -> None:
    """Refuse a cron whose runs would all be refused: with both a context and a configurable."""
    configurable = payload["config"]["configurable"]
    if payload.get("context") and len(configurable) > 1:
        raise Refused(BOTH_GIVEN)


def _until(ends_at: int | None, tick: int) -> int | None:
    return None if ends_at is not None and tick > ends_at else tick


def _order(wanted: CronSearch) -> str:
    """The ORDER BY of a search: what is not set comes last, equal keys in order of creation."""
    direction = "ASC" if wanted.sort_order == "asc" else "DESC"
    if wanted.sort_by is UNSET or wanted.sort_by == "created_at":
        return f"created_at {direction}, seq {direction}"
    column = _COLUMNS.get(wanted.sort_by, wanted.sort_by)
    return f"CASE WHEN {column} IS NULL THEN 1 ELSE 0 END, {column} {direction}, seq ASC"


def _not_found(cron_id: str) -> NotFound:
    return NotFound(f"Cron '{cron_id}' not found")


def _no_assistant(named: str) -> NotFound:
    return NotFound(f"Assistant '{named}' not found")
