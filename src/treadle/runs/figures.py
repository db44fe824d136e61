"""Counts the runs that this process accepts and executes; cheap enough to do it for each."""

from __future__ import annotations

from treadle.histogram import Histogram

DURATION_BUCKETS_SECONDS = (
    0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600, 1800, 3600,
)  # fmt: skip


class RunFigures:
    """What ``/metrics`` says of runs: those created by graph; those ended by graph and status.

    ``durations`` are the seconds from the start of a run's last attempt to its end, by graph.
    """

    def __init__(self) -> None:
        self.created: dict[str, int] = {}
        self.ended: dict[tuple[str, str], int] = {}
        self.durations: dict[str, Histogram] = {}

    def count_created(self, graph_id: str) -> None:
        self.created[graph_id] = self.created.get(graph_id, 0) + 1

    def count_ended(self, graph_id: str, status: str, seconds: float) -> None:
        key = graph_id, status
        self.ended[key] = self.ended.get(key, 0) + 1
        durations = self.durations.get(graph_id)
        if durations is None:
            durations = self.durations[graph_id] = Histogram(DURATION_BUCKETS_SECONDS)
        durations.observe(max(0.0, seconds))
