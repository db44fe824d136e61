"""Counts requests and their latency; cheap enough to do it for every request."""

from __future__ import annotations

from collections.abc import Iterator

from treadle.figures import Figure
from treadle.histogram import Histogram

LATENCY_BUCKETS_MS = (
    1, 5, 10, 25, 50, 100, 250, 500, 1000, 2500, 5000, 10_000, 30_000, 60_000,
)  # fmt: skip

DEPLOYMENT = {"project_id": "", "revision_id": "", "deployment_type": ""}
"""Labels of figures that the reference server has too."""

_REQUESTS = (
    "lg_api_http_requests_total",
    "counter",
    "HTTP requests by method, route and status (this process)",
)
_LATENCY = (
    "lg_api_http_requests_latency",
    "histogram",
    "Latency of HTTP requests in milliseconds (this process)",
)


class RequestMetrics:
    """What ``/metrics`` says of HTTP: requests by (method, path template, status), latencies.

    The template of an unknown path is ``""``.
    """

    def __init__(self) -> None:
        self.requests: dict[tuple[str, str, int], int] = {}
        self.latencies: dict[tuple[str, str], Histogram] = {}

    def figures(self) -> Iterator[Figure]:
        """What ``/metrics`` shows of it."""
        for (method, path, status), count in list(self.requests.items()):
            labels = {"method": method, "path": path, "status": str(status), **DEPLOYMENT}
            yield Figure(*_REQUESTS, count, labels)
        for (method, path), latency in list(self.latencies.items()):
            yield Figure(*_LATENCY, latency, {"method": method, "path": path, **DEPLOYMENT})

    def observe(self, method: str, template: str, status: int, milliseconds: float) -> None:
        """Count one request."""
        key = (method, template, status)
        self.requests[key] = self.requests.get(key, 0) + 1
        latency = self.latencies.get((method, template))
        if latency is None:
            latency = self.latencies[method, template] = Histogram(LATENCY_BUCKETS_MS)
        latency.observe(milliseconds)
