"""A client may be connected to any process: what it sees does not depend on which."""

from __future__ import annotations

import json
import signal
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest
from houses import Cluster, Follower, Process, stream, until


@pytest.fixture(scope="module", params=["database", "redis"])
def cluster(request: Any, make_cluster: Callable[..., Cluster], redis: Any) -> Iterator[Cluster]:
    env = {"REDIS_URI": redis.uri} if request.param == "redis" else {}
    cluster = make_cluster(BG_JOB_SHUTDOWN_GRACE_PERIOD_SECS="1", **env)
    for name in ("a", "b"):
        cluster.api(name)
    for name in ("one", "two"):
        cluster.worker(name)
    cluster.start()
    yield cluster
    faults = [
        line
        for process in cluster.processes
        for line in process.log.splitlines()
        if "Traceback" in line and "it was meant to fail" not in line
    ]
    assert faults == []


@pytest.fixture
def a(cluster: Cluster) -> Process:
    return cluster.processes[0]


@pytest.fixture
def b(cluster: Cluster) -> Process:
    return cluster.processes[1]


def talk(process: Process, thread: str, n: int, pause: float, **more: Any) -> str:
    return process.run(
        thread, "talk", input={"n": n, "pause": pause}, stream_mode=["custom", "values"], **more
    )


def test_a_created_run_is_streamed_from_its_first_event(a: Process) -> None:
    body = {"assistant_id": "talk", "input": {"n": 300}, "stream_mode": "custom"}
    for path in ("/runs/stream", f"/threads/{a.thread()}/runs/stream"):
        with stream(a, path, body) as events:
            found = list(events)
        assert [event.name for event in found] == ["metadata"] + ["custom"] * 300
        numbers = [json.loads(event.data)["number"] for event in found[1:]]
        assert numbers == list(range(300))


def test_who_waits_at_a_process_that_stood_still_is_answered(
    a: Process, b: Process, cluster: Cluster
) -> None:
    """It has missed more than it may hold for a reader of events."""
    thread, elsewhere = a.thread(), b.thread()
    size = {"n": 250, "size": 500_000, "pause": 0.002}
    run = a.run(thread, "talk", input=size, stream_mode=["custom"], after_seconds=1)
    answers: list[Any] = []
    reader = Follower(a, f"/threads/{thread}/runs/{run}/stream")
    path = f"/threads/{thread}/runs/{run}/join"
    waiting = threading.Thread(target=lambda: answers.append(a.call("GET", path)))
    waiting.start()
    until(lambda: len(reader.events) > 10, "the first events")
    a.signal(signal.SIGSTOP)
    try:
        assert b.ended(thread, run) == "success"
    finally:
        a.signal(signal.SIGCONT)
    waiting.join(30)
    reader.join(30)
    assert [answer["log"] for answer in answers] == [["spoken"]]
    run = talk(b, elsewhere, 5, 0.0)
    assert a.call("GET", f"/threads/{elsewhere}/runs/{run}/join")["log"] == ["spoken"]


def test_all_observers_see_the_same(a: Process, b: Process) -> None:
    thread = a.thread()
    run = talk(a, thread, 60, 0.02, stream_resumable=True)
    path = f"/threads/{thread}/runs/{run}/stream"
    until(lambda: a.status(thread, run) == "running", "the run to begin")
    whole = [Follower(process, path, "-") for process in (a, b, a, b)]
    later = [Follower(process, path) for process in (a, b)]
    on_thread = [Follower(b, f"/threads/{thread}/stream", "-")]
    for follower in (*whole, *later):
        follower.join(30)
    a.call("DELETE", f"/threads/{thread}")
    on_thread[0].join(10)
    first = whole[0].seen
    assert len(first) == 63
    assert all(follower.seen == first for follower in whole)
    ids = [tuple(map(int, id.split("-"))) for id, _, _ in first]
    assert ids == sorted(set(ids))
    for follower in later:
        assert follower.seen
        assert follower.seen == first[-len(follower.seen) :]
    assert on_thread[0].seen[: len(first)] == first


