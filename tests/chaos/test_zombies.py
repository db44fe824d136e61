"""A server that is stopped for longer than its lease: another takes over, and it comes back."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from arena import Server, until

LEASE = {"treadle.runs.lease:LEASE_SECONDS": 1.0, "treadle.runs.lease:RENEW_SECONDS": 0.2}
LOST = 3
NOTICING_SECONDS = 4.0


@pytest.fixture
def servers(make_server: Callable[..., Server]) -> Iterator[tuple[Server, Server]]:
    """Two servers of one database, of which none runs yet."""
    return make_server(), make_server()


def stop(server: Server) -> None:
    """SIGSTOP between two transactions: one who is stopped within keeps SQLite's lock."""
    time.sleep(0.1)
    server.signal(signal.SIGSTOP)


def take_over(server: Server) -> None:
    """Start a server beside one that is stopped, as soon as the lease of that one is over."""
    server.start(set=LEASE, ready=False)
    assert server.wait() == 1, "it took over before the lease was over"
    assert "is in use by process" in server.log

    def lives() -> bool:
        server.start(set=LEASE, ready=False)
        return until(lambda: server.exit_code or server.answers(), "a start") is True

    until(lives, "the lease to end")


def kept(server: Server, run_id: str) -> list[dict[str, Any]]:
    sql = "SELECT id, kind, name FROM events WHERE run_id = :run_id ORDER BY id"
    return server.database.rows(sql, run_id=run_id)


@pytest.mark.parametrize("durability", ["sync", "async"])
@pytest.mark.parametrize("notices", ["at once", "late"])
def test_the_writes_of_a_zombie_are_refused(
    servers: tuple[Server, Server], durability: str, notices: str
) -> None:
    zombie, heir = servers
    constants: dict[str, Any] = dict(LEASE)
    if notices == "late":  # it goes on with its run before it asks for its lease
        constants["treadle.runs.lease:RENEW_SECONDS"] = NOTICING_SECONDS
        constants["treadle.runs.lease:LEASE_SECONDS"] = 1.5
    zombie.start(set=constants)
    thread_id = zombie.thread()
    run_id = zombie.run(
        thread_id,
        "steps",
        input={"token": "A", "seconds": 0.3},
        durability=durability,
        stream_resumable=True,
        stream_mode=["values", "updates"],
    )
    until(lambda: "two" in zombie.journal.nodes(run_id), "the second node")
    stop(zombie)
    take_over(heir)
    assert heir.ended(thread_id, run_id) == "success"
    before, nodes = kept(heir, run_id), heir.journal.nodes(run_id)
    assert nodes in (["one", "two", "two", "three"], ["one", "two", "one", "two", "three"])
    zombie.signal(signal.SIGCONT)
    assert zombie.wait(NOTICING_SECONDS + 2) == LOST
    assert kept(heir, run_id) == before
    assert [event["kind"] for event in before].count("end") == 1
    assert before[-1]["kind"] == "end"
    if durability == "sync":
        assert heir.journal.nodes(run_id) == nodes, "the zombie began another node"
    thread = heir.call("GET", f"/threads/{thread_id}")
    assert thread["status"] == "idle"
    assert thread["values"]["log"] == ["A:one", "A:two", "A:three"]
    assert heir.status(thread_id, run_id) == "success"
    assert heir.database.faults() == []


def test_an_idle_zombie_ends_as_well(servers: tuple[Server, Server]) -> None:
    zombie, heir = servers
    zombie.start(set=LEASE)
    stop(zombie)
    take_over(heir)
    zombie.signal(signal.SIGCONT)
    assert zombie.wait(NOTICING_SECONDS) == LOST
    thread_id = heir.thread()
    assert heir.ended(thread_id, heir.run(thread_id, "steps", input={})) == "success"


def test_the_heir_may_die_too(
    servers: tuple[Server, Server], make_server: Callable[..., Server]
) -> None:
    zombie, heir = servers
    second = make_server()
    zombie.start(set=LEASE)
    thread_id = zombie.thread()
    run_id = zombie.run(thread_id, "steps", input={"token": "A", "seconds": 0.5}, durability="sync")
    until(lambda: "two" in zombie.journal.nodes(run_id), "the second node")
    stop(zombie)
    take_over(heir)
    until(lambda: zombie.journal.nodes(run_id).count("two") == 2, "the second attempt")
    heir.kill()
    take_over(second)
    assert second.ended(thread_id, run_id) == "success"
    zombie.signal(signal.SIGCONT)
    assert zombie.wait(NOTICING_SECONDS) == LOST
    values = second.call("GET", f"/threads/{thread_id}/state")["values"]
    assert values["log"] == ["A:one", "A:two", "A:three"]
    assert second.database.faults() == []
