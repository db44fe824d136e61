"""The SQL of crons, by name."""

from __future__ import annotations

INSERT = """
INSERT INTO crons (cron_id, assistant_id, thread_id, user_id, caller, schedule, timezone, end_time,
                   ends_at, enabled, on_run_completed, payload, metadata, next_run_at,
                   scheduled_at, created_at, updated_at)
VALUES (:cron_id, :assistant_id, :thread_id, :user_id, :caller, :schedule, :timezone, :end_time,
        :ends_at, :enabled, :on_run_completed, :payload, :metadata, :next_run_at,
        :now, :now, :now)
RETURNING *
"""

THREAD_EXISTS = "SELECT 1 FROM threads WHERE thread_id = :thread_id"

ASSISTANT_EXISTS = "SELECT 1 FROM assistants WHERE assistant_id = :assistant_id"

GET = "SELECT * FROM crons WHERE cron_id = :cron_id AND {visible}"

CRON = "SELECT * FROM crons WHERE cron_id = :cron_id"

UPDATE = """
UPDATE crons
SET schedule = :schedule, timezone = :timezone, end_time = :end_time, ends_at = :ends_at,
    enabled = :enabled, on_run_completed = :on_run_completed, payload = :payload,
    metadata = :metadata, next_run_at = :next_run_at, scheduled_at = :now, updated_at = :now
WHERE cron_id = :cron_id
RETURNING *
"""

DELETE = "DELETE FROM crons WHERE cron_id = :cron_id AND {visible}"

SEARCH = "SELECT * FROM crons WHERE {where} ORDER BY {order} LIMIT :limit OFFSET :offset"

ON_VISIBLE_THREAD = """(crons.thread_id IS NULL OR EXISTS (
    SELECT 1 FROM threads WHERE threads.thread_id = crons.thread_id AND {visible}))"""

COUNT = "SELECT COUNT(*) AS n FROM crons WHERE {where}"

# -- ticks ------------------------------------------------------------------------------------

EARLIEST = """
SELECT cron_id, next_run_at FROM crons WHERE enabled = 1 AND next_run_at IS NOT NULL
ORDER BY next_run_at LIMIT :limit
"""

# Move a cron on from a tick: for one process only, and not if the cron was changed meanwhile.
TAKE_TICK = """
UPDATE crons SET next_run_at = :following, scheduled_at = :now
WHERE cron_id = :cron_id AND next_run_at = :tick AND updated_at = :seen AND enabled = 1
"""

SCHEDULED_LATER = "SELECT * FROM crons WHERE scheduled_at > :later AND enabled = 1 LIMIT 1000"

RESCHEDULE = """
UPDATE crons SET next_run_at = :following, scheduled_at = :now
WHERE cron_id = :cron_id AND scheduled_at = :scheduled_at
"""
