"""Counts requests and their latency; cheap enough to do it for every request."""

from __future__ import annotations

from treadle.histogram import Histogram

LATENCY_BUCKETS_MS = (
    1, 5, 10, 25, 50, 100, 250, 500, 1000, 2500, 5000, 10_000, 30_000, 60_000,
)  # fmt: skip


class RequestMetrics:
    """What ``/metrics`` says of HTTP: requests by (method, path template, status), latencies.

    The template of an unknown path is ``""``.
    """

    def __init__(self) -> None:
        self.requests: dict[tuple[str, str, int], int] = {}
        self.latencies: dict[tuple[str, str], Histogram] = {}

    def observe(self, method: str, template: str, status: int, milliseconds: float) -> None:
        """Count one request."""
        key = (method, template, status)
        self.requests[key] = self.requests.get(key, 0) + 1
        latency = self.latencies.get((method, template))
        if latency is None:
            latency = self.latencies[method, template] = Histogram(LATENCY_BUCKETS_MS)
        latency.observe(milliseconds)
