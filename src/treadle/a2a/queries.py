"""SQL of contexts and tasks: threads, and the runs on them."""

from __future__ import annotations

from typing import Any

from treadle.auth import Filter, condition
from treadle.database import Dialect

LOCK = "/*postgres FOR UPDATE*/"

THREAD_LOCKED = f"""
SELECT status, interrupts FROM threads WHERE thread_id = :thread_id {LOCK}
"""

# A thread and its runs as they are at one moment; its values are in the row of the last run.
CONTEXT = """
SELECT runs.run_id, threads.thread_id, runs.assistant_id, runs.status, runs.updated_at,
       runs.metadata, runs.error, threads.status AS thread_status, threads.interrupts,
       CASE WHEN row_number() OVER (ORDER BY runs.created_at DESC, runs.seq DESC) = 1
           THEN threads.state_values END AS state_values
FROM threads LEFT JOIN runs ON runs.thread_id = threads.thread_id AND runs.temporary = 0
WHERE threads.thread_id = :thread_id
"""

IN_ORDER = "ORDER BY runs.created_at, runs.seq"

THREAD_OF = "SELECT thread_id FROM runs WHERE run_id = :run_id AND temporary = 0"

KWARGS = "SELECT kwargs FROM runs WHERE run_id = :run_id AND thread_id = :thread_id"

SET_METADATA = "UPDATE runs SET metadata = :metadata WHERE run_id = :run_id"

CANCEL_WAITING = """
UPDATE runs SET status = 'interrupted', updated_at = :now
WHERE run_id = :run_id AND thread_id = :thread_id AND status = 'success'
"""

_WAITS = """(runs.status = 'success' AND threads.status = 'interrupted' AND NOT EXISTS (
    SELECT 1 FROM runs AS later WHERE later.thread_id = runs.thread_id
        AND (later.created_at, later.seq) > (runs.created_at, runs.seq)))"""

_IN_STATE = {
    "submitted": "runs.status = 'pending'",
    "working": "runs.status = 'running'",
    "failed": "runs.status IN ('error', 'timeout')",
    "canceled": "runs.status = 'interrupted'",
    "input-required": _WAITS,
    "completed": f"runs.status = 'success' AND NOT {_WAITS}",
}
_NONE = "1 = 0"


class TaskSearch:
    """The statements that list the tasks of an assistant, and count them.

    A task is listed as the last of its runs: one that another run ``continued`` is none.
    """

    def __init__(
        self,
        dialect: Dialect,
        assistant_id: str,
        *,
        thread_id: str | None,
        state: str | None,
        after_us: int | None,
        allowed: Filter | None,
        continued: dict[str, Any],
    ) -> None:
        self.params: dict[str, Any] = {"assistant_id": assistant_id}
        self._conditions = ["runs.assistant_id = :assistant_id", "runs.temporary = 0"]
        has_followers, params = dialect.json_contains("runs.metadata", continued, "continued")
        self._add(f"NOT ({has_followers})", params)
        self._add(*condition(dialect, "threads.metadata", allowed))
        if thread_id is not None:
            self._add("runs.thread_id = :thread_id", {"thread_id": thread_id})
        if after_us is not None:
            self._add("runs.updated_at > :after", {"after": after_us})
        if state is not None:
            self._add(_IN_STATE.get(state, _NONE), {})

    def _add(self, sql: str, params: dict[str, Any]) -> None:
        self._conditions.append(sql)
        self.params |= params

    @property
    def _from(self) -> str:
        where = " AND ".join(self._conditions)
        return f"FROM runs JOIN threads ON threads.thread_id = runs.thread_id WHERE {where}"

    @property
    def page(self) -> str:
        return (
            f"SELECT runs.run_id, runs.thread_id {self._from}"
            " ORDER BY runs.created_at DESC, runs.seq DESC LIMIT :limit OFFSET :offset"
        )

    @property
    def count(self) -> str:
        return f"SELECT count(*) AS total {self._from}"


# -- push notifications --------------------------------------------------------------------------

PUT_CONFIG = """
INSERT INTO task_notifications (start_id, config_id, thread_id, config)
VALUES (:start_id, :config_id, :thread_id, :config)
ON CONFLICT (start_id, config_id) DO UPDATE SET config = excluded.config
WHERE task_notifications.thread_id = excluded.thread_id
"""

CONFIGS = """
SELECT config_id, config FROM task_notifications
WHERE start_id = :start_id AND thread_id = :thread_id ORDER BY config_id
"""

ANY_CONFIG = "SELECT 1 FROM task_notifications WHERE thread_id = :thread_id LIMIT 1"

REMOVE_CONFIG = """
DELETE FROM task_notifications
WHERE start_id = :start_id AND config_id = :config_id AND thread_id = :thread_id
"""
