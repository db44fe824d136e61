"""How fast what concerns a run reaches other processes: events, cancels, deletions, hand-overs.

Two processes that answer requests (a, b) and two workers are started over a PostgreSQL database of
their own, once without Redis and once with it. ``python benchmarks/across_processes.py [ROUNDS]``;
DATABASE_URI names a server whose databases may be made, REDIS_URI a Redis.
"""

from __future__ import annotations

import os
import signal
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

import psycopg

TESTS = Path(__file__).parents[1] / "tests"
sys.path += [str(TESTS), str(TESTS / "cluster")]

from houses import Cluster, Process, events, new_name, stream, until  # noqa: E402

DATABASE_URI = os.environ.get("DATABASE_URI", "postgresql://postgres@127.0.0.1:5432/postgres")
REDIS_URI = os.environ.get("REDIS_URI", "redis://127.0.0.1:6379/0")
ENDLESS = {"n": 100_000, "pause": 0.01}


class End(threading.Thread):
    """Reads a run's stream at a process, and notes when that ends."""

    def __init__(self, process: Process, path: str) -> None:
        super().__init__()
        self._place = process, path
        self.begun, self.at = threading.Event(), 0.0
        self.start()
        assert self.begun.wait(20)

    def run(self) -> None:
        with stream(*self._place) as told:
            for _ in told:
                self.begun.set()
        self.at = time.perf_counter()


def first_event(a: Process, _: Process) -> float:
    """From a request to the first event of the graph, which another process executes."""
    began = time.perf_counter()
    body = {"assistant_id": "talk", "input": {"n": 1}, "stream_mode": "custom"}
    with a.http.stream("POST", "/runs/stream", json=body) as answer:
        told = events(answer)
        next(event for event in told if event.name == "custom")
        took = time.perf_counter() - began
        list(told)
    return took


def stopped(how: Callable[[Process, str, str], object]) -> Callable[[Process, Process], float]:
    """From a request at one process to the end of the stream at another; a third executes."""

    def measure(a: Process, b: Process) -> float:
        thread = a.thread()
        run = a.run(thread, "talk", input=ENDLESS, stream_mode="custom", stream_resumable=True)
        end = End(a, f"/threads/{thread}/runs/{run}/stream")
        began = time.perf_counter()
        how(b, thread, run)
        end.join(20)
        return end.at - began

    return measure


def cancel(process: Process, thread: str, run: str) -> None:
    process.call("POST", f"/threads/{thread}/runs/{run}/cancel")


def still(workers: list[Process]) -> Callable[[Process, Process], float]:
    """From a deletion to the moment when no worker executes anything any more."""

    def measure(a: Process, b: Process) -> float:
        thread = a.thread()
        run = a.run(thread, "talk", input=ENDLESS)
        a.begun(thread, run)
        began = time.perf_counter()
        b.call("DELETE", f"/threads/{thread}")
        until(lambda: not any(active(worker) for worker in workers), "the workers to be still")
        return time.perf_counter() - began

    return measure


def active(worker: Process) -> int:
    return worker.call("GET", "/ok?check_db=1")["workers"]["active"]


def hand_over(workers: list[Process]) -> Callable[[Process, Process], float]:
    """From the last event of a worker that is stopped to the first of the one that goes on."""

    def measure(a: Process, _: Process) -> float:
        body = {"assistant_id": "steps", "input": {"pause": 0.2}, "stream_mode": "updates"}
        thread = a.thread()
        with stream(a, f"/threads/{thread}/runs/stream", body) as told:
            last = next(event for event in told if event.name == "updates")
            doomed = next(worker for worker in workers if active(worker))
            doomed.signal(signal.SIGTERM)
            for event in told:
                if event.name == "metadata":
                    gap = event.at - last.at
                    break
                last = event
            list(told)
        doomed.wait()
        doomed.start()
        return gap

    return measure


def measure(rounds: int, **env: str) -> dict[str, list[float]]:
    name = f"across_{new_name()}"
    with psycopg.connect(DATABASE_URI, autocommit=True) as admin:
        admin.execute(f"CREATE DATABASE {name}".encode())
        with tempfile.TemporaryDirectory() as folder:
            uri = urlsplit(DATABASE_URI)._replace(path=f"/{name}").geturl()
            cluster = Cluster(Path(folder), uri, **env)
            try:
                a, b = cluster.api("a"), cluster.api("b")
                workers = [cluster.worker("one"), cluster.worker("two")]
                cluster.start()
                cases: dict[str, tuple[Callable[[Process, Process], float], int]] = {
                    "first event": (first_event, rounds),
                    "cancel, until the stream ends elsewhere": (stopped(cancel), rounds),
                    "deletion, until the worker is still": (still(workers), rounds),
                    "drain, until another worker goes on": (hand_over(workers), 5),
                }
                return {
                    what: [case(a, b) for _ in range(many)] for what, (case, many) in cases.items()
                }
            finally:
                cluster.close()
                admin.execute(f"DROP DATABASE {name} WITH (FORCE)".encode())


def main() -> None:
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 50
    for name, env in {"PostgreSQL": {}, "PostgreSQL and Redis": {"REDIS_URI": REDIS_URI}}.items():
        print(f"{name}, load {os.getloadavg()[0]:.1f}")
        for what, seconds in measure(rounds, **env).items():
            p50 = statistics.median(seconds) * 1000
            print(f"  {what}: p50 {p50:.0f} ms, most {max(seconds) * 1000:.0f} ms")


if __name__ == "__main__":
    main()
