"""The SQL behind health and metrics, by name. Most of it is answered by partial indexes."""

from __future__ import annotations

CHECK = "SELECT 1 AS one"

WEBHOOKS = "SELECT COUNT(*) AS n, MIN(due_at) AS due FROM webhook_outbox"

OVERDUE_CRON = """
SELECT MIN(next_run_at) AS due FROM crons WHERE enabled = 1 AND next_run_at <= :now
"""

# Visits every event: not for every scrape.
KEPT_EVENTS = "SELECT COUNT(*) AS n, SUM(length(data)) AS bytes FROM events"

IN_FLIGHT = """
SELECT status, COUNT(*) AS n FROM runs WHERE status IN ('pending', 'running') GROUP BY status
"""

WAITING = """
SELECT COUNT(*) AS n, MIN(created_at) AS oldest FROM runs
WHERE status = 'pending' AND created_at <= :now
"""

NTH_WAITING = """
SELECT created_at FROM runs WHERE status = 'pending' AND created_at <= :now
ORDER BY created_at, seq LIMIT 1 OFFSET :offset
"""

OLDEST_UNBLOCKED = """
SELECT MIN(created_at) AS oldest FROM runs AS waiting
WHERE status = 'pending' AND created_at <= :now AND NOT EXISTS (
    SELECT 1 FROM runs AS other
    WHERE other.status = 'running' AND other.thread_id = waiting.thread_id)
"""
