"""The figures of what waits to be done, and of who does it."""

from __future__ import annotations

from collections.abc import Iterator

from treadle.figures import Figure
from treadle.http.metrics import DEPLOYMENT
from treadle.system.models import BacklogFigures, QueueFigures, WorkerState


def worker_figures(workers: WorkerState) -> Iterator[Figure]:
    """How busy this process is."""
    for name, explained, value in (
        ("max", "Runs that this process executes at a time", workers.max),
        ("active", "Runs that this process executes now", workers.active),
        ("available", "Runs that this process could take on", workers.available),
    ):
        yield Figure(f"lg_api_workers_{name}", "gauge", explained, value, DEPLOYMENT)


def figures(queue: QueueFigures, backlog: BacklogFigures) -> Iterator[Figure]:
    """What waits in the database: the same, whichever process is asked."""
    for name, explained, value in (
        ("num_pending_runs", "Runs that wait to be executed (all processes)", queue.n_pending),
        ("num_running_runs", "Runs that are being executed (all processes)", queue.n_running),
        (
            "pending_runs_wait_time_max",
            "Seconds for which the oldest run that is due has waited (all processes)",
            queue.pending_runs_wait_time_max_secs or 0,
        ),
        (
            "pending_unblocked_runs_wait_time_max",
            "The same of runs whose thread is free (all processes)",
            queue.pending_unblocked_runs_wait_time_max_secs or 0,
        ),
    ):
        yield Figure(f"lg_api_{name}", "gauge", explained, value, DEPLOYMENT)
    for name, explained, value in (
        ("webhooks_waiting", "Webhooks still to be delivered", backlog.webhooks),
        (
            "webhooks_late_seconds",
            "For how long the oldest webhook that is due is due",
            backlog.webhooks_late_secs,
        ),
        (
            "crons_late_seconds",
            "For how long the oldest tick of a cron that is due is due",
            backlog.crons_late_secs,
        ),
        ("event_log_events", "Events that are kept for replay", backlog.kept_events),
        ("event_log_bytes", "The bytes of their data", backlog.kept_event_bytes),
    ):
        yield Figure(f"treadle_{name}", "gauge", f"{explained} (all processes)", value)
