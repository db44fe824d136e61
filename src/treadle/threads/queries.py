"""The SQL of threads, by name."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from treadle.auth import Filter, condition
from treadle.database import Dialect
from treadle.threads.models import ThreadCount, ThreadSearch

FIELD_COLUMNS = {
    "thread_id": "thread_id",
    "created_at": "created_at",
    "updated_at": "updated_at",
    "state_updated_at": "state_updated_at",
    "metadata": "metadata",
    "config": "config",
    "status": "status",
    "values": "state_values",
    "interrupts": "interrupts",
    "error": "error",
}
"""The fields of a thread as the API names them, in order, and their columns."""

COLUMNS = ", ".join(FIELD_COLUMNS.values())
INDEXED = frozenset(("thread_id", "created_at", "updated_at"))
MAX_SELECTED = 1000
"""As many threads may an indexed filter select for a search to run on the event loop."""

GET = f"SELECT {COLUMNS} FROM threads WHERE thread_id = :thread_id"

GET_WITH_TTL = (
    f"SELECT {COLUMNS}, ttl_strategy, ttl_minutes, expires_at"
    " FROM threads WHERE thread_id = :thread_id"
)

EXISTS = "SELECT 1 FROM threads WHERE thread_id = :thread_id"

LOCK = "/*postgres FOR UPDATE*/"

EXISTS_LOCKED = f"{EXISTS} {LOCK}"

STATE_BASIS = "SELECT metadata, state_updated_at FROM threads WHERE thread_id = :thread_id"

IN_FLIGHT = """
SELECT run_id FROM runs WHERE thread_id = :thread_id AND status IN ('pending', 'running')
ORDER BY seq
"""

INSERT = """
INSERT INTO threads (thread_id, created_at, updated_at, state_updated_at, metadata, config,
                     ttl_strategy, ttl_minutes, expires_at)
VALUES (:thread_id, :created_at, :updated_at, :state_updated_at, :metadata, :config,
        :ttl_strategy, :ttl_minutes, :expires_at)
ON CONFLICT (thread_id) DO NOTHING
"""

TOUCH = "UPDATE threads SET updated_at = :now WHERE thread_id = :thread_id"

SET_METADATA = "UPDATE threads SET metadata = :metadata WHERE thread_id = :thread_id"

SET_TTL = """
UPDATE threads SET ttl_strategy = :ttl_strategy, ttl_minutes = :ttl_minutes,
                   expires_at = :expires_at
WHERE thread_id = :thread_id
"""

SET_STATE = """
UPDATE threads SET state_values = :state_values, status = :status, interrupts = :interrupts,
                   error = NULL, updated_at = :now, state_updated_at = :now
