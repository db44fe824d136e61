"""A database that moves to another engine, and back, keeps all that was in it, and goes on."""

from __future__ import annotations

import asyncio
import http.server
import json
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any
from uuid import uuid4

import httpx
import psycopg
import pytest
from promise_server import PATIENCE_SECONDS, Server, asking, events, new_thread, output

from postgres_server import PREFIX, drop_databases, make_database

IDEMPOTENT = {"idempotency-key": "once"}
HERE = re.compile(r'"langgraph_api_url":"[^"]*"')

# A file serves one process alone.
pytestmark = pytest.mark.parametrize("engine", ["sqlite", "postgres"], indirect=True)


@pytest.fixture
def postgres() -> Iterator[str]:
    name = f"{PREFIX}move_{uuid4().hex[:8]}"
    yield make_database(name)
    drop_databases(name)


def python(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_SECONDS)


def treadle(*arguments: str) -> subprocess.CompletedProcess[str]:
    return python("-m", "treadle", *arguments)


def copy(source: str, target: str) -> str:
    done = treadle("db", "copy", source, target)
    assert done.returncode == 0, done.stderr
    return done.stdout


class Receiver:
    """Takes webhooks at an address that is known before it listens."""

    def __init__(self) -> None:
        self.runs: list[str] = []
        self.heard = threading.Event()
        receiver = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                length = int(self.headers["content-length"])
                receiver.runs.append(json.loads(self.rfile.read(length))["run_id"])
                self.send_response(200)
                self.end_headers()
                receiver.heard.set()

            def log_message(self, format: str, *args: Any) -> None:
                pass

        self.server = http.server.HTTPServer(("127.0.0.1", 0), Handler, bind_and_activate=False)
        self.server.server_bind()
        self.url = f"http://127.0.0.1:{self.server.server_port}/hook"

    def open(self) -> None:
        self.server.server_activate()
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()


class Life:
    """What a server has been through, to be found again on the copy."""

    async def live(self, http: httpx.AsyncClient, hook: str) -> None:
        self.done = await new_thread(http)
        body = asking(stream_resumable=True, stream_mode="updates")
        self.events = await events(http, "POST", f"/threads/{self.done}/runs/stream", body)
        run = (await http.get(f"/threads/{self.done}/runs")).json()[0]
        self.done_run = run["run_id"]
        self.asked = [await self._ask(http, graph) for graph in ("question", "nested")]
        item = {"namespace": ["a", "b"], "key": "k", "value": {"x": "ü🧵\n", "n": 1.5}, "ttl": 60}
        await http.put("/store/items", json=item)
        assistant = {"graph_id": "steps", "name": "mine", "metadata": {"team": "x"}}
        self.assistant = (await http.post("/assistants", json=assistant)).json()
        yearly = asking(schedule="0 0 1 1 *", metadata={"team": "x"})
        assert (await http.post("/runs/crons", json=yearly)).status_code == 200
        once = await http.post("/threads", json={"metadata": {"n": 1}}, headers=IDEMPOTENT)
        self.once = once.json()
        # In flight when the server is killed: one at work, one behind it, one for later.
        self.busy = await new_thread(http)
        slow = [asking(input={"seconds": 1.5}), asking(multitask_strategy="enqueue")]
        self.runs = [await self._run(http, self.busy, body) for body in slow]
        later = await new_thread(http)
        self.later = (later, await self._run(http, later, asking(after_seconds=3600)))
        hooked = await new_thread(http)
        self.hooked = (hooked, await self._run(http, hooked, asking(webhook=hook)))
        await output(http, *self.hooked)

    async def _run(self, http: httpx.AsyncClient, thread: str, body: dict[str, Any]) -> str:
        return (await http.post(f"/threads/{thread}/runs", json=body)).json()["run_id"]

    async def _ask(self, http: httpx.AsyncClient, graph: str) -> tuple[str, str]:
        thread = await new_thread(http)
        await output(http, thread, await self._run(http, thread, asking(graph)))
        return thread, graph

    async def shown(self, http: httpx.AsyncClient) -> list[Any]:
        """What clients see of everything that has come to rest, whatever the server's address."""
        threads = [self.done, *(thread for thread, _ in self.asked)]
        paths = [f"/threads/{thread}{part}" for thread in threads
                 for part in ("", "/state", "/history", "/runs")]  # fmt: skip
        paths += [
            "/store/items?namespace=a.b&key=k",
            f"/assistants/{self.assistant['assistant_id']}",
        ]
        answers = [await http.get(path) for path in paths]
        answers.append(await http.post("/runs/crons/search", json={}))
        assert len(answers[-1].json()) == 1
        assert all(answer.status_code == 200 for answer in answers)
        return [json.loads(HERE.sub('"langgraph_api_url":null', one.text)) for one in answers]

    async def replay(self, http: httpx.AsyncClient) -> list[Any]:
        path = f"/threads/{self.done}/runs/{self.done_run}/stream"
        return await events(http, "GET", path, last="-1")

    async def go_on(self, http: httpx.AsyncClient, journal: Callable[[], list[Any]]) -> None:
        """What was in flight comes to its end, and questions can be answered."""
        for run in self.runs:
            await output(http, self.busy, run)
        statuses = [run["status"] for run in (await http.get(f"/threads/{self.busy}/runs")).json()]
        assert statuses == ["success", "success"]
        started = [(run, what) for thread, run, what in journal() if thread == self.busy]
        assert [run for run, what in started if what == "+c"] == self.runs
        for thread, graph in self.asked:
            answer = await http.post(
                f"/threads/{thread}/runs/wait",
                json={"assistant_id": graph, "command": {"resume": "fine"}},
            )
            assert answer.json()["log"][-1] == "fine"
        thread, run = self.later
        assert (await http.get(f"/threads/{thread}/runs/{run}")).json()["status"] == "pending"
        again = await http.post("/threads", json={"metadata": {"n": 1}}, headers=IDEMPOTENT)
        assert again.json()["thread_id"] == self.once["thread_id"]
        found = await http.post("/threads/search", json={"metadata": {"n": 1}})
        assert [thread["thread_id"] for thread in found.json()] == [self.once["thread_id"]]


