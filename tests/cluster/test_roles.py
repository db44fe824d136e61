"""What a process does: answers requests, executes runs, or both; and several at one socket."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import httpx
import psycopg
import pytest
from houses import CONFIG, HERE, Cluster, Follower, until


@pytest.mark.parametrize(
    "command", [["worker"], ["serve", "--api-only"], ["serve", "--processes", "2"]]
)
def test_several_processes_need_postgres(command: list[str], tmp_path: Path) -> None:
    port = [] if command == ["worker"] else ["--port", "0"]
    arguments = [*command, *port, "--config", str(CONFIG), "--db", str(tmp_path / "t.db")]
    done = subprocess.run(
        [sys.executable, "-m", "treadle", *arguments],
        capture_output=True,
        text=True,
        timeout=30,
        env={**os.environ, "LOG_JSON": "false"},
    )
    assert done.returncode == 1
    (line,) = done.stderr.strip().splitlines()
    assert "needs PostgreSQL: an SQLite file serves one process alone" in line


def test_a_worker_takes_only_the_runs_of_its_graphs(make_cluster: Callable[..., Cluster]) -> None:
    cluster = make_cluster()
    api = cluster.api("api")
    narrow = cluster.worker("narrow")
    narrow._command[narrow._command.index(str(CONFIG))] = str(HERE / "other.json")
    cluster.start()
    thread = api.thread()
    run = api.run(thread, "steps", input={})
    other = api.call("POST", "/runs/wait", {"assistant_id": "count", "input": {}})
    assert other["log"] == [":one"]
    time.sleep(0.3)
    assert api.status(thread, run) == "pending"
    behind = api.run(thread, "count", input={})
    cluster.worker("wide")
    cluster.start()
    assert api.ended(thread, run) == "success"
    assert api.ended(thread, behind) == "success"
    figures = httpx.get(f"{narrow.url}/metrics?format=json").json()
    assert figures["workers"]["max"] > 0
    assert httpx.get(f"{narrow.url}/threads").status_code == 404
    assert api.call("GET", "/metrics?format=json")["workers"]["max"] == 0


def test_a_worker_that_stops_hands_its_runs_over(make_cluster: Callable[..., Cluster]) -> None:
    cluster = make_cluster(BG_JOB_SHUTDOWN_GRACE_PERIOD_SECS="10")
    api, *workers = cluster.api("api"), cluster.worker("one"), cluster.worker("two")
    cluster.start()
    thread = api.thread()
    run = api.run(thread, "steps", input={"pause": 1, "token": "t"}, stream_resumable=True)
    api.begun(thread, run)
    follower = Follower(api, f"/threads/{thread}/runs/{run}/stream", "-")
    with psycopg.connect(cluster.database) as connection:
        [[owner]] = connection.execute("SELECT owner FROM runs WHERE run_id = %s", (run,))
    [one] = [worker for worker in workers if owner.split(":")[1] == str(worker.pid)]
    begun = time.monotonic()
    one.signal(signal.SIGTERM)
    assert api.ended(thread, run) == "success"
    took = time.monotonic() - begun
    assert one.wait() in (0, -signal.SIGTERM)
    values = api.call("GET", f"/threads/{thread}/state")["values"]
    assert values["log"] == ["t:one", "t:two", "t:three"]
    assert took < 8
    follower.join(10)
    assert not follower.broke
    attempts = [event for event in follower.events if event.name == "metadata"]
    assert len(attempts) == len(set(values["pids"]))
    ids = [tuple(map(int, event.id.split("-"))) for event in follower.events]
    assert ids == sorted(set(ids))


def test_several_processes_at_one_socket(make_cluster: Callable[..., Cluster]) -> None:
    cluster = make_cluster(BG_JOB_SHUTDOWN_GRACE_PERIOD_SECS="1")
    server = cluster.make("server", "serve", "--processes", "2")
    cluster.start()
    pids: set[int] = set()

    def both() -> bool:
        with httpx.Client(base_url=server.url, timeout=20) as client:
            answer = client.post("/runs/wait", json={"assistant_id": "count", "input": {}})
            pids.update(answer.json()["pids"])
        return len(pids) >= 2

    until(both, "runs in both processes")
    first = set(pids)
    victim = first.pop()
    os.kill(victim, signal.SIGKILL)
    pids.discard(victim)
    until(lambda: both() and victim not in pids, "a process in its place", 40)
    server.signal(signal.SIGTERM)
    assert server.wait() == 0
    for pid in pids:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_to_the_whole_group_drains_like_one_to_its_leader(
    make_cluster: Callable[..., Cluster], number: signal.Signals
) -> None:
    """So do a terminal's Ctrl-C, and systemd without KillMode=mixed."""
    cluster = make_cluster(BG_JOB_SHUTDOWN_GRACE_PERIOD_SECS="10")
    server = cluster.make("server", "serve", "--processes", "2")
    cluster.start()
    thread = server.thread()
    run = server.run(thread, "count", input={"pause": 1.5})
    server.begun(thread, run)
    os.killpg(server.pid, number)
    server.wait()
    with psycopg.connect(cluster.database) as connection:
        [[status]] = connection.execute("SELECT status FROM runs WHERE run_id = %s", (run,))
    assert status == "success"


def test_processes_end_with_the_one_that_started_them(make_cluster: Callable[..., Cluster]) -> None:
    cluster = make_cluster()
    server = cluster.make("server", "serve", "--processes", "2")
    cluster.start()
    pid = server.call("POST", "/runs/wait", {"assistant_id": "count", "input": {}})["pids"][0]
    server.kill()

    def gone() -> bool:
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return True
        return Path(f"/proc/{pid}/stat").read_text().split()[2] == "Z"

    until(gone, "the servers to end")


def test_servers_that_cannot_start_say_so_once_and_end(
    make_cluster: Callable[..., Cluster],
) -> None:
    cluster = make_cluster(database="postgresql://nobody@127.0.0.1:1/none")
    server = cluster.make("server", "serve", "--processes", "3", TREADLE_POSTGRES_WAIT_SECS="0")
    server.start(ready=False)
    assert server.wait(30) == 1
    assert "did not answer for 0 s" in server.log