def test_a_client_that_comes_back_to_another_process_goes_on_exactly(
    a: Process, b: Process
) -> None:
    thread = a.thread()
    run = talk(a, thread, 80, 0.01, stream_resumable=True)
    path = f"/threads/{thread}/runs/{run}/stream"
    seen: list[tuple[str, str]] = []
    last, turn = "-", 0
    while True:
        with stream((a, b)[turn % 2], path, last=last) as events:
            taken = 0
            for event in events:
                seen.append((event.id, event.data))
                last, taken = event.id, taken + 1
                if taken == 7:
                    break
            else:
                break
        turn += 1
    numbers = [json.loads(data)["number"] for _, data in seen if "number" in data]
    assert numbers == list(range(80))
    assert len(seen) == len(set(seen)) == 83
    assert turn > 8


def test_every_waiter_hears_the_end(a: Process, b: Process) -> None:
    thread = a.thread()
    run = a.run(thread, "count", input={"pause": 0.6, "token": "x"})
    answers: dict[str, Any] = {}

    def join(process: Process, key: str) -> None:
        answers[key] = process.call("GET", f"/threads/{thread}/runs/{run}/join")

    threads = [
        threading.Thread(target=join, args=(process, f"{process.name}{number}"))
        for process in (a, b)
        for number in range(3)
    ]
    for one in threads:
        one.start()
    for one in threads:
        one.join(30)
    assert len(answers) == 6
    assert all(answer["log"] == ["x:one"] for answer in answers.values())


def test_the_outcome_of_a_run_that_leaves_nothing_behind(a: Process, b: Process) -> None:
    for process in (a, b):
        body = {"assistant_id": "count", "input": {"token": "y"}}
        assert process.call("POST", "/runs/wait", body)["log"] == ["y:one"]
        failed = process.call("POST", "/runs/wait", {"assistant_id": "fail", "input": {}})
        assert failed["__error__"]["message"] == "it was meant to fail"
    answer = a.http.post("/runs", json={"assistant_id": "count", "input": {"pause": 0.8}})
    run = answer.json()
    joined = b.call("GET", f"/threads/{run['thread_id']}/runs/{run['run_id']}/join")
    assert joined["log"] == [":one"]


@pytest.mark.parametrize("action", ["interrupt", "rollback"])
def test_a_cancel_crosses_processes(
    a: Process, b: Process, action: str, record_property: Callable[[str, Any], None]
) -> None:
    took: list[float] = []
    for _ in range(5):
        thread = a.thread()
        run = talk(a, thread, 1000, 0.02)
        a.begun(thread, run)
        follower = Follower(a, f"/threads/{thread}/runs/{run}/stream")
        begun = time.monotonic()
        b.call("POST", f"/threads/{thread}/runs/{run}/cancel?wait=1&action={action}")
        took.append(time.monotonic() - begun)
        follower.join(5)
        assert not follower.is_alive()
        if action == "interrupt":
            assert a.status(thread, run) == "interrupted"
        else:
            assert a.http.get(f"/threads/{thread}/runs/{run}").status_code == 404
    record_property("cancel_seconds", took)
    print(f"cancel ({action}): {sorted(round(1000 * one) for one in took)} ms")
    assert min(took) < 0.25


def test_a_pending_run_that_is_cancelled_elsewhere_ends_for_its_waiters(
    a: Process, b: Process
) -> None:
    thread = a.thread()
    run = a.run(thread, "count", input={}, after_seconds=60)
    follower = Follower(a, f"/threads/{thread}/runs/{run}/stream")
    b.call("POST", f"/threads/{thread}/runs/{run}/cancel")
    follower.join(5)
    assert not follower.is_alive()