def end_leases(database: str) -> None:
    """What the clock does within a lease's time after a kill."""
    with psycopg.connect(database) as connection:
        connection.execute("UPDATE workers SET lease_until = 0")


async def test_a_server_on_the_copy_goes_on_where_the_killed_one_was(
    own_server: Callable[..., Server], engine: str, postgres: str
) -> None:
    receiver, life = Receiver(), Life()
    server = own_server()
    here, file = server.database, str(server.folder / "file.db")
    there = postgres if engine == "sqlite" else file
    async with server.client() as http:
        await life.live(http, receiver.url)
        before = await life.shown(http)
    server.kill()
    if engine == "postgres":
        refused = treadle("db", "copy", here, there)
        assert refused.returncode == 1
        assert "is in use by" in refused.stderr
        end_leases(here)

    copy(here, there)
    back = str(server.folder / "back.db")
    copy(there, back)

    receiver.open()
    server.database = there
    server.start()
    try:
        async with server.client() as http:
            assert await life.shown(http) == before
            assert await life.replay(http) == life.events
            await life.go_on(http, server.journal)
        assert await asyncio.to_thread(receiver.heard.wait, PATIENCE_SECONDS)
        assert receiver.runs == [life.hooked[1]]
        refused = treadle("db", "copy", there, str(server.folder / "in-use.db"))
        assert refused.returncode == 1
        assert "is in use by" in refused.stderr
    finally:
        receiver.close()
    server.stop()
    server.database = back
    server.start()
    async with server.client() as http:
        assert await life.shown(http) == before


async def test_a_copy_that_is_killed_goes_on(
    own_server: Callable[..., Server], engine: str
) -> None:
    server = own_server()
    async with server.client() as http:
        value = {"text": "x" * 2000}
        puts = [
            http.put("/store/items", json={"namespace": ["n"], "key": str(n), "value": value})
            for n in range(60)
        ]
        await asyncio.gather(*puts)
    server.stop()
    source, target = server.database, str(server.folder / "copy.db")
    killed = python("-c", KILLED, source, target)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert treadle("db", "upgrade", "--db", target).returncode == 1
    assert "60 rows" in copy(source, target)
    server.database = target
    server.start()
    async with server.client() as http:
        found = await http.post("/store/items/search", json={"namespace_prefix": ["n"]})
        assert found.json()["items"][0]["value"] == value


KILLED = f"""
import os, sys
from treadle.cli.options import database_uri
from treadle.database import copying
copying.BATCH_ROWS = 10
copy = copying.Copy(*map(database_uri, sys.argv[1:]))
copy.prepare()
heard = []
def hear(step):
    heard.append(step)
    if sum(step.table == "store_items" for step in heard) == 3:
        os.kill(os.getpid(), {int(signal.SIGKILL)})
copy.run(hear)
"""
