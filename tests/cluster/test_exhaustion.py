"""Connections to PostgreSQL are few: clients share them, and are told when there is none."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import httpx
import psycopg
import pytest
from conftest import OwnPostgres
from houses import Cluster, Follower, Process, new_name, until

FEWEST = 6
CLIENTS = 60
LISTED = {"stream_mode": ["custom"], "stream_resumable": True}


class Role:
    """A role that owns a database and is no superuser, so that its connections can be limited."""

    def __init__(self, postgres: OwnPostgres) -> None:
        self.name = f"app_{new_name()}"
        self._admin = psycopg.connect(postgres.uri("postgres"), autocommit=True)
        self._admin.execute(f"CREATE ROLE {self.name} LOGIN".encode())
        self._admin.execute(f"CREATE DATABASE {self.name} OWNER {self.name}".encode())
        self.uri = postgres.uri(self.name).replace("postgres@", f"{self.name}@")

    def limit(self, connections: int) -> None:
        self._admin.execute(f"ALTER ROLE {self.name} CONNECTION LIMIT {connections}".encode())

    def sessions(self) -> int:
        found = self._admin.execute(
            "SELECT count(*) FROM pg_stat_activity WHERE usename = %s", (self.name,)
        ).fetchone()
        assert found is not None
        return found[0]

    def kill_sessions(self) -> None:
        self._admin.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = %s",
            (self.name,),
        )

    def close(self) -> None:
        self._admin.close()


@pytest.fixture
def role(postgres: OwnPostgres) -> Iterator[Role]:
    role = Role(postgres)
    yield role
    role.close()


@pytest.fixture
def server(role: Role, make_cluster: Callable[..., Cluster]) -> Process:
    cluster = make_cluster(role.uri, TREADLE_POSTGRES_CONNECTIONS=str(FEWEST))
    server = cluster.server("server")
    cluster.start()
    return server


def test_many_clients_share_the_fewest_connections(role: Role, server: Process) -> None:
    """Scans, of which one runs at a time, beside streams, waits and writes: all are answered."""
    most, done = 0, threading.Event()
    followed = server.thread()
    run = server.run(followed, "talk", input={"n": 100, "pause": 0.02}, **LISTED)
    path = f"/threads/{followed}/runs/{run}/stream"
    followers = [Follower(server, path, "-") for _ in range(30)]

    def client(number: int) -> None:
        thread = server.thread()
        for _ in range(3):
            server.call("POST", "/threads/search", {"values": {"log": [f"{number}:one"]}})
            body = {"assistant_id": "count", "input": {"token": str(number)}}
            answer = server.call("POST", f"/threads/{thread}/runs/wait", body)
            assert answer["log"][-1] == f"{number}:one"
        found = server.call("POST", "/threads/search", {"values": {"log": [f"{number}:one"]}})
        assert [one["thread_id"] for one in found] == [thread]

    def watch() -> None:
        nonlocal most
        while not done.wait(0.02):
            most = max(most, role.sessions())

    watching = threading.Thread(target=watch)
    watching.start()
    try:
        with ThreadPoolExecutor(CLIENTS) as pool:
            list(pool.map(client, range(CLIENTS)))
    finally:
        done.set()
        watching.join()
    for follower in followers:
        follower.join(20)
        assert not follower.broke
        assert follower.seen == followers[0].seen
    assert len(followers[0].seen) > 100
    assert 3 < most <= FEWEST


def test_without_a_connection_requests_are_refused_and_runs_go_on(
    role: Role, server: Process
) -> None:
    thread = server.thread()
    run = server.run(thread, "steps", input={"pause": 1.0, "token": "t"})
    server.begun(thread, run)
    role.limit(0)
    role.kill_sessions()
    began = time.monotonic()
    with ThreadPoolExecutor(20) as pool:
        answers = list(pool.map(lambda _: server.http.get(f"/threads/{thread}"), range(20)))
    assert {answer.status_code for answer in answers} == {503}
    details = {answer.json()["detail"] for answer in answers}
    assert details <= {"The database does not answer", "The connection to the database was lost"}
    assert time.monotonic() - began < 15
    state = httpx.get(f"{server.url}/ok?check_db=1", timeout=30)
    assert state.status_code == 500
    assert server.away() == ["database"]
    assert server.answers()
    role.limit(-1)
    until(lambda: httpx.get(f"{server.url}/ok?check_db=1").status_code == 200, "the database")
    assert server.ended(thread, run, 40) == "success"
    assert server.call("GET", f"/threads/{thread}/state")["values"]["log"] == [
        "t:one",
        "t:two",
        "t:three",
    ]


def test_a_process_that_gets_too_few_connections_says_so_and_ends(
    role: Role, make_cluster: Callable[..., Cluster]
) -> None:
    role.limit(2)
    server = make_cluster(role.uri).server("server")
    server.start(ready=False)
    assert server.wait(60) == 1
    assert "no room for the connections of one more process" in server.log
    assert "Traceback" not in server.log
