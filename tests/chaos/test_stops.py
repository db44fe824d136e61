"""Cancels and deletes reach what is executed at once, and everybody who watches it."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import pytest
from arena import Listener, Server, overlaps, parse_events, until

HEARD_SECONDS = 0.1
GONE = "404: Run not found"


def test_a_node_that_waits_hears_of_its_cancel_within_a_moment(server: Server) -> None:
    server.start()
    delays: list[float] = []
    for _ in range(5):
        thread_id = server.thread()
        run_id = server.run(thread_id, "steps", input={"seconds": 30})
        until(lambda r=run_id: server.journal.nodes(r), "the node")
        called = time.monotonic_ns()
        server.call("POST", f"/threads/{thread_id}/runs/{run_id}/cancel")
        assert server.ended(thread_id, run_id) == "interrupted"
        (visit,) = (visit for visit in server.journal.visits() if visit.run == run_id)
        assert not visit.done
        delays.append((visit.end - called) / 1e9)
    assert statistics.median(delays) < HEARD_SECONDS, delays


def test_a_graph_that_blocks_its_own_loop_is_left_behind_but_its_thread_waits(
    make_server: Callable[..., Server],
) -> None:
    server = make_server(BG_JOB_ISOLATED_LOOPS="true")
    server.start()
    thread_id = server.thread()
    path = f"/threads/{thread_id}/runs"
    first = server.run(thread_id, "frozen", input={"token": "A", "seconds": 2.0})
    until(lambda: server.journal.nodes(first), "the node")
    waiting = [
        server.run(thread_id, "steps", input={"token": token, "seconds": 0.0}) for token in "BC"
    ]
    for run_id in (first, waiting[0]):
        begun = time.monotonic()
        server.call("POST", f"{path}/{run_id}/cancel?wait=1")
        assert server.status(thread_id, run_id) == "interrupted"
        assert time.monotonic() - begun < 0.6, "who cancels need not wait for the node"
    assert server.ended(thread_id, waiting[1]) == "success"
    assert server.journal.nodes(waiting[0]) == []
    assert overlaps(server.journal.visits()) == []
    log = server.call("GET", f"/threads/{thread_id}/state")["values"]["log"]
    assert log == ["C:one", "C:two", "C:three"]
    assert server.database.faults() == []


@pytest.mark.parametrize("resumable", [True, False])
@pytest.mark.parametrize("what", ["run", "thread"])
def test_what_is_deleted_in_flight_ends_with_its_streams(
    server: Server, what: str, resumable: bool
) -> None:
    server.start()
    thread_id = server.thread()
    path = f"/threads/{thread_id}"
    options = {"durability": "sync", "stream_resumable": resumable}
    run_id = server.run(thread_id, "steps", input={"token": "A", "seconds": 0.7}, **options)
    waiting = server.run(thread_id, "steps", input={"token": "B", "seconds": 0}, **options)
    until(lambda: "two" in server.journal.nodes(run_id), "the second node")
    of_run, of_waiting, of_thread = (
        Listener(server, f"{path}{rest}/stream")
        for rest in (f"/runs/{run_id}", f"/runs/{waiting}", "")
    )
    streams = of_run, of_waiting, of_thread
    until(lambda: all(listener.is_open for listener in streams), "the streams' beginning")
    deleted = time.monotonic_ns()
    server.call("DELETE", path if what == "thread" else f"{path}/runs/{run_id}")
    last = parse_events(of_run.end())[-1]
    assert of_run.whole
    assert (last.name, last.data["message"]) == ("error", GONE)
    *_, visit = (visit for visit in server.journal.visits() if visit.run == run_id)
    assert (visit.node, visit.done) == ("two", False)
    assert (visit.end - deleted) / 1e9 < 0.25, "the node was not told"
    if what == "run":
        assert server.ended(thread_id, waiting) == "success"
        log = server.call("GET", f"{path}/state")["values"]["log"]
        assert log == ["B:one", "B:two", "B:three"]
        assert parse_events(of_waiting.end())[-1].name != "error"
        server.call("DELETE", path)
    for listener in (of_waiting, of_thread):
        listener.end()
        assert listener.whole
    assert server.http.get(path).status_code == 404
    until(lambda: server.database.traces(thread_id, run_id, waiting) == [], "the last trace to go")
    assert "three" not in server.journal.nodes(run_id)
    if what == "thread":
        assert server.journal.nodes(waiting) == []
    assert server.database.faults() == []
