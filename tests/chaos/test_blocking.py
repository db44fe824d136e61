"""Nodes that block: nothing is executed twice, the API answers, and the log says who it was."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from arena import LONG, Server, until
from graphs import freeze

LEASE_SECONDS = 1.0
CONSTANTS = {
    "treadle.runs.lease:LEASE_SECONDS": LEASE_SECONDS,
    "treadle.runs.lease:RENEW_SECONDS": 0.2,
    "treadle.runs.worker:SWEEP_SECONDS": 0.1,
}
THREE_LEASES_SECONDS = 3.2 * LEASE_SECONDS
ANSWER_SECONDS = 0.1
LATE = "SELECT lease_until <= :now AS late FROM workers"


def is_late(server: Server) -> bool:
    """Whether the server's lease has ended."""
    now = time.time_ns() // 1000
    return bool(server.database.one(LATE, now=now)["late"])


@pytest.mark.parametrize("isolated", ["false", "true"])
@pytest.mark.parametrize(
    ("graph", "deep"),
    [("blocking", False), ("frozen", False), ("frozen", True)],
    ids=["a thread sleeps", "the loop sleeps", "a C call holds the GIL"],
)
def test_who_blocks_for_three_leases_is_executed_once(
    make_server: Callable[..., Server], graph: str, deep: bool, isolated: str
) -> None:
    server = make_server(BG_JOB_ISOLATED_LOOPS=isolated)
    server.start(set=CONSTANTS)
    thread_id = server.thread()
    body = {"token": "A", "seconds": THREE_LEASES_SECONDS, "deep": deep}
    run_id = server.run(thread_id, graph, input=body, durability="sync", stream_resumable=True)
    until(server.journal.visits, "the node")
    was_late = False
    while not server.journal.visits()[0].done:
        was_late |= is_late(server)
        time.sleep(0.05)
    assert was_late == deep, "only who holds all threads keeps the lease from being renewed"
    assert server.ended(thread_id, run_id) == "success"
    (visit,) = server.journal.visits()
    assert (visit.end - visit.start) / 1e9 >= 3 * LEASE_SECONDS
    assert visit.attempt == 1
    until(lambda: not is_late(server), "the lease to be renewed")
    after = server.run(thread_id, "steps", input={"token": "B", "seconds": 0})
    assert server.ended(thread_id, after) == "success"
    log = server.call("GET", f"/threads/{thread_id}/state")["values"]["log"]
    assert len(log) == 4
    assert server.exit_code is None
    assert server.database.faults() == []


def test_with_loops_of_their_own_the_api_answers_while_a_node_sleeps(
    make_server: Callable[..., Server],
) -> None:
    server = make_server(BG_JOB_ISOLATED_LOOPS="true")
    server.start()
    thread_id = server.thread()
    run_id = server.run(thread_id, "frozen", input={"seconds": 5.0 if LONG else 1.5})
    until(server.journal.visits, "the node")
    waits: list[float] = []
    while not server.journal.visits()[0].done:
        begun = time.monotonic()
        assert server.http.get("/ok").status_code == 200
        waits.append(time.monotonic() - begun)
        time.sleep(0.01)
    assert len(waits) > 50
    assert max(waits) < ANSWER_SECONDS, sorted(waits)[-10:]
    assert server.ended(thread_id, run_id) == "success"


def test_without_them_the_log_names_who_blocked_once(make_server: Callable[..., Server]) -> None:
    server = make_server(LOG_JSON="true")
    server.start(
        set={"treadle.blocking:PATIENCE_SECONDS": 0.2, "treadle.blocking:PAUSE_SECONDS": 0.05}
    )
    thread_id = server.thread()
    for _ in range(2):
        run_id = server.run(thread_id, "frozen", input={"seconds": 1.0})
        until(lambda: len(server.journal.visits()) > 0, "the node")
        with pytest.raises(httpx.TimeoutException):
            httpx.get(f"{server.url}/ok", timeout=0.3)
        assert server.ended(thread_id, run_id) == "success"
        until(lambda r=run_id: server.journal.nodes(r) == ["freeze"], "its end")
    (line,) = lines_about(server, "the event loop was blocked")
    code = freeze.__code__
    assert line["file"] == code.co_filename
    assert code.co_firstlineno < line["line"] < code.co_firstlineno + 10
    assert (line["graph"], line["node"]) == ("frozen", "freeze")


def lines_about(server: Server, text: str) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in server.log.splitlines() if line.startswith("{")]
    return [line for line in lines if text in line["event"]]
