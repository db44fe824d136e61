"""What the thread services share: who may see a thread, and how one is refused."""

from __future__ import annotations

from typing import Any

from treadle.auth import Filter, condition
from treadle.database import Dialect, Row, Transaction
from treadle.errors import Conflict, NotFound
from treadle.threads import queries

MAX_NAMED_RUNS = 8


def restricted(
    dialect: Dialect, sql: str, thread_id: str, allowed: Filter | None
) -> tuple[str, dict[str, Any]]:
    """``sql``, which ends in ``WHERE thread_id = :thread_id``, for what the caller may see."""
    if allowed is None:
        return sql, {"thread_id": thread_id}
    visible, params = condition(dialect, "threads.metadata", allowed)
    return f"{sql} AND {visible}", {"thread_id": thread_id, **params}


def not_found(thread_id: str) -> NotFound:
    return NotFound(f"Thread with ID {thread_id} not found")


async def refuse_in_flight(tx: Transaction, thread_id: str) -> None:
    """Raise a ``Conflict`` that names the thread's pending and running runs, if there are any."""
    if runs := await tx.fetch_all(queries.IN_FLIGHT, {"thread_id": thread_id}):
        raise in_flight(thread_id, runs)


def in_flight(thread_id: str, runs: Any) -> Conflict:
    """The refusal of what cannot be done while ``runs`` are pending or running."""
    rows: list[Row] = list(runs)
    named = ", ".join(row["run_id"] for row in rows[:MAX_NAMED_RUNS])
    more = f" and {len(rows) - MAX_NAMED_RUNS} more" if len(rows) > MAX_NAMED_RUNS else ""
    return Conflict(f"Thread {thread_id} has in-flight runs: {named}{more}")
