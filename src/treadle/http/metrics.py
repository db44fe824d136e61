"""Counts requests and their latency; cheap enough to do it for every request."""

from __future__ import annotations

from bisect import bisect_left

LATENCY_BUCKETS_MS = (
    1, 5, 10, 25, 50, 100, 250, 500, 1000, 2500, 5000, 10_000, 30_000, 60_000,
)  # fmt: skip


class Latency:
    """A histogram of milliseconds: one count per bucket, and one for what is beyond them."""

    __slots__ = ("counts", "total_ms")

    def __init__(self) -> None:
        self.counts = [0] * (len(LATENCY_BUCKETS_MS) + 1)
        self.total_ms = 0.0


class RequestMetrics:
    """What ``/metrics`` says of HTTP: requests by (method, path template, status), latencies.

    The template of an unknown path is ``""``.
    """

    def __init__(self) -> None:
        self.requests: dict[tuple[str, str, int], int] = {}
        self.latencies: dict[tuple[str, str], Latency] = {}

    def observe(self, method: str, template: str, status: int, milliseconds: float) -> None:
        """Count one request."""
        key = (method, template, status)
        self.requests[key] = self.requests.get(key, 0) + 1
        latency = self.latencies.get((method, template))
        if latency is None:
            latency = self.latencies[method, template] = Latency()
        latency.counts[bisect_left(LATENCY_BUCKETS_MS, milliseconds)] += 1
        latency.total_ms += milliseconds