@pytest.mark.parametrize("what", ["run", "thread"])
def test_a_deletion_ends_streams_everywhere(a: Process, b: Process, what: str) -> None:
    thread = a.thread()
    run = talk(a, thread, 2000, 0.02)
    a.begun(thread, run)
    path = f"/threads/{thread}/runs/{run}"
    followers = [Follower(process, f"{path}/stream") for process in (a, b)]
    if what == "thread":
        followers.append(Follower(a, f"/threads/{thread}/stream"))
    begun = time.monotonic()
    b.call("DELETE", path if what == "run" else f"/threads/{thread}")
    for follower in followers:
        follower.join(10)
        assert not follower.is_alive()
    print(f"deletion of a {what}: {round(1000 * (time.monotonic() - begun))} ms")
    assert time.monotonic() - begun < 5


def test_the_stream_of_a_thread_has_the_runs_of_all_workers(a: Process, b: Process) -> None:
    thread = a.thread()
    followers = [Follower(process, f"/threads/{thread}/stream") for process in (a, b)]
    pids: set[int] = set()
    for turn in range(12):
        process = (a, b)[turn % 2]
        body = {"assistant_id": "count", "input": {"token": str(turn)}}
        pids |= set(process.call("POST", f"/threads/{thread}/runs/wait", body)["pids"])
    until(lambda: all(len(f.events) >= 12 * 4 for f in followers), "all events of all runs")
    b.call("DELETE", f"/threads/{thread}")
    for follower in followers:
        follower.join(10)
    assert followers[0].seen == followers[1].seen
    ids = [tuple(map(int, id.split("-"))) for id, _, _ in followers[0].seen if id]
    assert ids == sorted(set(ids))
    assert len(pids) >= 1


def test_a_state_update_has_its_place_among_the_events(a: Process, b: Process) -> None:
    thread = a.thread()
    a.call("POST", f"/threads/{thread}/runs/wait", {"assistant_id": "count", "input": {}})
    path = f"/threads/{thread}/stream?stream_modes=state_update,run_modes"
    followers = [Follower(process, path) for process in (a, b)]
    for turn in range(3):
        (a, b)[turn % 2].call("POST", f"/threads/{thread}/state", {"values": {"log": [f"{turn}"]}})
    until(lambda: all(len(f.events) == 3 for f in followers), "the updates")
    run = talk(a, thread, 40, 0)
    a.ended(thread, run)
    a.call("POST", f"/threads/{thread}/state", {"values": {"log": ["after"]}})
    until(lambda: all(f.events[-1].name == "state_update" for f in followers), "the last update")
    a.call("DELETE", f"/threads/{thread}")
    for follower in followers:
        follower.join(10)
    assert followers[0].seen == followers[1].seen
    names = [name for _, name, _ in followers[0].seen]
    assert names.count("state_update") == 4
    ids = [tuple(map(int, id.split("-"))) for id, _, _ in followers[0].seen]
    assert ids == sorted(set(ids))


def test_a_run_that_nobody_watches_costs_nothing(a: Process, cluster: Cluster) -> None:
    thread = a.thread()
    with psycopg.connect(cluster.database, autocommit=True) as connection:
        connection.execute("DELETE FROM live_batches")
        runs = [talk(a, thread, 200, 0) for _ in range(3)]
        for run in runs:
            assert a.ended(thread, run) == "success"
        sql = "SELECT count(*) FROM live_batches"
        assert connection.execute(sql).fetchone() == (0,)


def test_what_is_no_longer_read_is_no_longer_watched(a: Process, cluster: Cluster) -> None:
    thread = a.thread()
    run = talk(a, thread, 3, 0)
    a.call("GET", f"/threads/{thread}/runs/{run}/join")
    with psycopg.connect(cluster.database, autocommit=True) as connection:

        def tidy() -> bool:
            found = [
                connection.execute(f"SELECT count(*) FROM {table}").fetchone()
                for table in ("watches", "live_batches")
            ]
            return found == [(0,), (0,)]

        until(tidy, "nothing left of it", 15)
