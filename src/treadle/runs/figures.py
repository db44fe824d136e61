"""Counts the runs that this process accepts and executes; cheap enough to do it for each."""

from __future__ import annotations

from collections.abc import Iterator

from treadle.figures import Figure
from treadle.histogram import Histogram

DURATION_BUCKETS_SECONDS = (
    0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600, 1800, 3600,
)  # fmt: skip

_CREATED = (
    "treadle_runs_created_total",
    "counter",
    "Runs that were accepted, by graph (this process)",
)
_ENDED = (
    "treadle_runs_ended_total",
    "counter",
    "Runs that ended, by graph and outcome: success, error, timeout, interrupted (this process)",
)
_TAKEN_UP = (
    "treadle_runs_taken_up_total",
    "counter",
    "Runs that were put back into the queue because their worker was lost (this process)",
)
_DURATION = (
    "treadle_run_duration_seconds",
    "histogram",
    "How long runs were executed, in seconds (this process)",
)
_WAIT = (
    "treadle_run_wait_seconds",
    "histogram",
    "How long runs waited from when they were due until they began, in seconds (this process)",
)


class RunFigures:
    """What ``/metrics`` says of runs: those created by graph; those ended by graph and status.

    ``durations`` are the seconds from the start of a run's last attempt to its end, ``waits``
    those from when it was due to its first start, both by graph. ``taken_up`` counts those whose
    worker was lost, and that were put back into the queue.
    """

    def __init__(self) -> None:
        self.taken_up = 0
        self.waits: dict[str, Histogram] = {}
        self.created: dict[str, int] = {}
        self.ended: dict[tuple[str, str], int] = {}
        self.durations: dict[str, Histogram] = {}

    def count_created(self, graph_id: str) -> None:
        self.created[graph_id] = self.created.get(graph_id, 0) + 1

    def count_started(self, graph_id: str, waited_seconds: float) -> None:
        _observe(self.waits, graph_id, waited_seconds)

    def count_ended(self, graph_id: str, status: str, seconds: float | None) -> None:
        """Count the end of a run; ``seconds`` is None if it never began."""
        key = graph_id, status
        self.ended[key] = self.ended.get(key, 0) + 1
        if seconds is not None:
            _observe(self.durations, graph_id, seconds)

    def figures(self) -> Iterator[Figure]:
        """What ``/metrics`` shows of it."""
        for named in (_CREATED, _DURATION, _WAIT):
            yield Figure(*named, None, {"graph_id": ""})
        yield Figure(*_ENDED, None, {"graph_id": "", "status": ""})
        for graph_id, count in list(self.created.items()):
            yield Figure(*_CREATED, count, {"graph_id": graph_id})
        for (graph_id, status), count in list(self.ended.items()):
            yield Figure(*_ENDED, count, {"graph_id": graph_id, "status": status})
        yield Figure(*_TAKEN_UP, self.taken_up)
        for named, by_graph in ((_DURATION, self.durations), (_WAIT, self.waits)):
            for graph_id, histogram in list(by_graph.items()):
                yield Figure(*named, histogram, {"graph_id": graph_id})


def _observe(by_graph: dict[str, Histogram], graph_id: str, seconds: float) -> None:
    histogram = by_graph.get(graph_id)
    if histogram is None:
        histogram = by_graph[graph_id] = Histogram(DURATION_BUCKETS_SECONDS)
    histogram.observe(max(0.0, seconds))
