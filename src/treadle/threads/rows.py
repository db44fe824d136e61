"""Rows of the threads table as the API shows them: JSON columns are spliced in, not parsed."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any

from treadle.clock import iso
from treadle.database import Row
from treadle.serialization import fragment, loads
from treadle.threads.extract import Path, resolve
from treadle.threads.queries import FIELD_COLUMNS

Json = dict[str, Any]


def thread_json(row: Row) -> Json:
    """A whole row. ``error`` and ``interrupts`` are there once the thread has had a state."""
    thread: Json = {
        "thread_id": row["thread_id"],
        "created_at": iso(row["created_at"]),
        "updated_at": iso(row["updated_at"]),
        "state_updated_at": iso(row["state_updated_at"]),
        "metadata": fragment(row["metadata"]),
        "config": fragment(row["config"]),
        "status": row["status"],
        "values": fragment(row["state_values"]),
    }
    if (interrupts := row["interrupts"]) is not None:
        thread["interrupts"] = fragment(interrupts)
        thread["error"] = fragment(row["error"])
    return thread


def ttl_json(row: Row) -> Json | None:
    """What ``include=ttl`` adds; None for a thread that lives for ever."""
    if row["expires_at"] is None:
        return None
    return {
        "strategy": row["ttl_strategy"],
        "ttl_minutes": row["ttl_minutes"],
        "expires_at": iso(row["expires_at"]),
    }


def picked_columns(select: Collection[str], extracts: dict[str, Path]) -> list[str]:
    """The columns that a search has to read."""
    fields = set(select) or set(FIELD_COLUMNS)
    fields |= {str(path[0]) for path in extracts.values() if path}
    return [column for field, column in FIELD_COLUMNS.items() if field in fields]


def picker(select: Collection[str], extracts: dict[str, Path]) -> Callable[[Row], Json]:
    """A function from a row with ``picked_columns`` to what a search shows of it."""
    fields = dict.fromkeys(select)
    roots = {str(path[0]) for path in extracts.values() if path}

    def pick(row: Row) -> Json:
        thread = _selected(row, fields) if fields else thread_json(row)
        if extracts:
            values = {root: _parsed(row[FIELD_COLUMNS[root]]) for root in roots}
            thread["extracted"] = {a: resolve(path, values) for a, path in extracts.items()}
        return thread

    return pick


def _selected(row: Row, fields: Collection[str]) -> Json:
    thread: Json = {}
    for field in fields:
        value = row[FIELD_COLUMNS[field]]
        if field in ("thread_id", "status"):
            thread[field] = value
        elif field.endswith("_at"):
            thread[field] = iso(value)
        elif field != "interrupts" or value is not None:
            thread[field] = fragment(value)
    return thread


def _parsed(text: str | None) -> Any:
    return None if text is None else loads(text)
