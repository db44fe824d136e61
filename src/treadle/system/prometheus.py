"""Figures in Prometheus' text format."""

from __future__ import annotations

import gc
import os
import platform
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress

from treadle.histogram import Histogram
from treadle.http.metrics import RequestMetrics
from treadle.runs.figures import RunFigures
from treadle.system.models import QueueFigures, WorkerFigures

CONTENT_TYPE = b"text/plain; version=1.0.0; charset=utf-8"
_DEPLOYMENT = {"project_id": "", "revision_id": "", "deployment_type": ""}
_STARTED = time.time()

Sample = tuple[str, dict[str, str], float]
Family = tuple[str, str, str, Iterable[Sample]]


def render(
    requests: RequestMetrics, runs: RunFigures, workers: WorkerFigures, queue: QueueFigures
) -> bytes:
    """The whole page."""
    lines: list[str] = []
    families = (*_families(requests, workers, queue), *_runs(runs), *_process())
    for name, kind, explained, samples in families:
        lines.append(f"# HELP {name} {explained}")
        lines.append(f"# TYPE {name} {kind}")
        lines.extend(_line(*sample) for sample in samples)
    return ("\n".join(lines) + "\n").encode()


def _families(
    requests: RequestMetrics, workers: WorkerFigures, queue: QueueFigures
) -> Iterator[Family]:
    name = "lg_api_http_requests_total"
    yield name, "counter", "HTTP requests by method, route and status", _counts(name, requests)
    name = "lg_api_http_requests_latency"
    yield name, "histogram", "Latency of HTTP requests in milliseconds", _buckets(name, requests)
    available = max(0, workers.max - workers.active)
    for name, explained, value in (
        ("lg_api_workers_max", "Runs that this process executes at a time", workers.max),
        ("lg_api_workers_active", "Runs that this process executes now", workers.active),
        ("lg_api_workers_available", "Runs that this process could take on", available),
        ("lg_api_num_pending_runs", "Runs that wait to be executed", queue.n_pending),
        ("lg_api_num_running_runs", "Runs that are being executed", queue.n_running),
        (
            "lg_api_pending_runs_wait_time_max",
            "Seconds for which the oldest run that is due has waited",
            queue.pending_runs_wait_time_max_secs or 0,
        ),
        (
            "lg_api_pending_unblocked_runs_wait_time_max",
            "The same of runs whose thread is free",
            queue.pending_unblocked_runs_wait_time_max_secs or 0,
        ),
    ):
        yield name, "gauge", explained, [(name, _DEPLOYMENT, value)]


def _runs(runs: RunFigures) -> Iterator[Family]:
    name = "treadle_runs_created_total"
    created = [(name, {"graph_id": graph}, count) for graph, count in list(runs.created.items())]
    yield name, "counter", "Runs that this process accepted, by graph", created
    name = "treadle_runs_ended_total"
    ended = [
        (name, {"graph_id": graph, "status": status}, count)
        for (graph, status), count in list(runs.ended.items())
    ]
    yield name, "counter", "Runs that this process executed, by graph and outcome", ended
    name = "treadle_run_duration_seconds"
    durations = [
        sample
        for graph, histogram in list(runs.durations.items())
        for sample in _histogram(name, {"graph_id": graph}, histogram)
    ]
    yield name, "histogram", "How long runs were executed, in seconds", durations


def _counts(name: str, requests: RequestMetrics) -> Iterator[Sample]:
    for (method, path, status), count in list(requests.requests.items()):
        labels = {"method": method, "path": path, "status": str(status)}
        yield name, labels | _DEPLOYMENT, count


def _buckets(name: str, requests: RequestMetrics) -> Iterator[Sample]:
    for (method, path), latency in list(requests.latencies.items()):
        yield from _histogram(name, {"method": method, "path": path} | _DEPLOYMENT, latency)


def _histogram(name: str, labels: dict[str, str], histogram: Histogram) -> Iterator[Sample]:
    total = 0
    for bound, count in zip((*histogram.bounds, "+Inf"), histogram.counts, strict=True):
        total += count
        yield f"{name}_bucket", {"le": str(bound)} | labels, total
    yield f"{name}_count", labels, total
    yield f"{name}_sum", labels, round(histogram.total, 3)


def _process() -> Iterator[Family]:
    """What there is to know of the process without costing much."""
    times = os.times()
    gauges = [
        ("process_cpu_seconds_total", "counter", "CPU time used", times.user + times.system),
        ("process_start_time_seconds", "gauge", "When the process began to serve", _STARTED),
        ("process_open_fds", "gauge", "Open file descriptors", _open_files()),
        ("process_resident_memory_bytes", "gauge", "Memory in use", _resident_bytes()),
    ]
    for name, kind, explained, value in gauges:
        if value is not None:
            yield name, kind, explained, [(name, {}, value)]
    collected: list[Sample] = [
        ("python_gc_collections_total", {"generation": str(n)}, stats["collections"])
        for n, stats in enumerate(gc.get_stats())
    ]
    yield "python_gc_collections_total", "counter", "Garbage collections", collected
    python = {
        "implementation": platform.python_implementation(),
        "version": ".".join(map(str, sys.version_info[:3])),
    }
    yield "python_info", "gauge", "The Python that runs this", [("python_info", python, 1)]
    target = {"service_name": "treadle"}
    yield "target_info", "gauge", "The program", [("target_info", target, 1)]


def _open_files() -> int | None:
    with suppress(OSError):
        return len(os.listdir("/proc/self/fd"))
    return None


def _resident_bytes() -> int | None:
    with suppress(OSError, ValueError, IndexError), open("/proc/self/statm") as statm:
        return int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    return None


def _line(name: str, labels: dict[str, str], value: float) -> str:
    if not labels:
        return f"{name} {value}"
    inside = ",".join(f'{key}="{_escaped(text)}"' for key, text in labels.items())
    return f"{name}{{{inside}}} {value}"


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
