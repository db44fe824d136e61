"""SIGTERM: nothing is lost, nothing happens twice, and nobody has to wait for it."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable

import httpx
import pytest
from arena import Listener, Server, overlaps, parse_events, until

NODES = ["one", "two", "three"]
SLACK_SECONDS = 2.0


def drain(server: Server, within: float) -> None:
    """SIGTERM, and wait for the end."""
    begun = time.monotonic()
    server.signal(signal.SIGTERM)
    code = server.wait(within + SLACK_SECONDS)
    assert code in (0, -signal.SIGTERM), server.log
    assert time.monotonic() - begun < within + SLACK_SECONDS


def test_runs_go_on_where_a_drain_left_them(server: Server) -> None:
    server.start()
    runs = []
    for _ in range(3):
        thread_id = server.thread()
        for token in "AB":
            body = {"token": token, "seconds": 0.3}
            run_id = server.run(
                thread_id, "steps", input=body, stream_resumable=True, durability="async"
            )
            runs.append((thread_id, run_id))
    (thread_id, run_id), last = runs[0], runs[-1]
    stream = f"/threads/{thread_id}/runs/{run_id}/stream"
    listeners = [Listener(server, stream), Listener(server, f"/threads/{thread_id}/stream")]
    until(lambda: all(listener.is_open for listener in listeners), "the streams' beginning")
    until(lambda: "two" in server.journal.nodes(run_id), "the second node")
    drain(server, 0.6)
    first, _ = (listener.end() for listener in listeners)
    assert all(listener.whole for listener in listeners)
    server.start()
    for place in runs:
        assert server.ended(*place) == "success"
        assert server.journal.nodes(place[1]) == NODES
        assert {v.attempt for v in server.journal.visits() if v.run == place[1]} == {1}
    assert overlaps(server.journal.visits()) == []
    seen = parse_events(first)
    rest = parse_events(Listener(server, stream, seen[-1].id).end())
    whole = parse_events(Listener(server, stream).end())
    assert seen + rest == whole
    assert {event.data["attempt"] for event in whole if event.name == "metadata"} == {1}
    values = server.call("GET", f"/threads/{last[0]}/state")["values"]
    assert values["log"] == [f"{token}:{node}" for token in "AB" for node in NODES]
    assert server.database.faults() == []


def test_a_run_that_is_cut_off_uses_no_attempt_up(make_server: Callable[..., Server]) -> None:
    server = make_server(BG_JOB_SHUTDOWN_GRACE_PERIOD_SECS="0.2")
    server.start()
    thread_id = server.thread()
    run_id = server.run(
        thread_id, "steps", input={"token": "A", "seconds": 1.0}, stream_resumable=True
    )
    for time_around in range(1, 6):
        until(lambda n=time_around: len(server.journal.nodes(run_id)) == n, "a node")
        drain(server, 0.2)
        server.start()
    assert server.ended(thread_id, run_id) == "success"
    assert server.journal.nodes(run_id) == ["one"] * 6 + ["two", "three"]
    assert {visit.attempt for visit in server.journal.visits()} == {1}
    assert server.database.faults() == []


def test_a_second_signal_ends_it_at_once(make_server: Callable[..., Server]) -> None:
    server = make_server(BG_JOB_SHUTDOWN_GRACE_PERIOD_SECS="20")
    server.start()
    thread_id = server.thread()
    run_id = server.run(thread_id, "steps", input={"token": "A", "seconds": 3.0}, durability="sync")
    until(lambda: server.journal.nodes(run_id), "the first node")
    server.signal(signal.SIGTERM)
    until(lambda: _is_deaf(server), "the drain to begin")
    server.signal(signal.SIGTERM)  # of the same stop
    begun = time.monotonic()

    def has_ended() -> bool:
        if server.exit_code is None:
            server.signal(signal.SIGTERM)
        return server.exit_code is not None

    until(has_ended, "the end")
    assert server.wait(1.0) == 128 + signal.SIGTERM
    assert 0.2 < time.monotonic() - begun < 1.5
    server.start()
    assert server.status(thread_id, run_id) in ("pending", "running")
    server.call("POST", f"/threads/{thread_id}/runs/{run_id}/cancel?wait=1")
    assert server.database.faults() == []


def _is_deaf(server: Server) -> bool:
    try:
        httpx.get(f"{server.url}/ok", timeout=1)
    except httpx.HTTPError:
        return True
    return False


def test_a_node_that_nobody_can_cancel_does_not_hold_it_up(
    make_server: Callable[..., Server],
) -> None:
    server = make_server(BG_JOB_SHUTDOWN_GRACE_PERIOD_SECS="0.3")
    server.start()
    thread_id = server.thread()
    run_id = server.run(thread_id, "blocking", input={"token": "A", "seconds": 6.0})
    until(lambda: server.journal.nodes(run_id), "the node")
    drain(server, 0.3)
    server.start()
    until(lambda: len(server.journal.nodes(run_id)) == 2, "the node, again")
    assert overlaps(server.journal.visits()) == []


def test_who_waits_is_answered(server: Server) -> None:
    """A stateless run has no checkpoint to go on from: it is let to its end."""
    server.start()
    answers: list[httpx.Response] = []
    body = {"assistant_id": "steps", "input": {"token": "A", "seconds": 0.2}}

    def wait() -> None:
        answers.append(httpx.post(f"{server.url}/runs/wait", json=body, timeout=30))

    client = threading.Thread(target=wait)
    client.start()
    until(server.journal.visits, "the first node")
    drain(server, 1.0)
    client.join(10)
    assert answers[0].json()["log"] == ["A:one", "A:two", "A:three"]
    assert server.database.faults() == []
    assert server.database.rows("SELECT * FROM runs") == []


@pytest.mark.parametrize("graph", ["steps", "stubborn"])
def test_pending_and_scheduled_runs_are_not_begun_and_not_lost(server: Server, graph: str) -> None:
    server.start()
    thread_id, other = server.thread(), server.thread()
    later = server.run(other, graph, input={"token": "L"}, after_seconds=1.0)
    begun = time.monotonic()
    first = server.run(thread_id, graph, input={"token": "A", "seconds": 0.5})
    second = server.run(thread_id, graph, input={"token": "B"})
    until(lambda: server.journal.nodes(first), "the first node")
    drain(server, 2.0)
    assert server.journal.nodes(second) == []
    server.start()
    assert server.ended(thread_id, second) == "success"
    assert server.status(thread_id, first) == "success"
    assert server.ended(other, later) == "success"
    visits = [visit for visit in server.journal.visits() if visit.run == later]
    assert visits[0].start / 1e9 >= begun + 0.95
    assert overlaps(server.journal.visits()) == []
    assert server.database.faults() == []
