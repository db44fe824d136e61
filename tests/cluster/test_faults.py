"""What processes stand on falls away, and comes again: nothing is lost, nothing is done twice."""

from __future__ import annotations

import json
import signal
import threading
import time
from collections.abc import Callable
from typing import Any

import httpx
import psycopg
import pytest
from conftest import OwnPostgres, OwnRedis, sessions_killed
from houses import Cluster, Event, Process, stream, until


def follow(processes: list[Process], thread: str, run: str, seconds: float = 60) -> list[Event]:
    """All events of a resumable run, by a client that comes again when its stream breaks off."""
    seen: list[Event] = []
    path = f"/threads/{thread}/runs/{run}/stream"
    deadline, turn = time.monotonic() + seconds, 0
    while time.monotonic() < deadline:
        process = processes[turn % len(processes)]
        turn += 1
        try:
            with stream(process, path, last=seen[-1].id if seen else "-") as events:
                seen.extend(events)
            if process.status(thread, run) not in ("pending", "running"):
                return seen
        except (httpx.HTTPError, AssertionError):
            time.sleep(0.1)
    raise AssertionError(f"run {run} did not end: {seen[-3:]}")


class Followed(threading.Thread):
    """A resumable run that is followed through all faults."""

    def __init__(self, processes: list[Process], n: int, pause: float) -> None:
        super().__init__()
        self.n = n
        self.thread = processes[0].thread()
        body = {"n": n, "pause": pause}
        self.run_id = processes[0].run(
            self.thread, "talk", input=body, stream_mode="custom", stream_resumable=True
        )
        processes[0].begun(self.thread, self.run_id)
        self._processes = processes
        self.events: list[Event] = []
        self.failure: BaseException | None = None
        self.start()

    def run(self) -> None:
        try:
            self.events = follow(self._processes, self.thread, self.run_id)
        except BaseException as failure:
            self.failure = failure

    def check(self) -> None:
        """Each event came once, in order, of each attempt."""
        self.join(70)
        assert self.failure is None
        assert not self.is_alive()
        ids = [tuple(map(int, event.id.split("-"))) for event in self.events]
        assert ids == sorted(set(ids))
        attempts: list[list[int]] = []
        for event in self.events:
            if event.name == "metadata" and "attempt" in event.data:
                attempts.append([])
            elif event.name == "custom":
                attempts[-1].append(json.loads(event.data)["number"])
        for numbers in attempts[:-1]:
            assert numbers == list(range(len(numbers)))
        assert attempts[-1] == list(range(self.n))
        assert self._processes[0].status(self.thread, self.run_id) == "success"


@pytest.fixture(scope="module")
def own(make_cluster: Callable[..., Cluster], postgres: OwnPostgres, redis: OwnRedis) -> Cluster:
    cluster = make_cluster(postgres.database(), REDIS_URI=redis.uri)
    for name in ("a", "b"):
        cluster.api(name)
    cluster.worker("one")
    cluster.start()
    return cluster


def apis(cluster: Cluster) -> list[Process]:
    return cluster.processes[:2]


def test_killed_sessions_lose_nothing(own: Cluster) -> None:
    followed = [Followed(apis(own), 100, 0.03) for _ in range(3)]
    waiting: dict[str, Any] = {}

    def wait() -> None:
        body = {"assistant_id": "count", "input": {"pause": 2.0, "token": "w"}}
        waiting["answer"] = own.processes[1].call("POST", "/runs/wait", body)

    waiter = threading.Thread(target=wait)
    waiter.start()
    for _ in range(3):
        time.sleep(0.5)
        assert sessions_killed(own.database) > 3
    for one in followed:
        one.check()
    waiter.join(20)
    assert waiting["answer"]["log"] == ["w:one"]


def test_a_cancel_is_heard_although_signals_were_missed(own: Cluster) -> None:
    a, b = apis(own)
    thread = a.thread()
    run = a.run(thread, "talk", input={"n": 5000, "pause": 0.02})
    a.begun(thread, run)
    sessions_killed(own.database)
    until(b.answers, "the other process")
    answer = b.http.post(f"/threads/{thread}/runs/{run}/cancel?wait=1")
    assert answer.status_code == 202 or answer.is_success
    assert a.ended(thread, run) == "interrupted"