WHERE thread_id = :thread_id
"""

SET_COPIED = """
UPDATE threads SET state_values = :state_values, status = :status, interrupts = :interrupts
WHERE thread_id = :thread_id
"""

# -- deleting ---------------------------------------------------------------------------------

# Whoever saves events of a run at this moment has done so when this returns.
LOCK_RUNS = "SELECT 1 FROM runs WHERE thread_id = :thread_id /*postgres FOR UPDATE*/"

DELETE_THREAD = "DELETE FROM threads WHERE thread_id = :thread_id"

DELETE_IN_FLIGHT = """
DELETE FROM runs WHERE thread_id = :thread_id AND status IN ('pending', 'running')
"""

BURY = "INSERT INTO deleted_threads (thread_id) VALUES (:thread_id)"

BURIED = "SELECT thread_id FROM deleted_threads LIMIT 100"

IS_BURIED = "SELECT 1 FROM deleted_threads WHERE thread_id = :thread_id"

UNBURY = "DELETE FROM deleted_threads WHERE thread_id = :thread_id"

LEFT_BEHIND = {
    "events": ("id",),
    "runs": ("run_id",),
    "checkpoints": ("checkpoint_ns", "checkpoint_id"),
    "checkpoint_values": ("checkpoint_ns", "version", "channel"),
    "checkpoint_writes": ("checkpoint_ns", "checkpoint_id", "task_id", "idx"),
}
"""The tables that may have rows of a deleted thread, and what tells those rows apart."""

DELETE_ALL = "DELETE FROM {table} WHERE thread_id = :thread_id"

_LARGEST = {
    "events": "data",
    "runs": "kwargs",
    "checkpoints": "checkpoint",
    "checkpoint_values": "value",
    "checkpoint_writes": "value",
}

# What these tables have of a thread; of each no more than :most rows are looked at.
SIZE_OF_REST = "SELECT count(*) AS row_count, coalesce(sum(bytes), 0) AS bytes FROM (" + (
    " UNION ALL ".join(
        f"SELECT bytes FROM (SELECT length({column}) AS bytes FROM {table}"
        f" WHERE thread_id = :thread_id LIMIT :most) AS {table}_sizes"
        for table, column in _LARGEST.items()
    )
    + ") AS sizes"
)

# -- expiry -----------------------------------------------------------------------------------

_IS_EXPIRED = """expires_at <= :now AND NOT EXISTS (
    SELECT 1 FROM runs
    WHERE runs.thread_id = threads.thread_id AND runs.status IN ('pending', 'running'))"""

EXPIRED = f"""
SELECT seq, thread_id, ttl_strategy, expires_at FROM threads
WHERE (expires_at, seq) > (:expires_at, :seq) AND {_IS_EXPIRED}
ORDER BY expires_at, seq LIMIT :limit
"""

STILL_EXPIRED = f"SELECT 1 FROM threads WHERE thread_id = :thread_id AND {_IS_EXPIRED}"

DELETE_EXPIRED = f"DELETE FROM threads WHERE thread_id = :thread_id AND {_IS_EXPIRED}"

END_EXPIRY = "UPDATE threads SET expires_at = NULL WHERE thread_id = :thread_id"


class Search:
    """The statements of a search or count: where, in what order, which columns."""

    def __init__(
        self,
        dialect: Dialect,
        wanted: ThreadCount | ThreadSearch,
        ids: Collection[str],
        allowed: Filter | None,
        columns: Collection[str] = (),
    ) -> None:
        self.params: dict[str, Any] = {}
        self._conditions: list[str] = []
        if ids:
            self._add(*dialect.any_of("threads.thread_id", list(ids), "ids"))
        is_led = bool(ids)
        if allowed is not None:
            self._add(*condition(dialect, "threads.metadata", allowed, leads=not is_led))
            is_led = is_led or allowed.is_selective
        if wanted.metadata:
            column, metadata = "threads.metadata", wanted.metadata
            self._add(*dialect.json_contains(column, metadata, "metadata", leads=not is_led))
            is_led = is_led or _has_scalar(metadata)
        if wanted.values:
            self._add(*dialect.json_contains("threads.state_values", wanted.values, "values"))
        if isinstance(wanted.status, str):
            self._add("threads.status = :status", {"status": wanted.status})
        self.is_selective = is_led
        """Whether an index leads to what it may find."""
        self._where = f" WHERE {' AND '.join(self._conditions)}" if self._conditions else ""
        if isinstance(wanted, ThreadSearch):
            self._page(wanted, columns)

    def _page(self, wanted: ThreadSearch, columns: Collection[str]) -> None:
        given = isinstance(wanted.sort_by, str)
        column = wanted.sort_by if given else "updated_at"
        direction = wanted.sort_order if given else "desc"
        self.params |= {"limit": wanted.limit + 1, "offset": wanted.offset}
        self.is_read_off_an_index = not self._conditions and column in INDEXED
        """Whether its pages lie in order in an index."""
        self._select = f"SELECT {', '.join(columns) or COLUMNS} FROM threads"
        self._order = (
            f" ORDER BY threads.{column} {direction}, threads.seq {direction}"
            " LIMIT :limit OFFSET :offset"
        )
        self.page = f"{self._select}{self._where}{self._order}"

    def _add(self, condition: str, params: dict[str, Any]) -> None:
        self._conditions.append(condition)
        self.params |= params

    @property
    def count(self) -> str:
        return f"SELECT COUNT(*) AS total FROM threads{self._where}"

    @property
    def probe(self) -> str:
        """The threads that match, no further than just beyond ``MAX_SELECTED``."""
        return f"SELECT threads.seq AS seq FROM threads{self._where} LIMIT {MAX_SELECTED + 1}"

    def page_of(self, dialect: Dialect, found: list[int]) -> tuple[str, dict[str, Any]]:
        """The page, where a probe has found all threads that match."""
        condition, params = dialect.any_of("threads.seq", found, "found")
        return f"{self._select} WHERE {condition}{self._order}", {**self.params, **params}


def _has_scalar(pattern: dict[str, Any]) -> bool:
    return any(value is None or isinstance(value, str | int) for value in pattern.values())