@pytest.mark.parametrize(
    ("how", "seconds"), [("fast", 0.5), ("immediate", 0.5), ("immediate", 12.0)]
)
def test_postgres_restarts(own: Cluster, postgres: OwnPostgres, how: str, seconds: float) -> None:
    """Also after longer than anybody waits for it (PATIENCE_SECONDS)."""
    a, b = apis(own)
    followed = [Followed([a, b], 80, 0.05) for _ in range(2)]
    time.sleep(0.5)
    postgres.stop(how)
    down = httpx.get(f"{a.url}/ok?check_db=1", timeout=30)
    assert down.status_code == 500
    assert down.json()["services"]["database"]["ok"] is False
    assert httpx.get(f"{a.url}/ok").status_code == 200
    time.sleep(seconds)
    postgres.start()
    until(lambda: a.away() == [], "the database")
    for one in followed:
        one.check()
    body = {"assistant_id": "count", "input": {"token": "after"}}
    assert b.call("POST", "/runs/wait", body)["log"] == ["after:one"]


def test_redis_is_flushed_in_the_middle_of_streams(own: Cluster, redis: OwnRedis) -> None:
    followed = [Followed(apis(own), 100, 0.02) for _ in range(3)]
    for _ in range(5):
        time.sleep(0.2)
        redis.ask("FLUSHALL")
    for one in followed:
        one.check()


def test_redis_goes_down_and_comes_again(own: Cluster, redis: OwnRedis) -> None:
    a, b = apis(own)
    followed = [Followed([a, b], 150, 0.02) for _ in range(3)]
    time.sleep(0.3)
    redis.stop()
    until(
        lambda: a.away() == ["redis"],
        "it to be known",
    )
    body = {"assistant_id": "talk", "input": {"n": 50}, "stream_mode": "custom"}
    with stream(b, "/runs/stream", body) as events:
        assert [event.name for event in events] == ["metadata"] + ["custom"] * 50
    redis.start()
    until(lambda: a.away() == [], "Redis again")
    for one in followed:
        one.check()
    with stream(b, "/runs/stream", body) as events:
        assert [event.name for event in events] == ["metadata"] + ["custom"] * 50


def test_a_killed_worker_is_replaced(own: Cluster) -> None:
    a, b = apis(own)
    doomed = own.processes[2]
    followed = Followed([a, b], 150, 0.03)
    survivor = own.worker("two")
    survivor.start(ready=False)
    time.sleep(0.5)
    doomed.kill()
    survivor.wait_ready()
    follow_up = a.run(followed.thread, "count", input={"token": "next"})
    followed.check()
    assert a.ended(followed.thread, follow_up) == "success"
    assert len([one for one in followed.events if one.name == "metadata"]) == 2


def test_a_worker_that_was_declared_dead_takes_a_new_lease(own: Cluster) -> None:
    a = own.processes[0]
    worker = own.processes[3]
    thread = a.thread()
    run = a.run(thread, "talk", input={"n": 400, "pause": 0.02}, stream_resumable=True)
    a.begun(thread, run)
    with psycopg.connect(own.database, autocommit=True) as connection:
        connection.execute("DELETE FROM workers")
        taken = "UPDATE runs SET status = 'pending', owner = NULL WHERE run_id = %s"
        connection.execute(taken, (run,))
    until(lambda: "under a new lease" in worker.log, "a new lease", 30)
    assert a.ended(thread, run, 40) == "success"
    assert worker.process is not None
    assert worker.process.poll() is None


def test_start_up_waits_for_the_database(
    make_cluster: Callable[..., Cluster], postgres: OwnPostgres
) -> None:
    uri = postgres.database()
    postgres.stop()
    try:
        late = make_cluster(uri, TREADLE_POSTGRES_WAIT_SECS="30").server("late")
        late.start(ready=False)
        until(lambda: "waiting for PostgreSQL" in late.log, "a line in the log")
        hopeless = make_cluster(uri, TREADLE_POSTGRES_WAIT_SECS="1").server("hopeless")
        hopeless.start(ready=False)
        assert hopeless.wait() == 1
        assert "did not answer for 1 s" in hopeless.log
    finally:
        postgres.start()
    late.wait_ready()
    late.signal(signal.SIGTERM)
    assert late.wait() in (0, -signal.SIGTERM)
