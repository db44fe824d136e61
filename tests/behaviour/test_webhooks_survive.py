"""Promise: nothing acknowledged is lost. A run that has ended has its webhook delivered.

Real servers, killed for good; a receiver in this process, which sees what reaches it.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import sqlite3
import sys
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

START_SECONDS = 30.0
PATIENCE_SECONDS = 20.0
LOOK_SECONDS = 0.02

GRAPHS = """
import asyncio
from pathlib import Path
from typing import TypedDict

from langgraph.graph import START, StateGraph
from langgraph.types import interrupt


class State(TypedDict, total=False):
    text: str
    reply: str
    answer: str


def answer(state: State) -> State:
    return {"reply": f"echo: {state['text']}"}


async def sleep(state: State) -> State:
    Path(__file__).with_name("asleep").touch()
    await asyncio.sleep(3600)
    return {}


def ask(state: State) -> State:
    return {"answer": interrupt("what?")}


echo = StateGraph(State).add_node(answer).add_edge(START, "answer").compile()
sleeper = (
    StateGraph(State)
    .add_node(answer).add_node(sleep)
    .add_edge(START, "answer").add_edge("answer", "sleep")
    .compile()
)
asker = StateGraph(State).add_node(ask).add_edge(START, "ask").compile()
"""

CONFIG = {
    "dependencies": ["."],
    "graphs": {name: f"./graphs.py:{name}" for name in ("echo", "sleeper", "asker")},
    "webhooks": {"url": {"require_https": False, "disable_loopback": False}},
}


async def until(condition: Callable[[], Any], what: str, seconds: float = PATIENCE_SECONDS) -> Any:
    """Look until ``condition()`` is true; it may be async."""
    try:
        async with asyncio.timeout(seconds):
            while True:
                found = condition()
                if isinstance(found, Awaitable):
                    found = await found
                if found:
                    return found
                await asyncio.sleep(LOOK_SECONDS)
    except TimeoutError:
        raise AssertionError(f"not within {seconds} s: {what}") from None


class Receiver:
    """What the webhooks call. ``behave`` says how: a status, or None for no answer at all."""

    def __init__(self) -> None:
        self.calls: list[dict[str, Any]] = []
        self.deliveries: list[str] = []
        self.successes: Counter[str] = Counter()
        self.behave: Callable[[], int | None] = lambda: 200

    async def open(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}/hook"

    async def close(self) -> None:
        self._server.close()
        await self._server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            lines = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")[1:-2]
            headers = {name.lower(): value for name, _, value in (x.partition(": ") for x in lines)}
            body = json.loads(await reader.readexactly(int(headers["content-length"])))
            status = self.behave()
            self.calls.append(body)
            self.deliveries.append(headers["x-treadle-delivery"])
            if status is None:
                await reader.read()
                return
            if status == 200:
                self.successes[body["run_id"]] += 1
            writer.write(b"HTTP/1.1 %d X\r\ncontent-length: 0\r\n\r\n" % status)
            await writer.drain()
            await reader.read()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()


class Server:
    """``treadle serve`` with a database that stays over its deaths."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.database = folder / "treadle.db"
        with socket.socket() as sock:
            sock.bind(("127.0.0.1", 0))
            self.port: int = sock.getsockname()[1]
        self.http = httpx.AsyncClient(base_url=f"http://127.0.0.1:{self.port}", timeout=30)
        self._process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        command = [sys.executable, "-m", "treadle", "serve", "--port", str(self.port)]
        command += ["--config", str(self.folder / "langgraph.json"), "--db", str(self.database)]
        with (self.folder / "server.log").open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                *command,
                cwd=self.folder,
                env={**os.environ, "LANGSMITH_TRACING": "false"},
                stdout=log,
                stderr=log,
            )
        await until(self._ready, "the server answers", START_SECONDS)

    async def _ready(self) -> bool:
        assert self._process is not None
        assert self._process.returncode is None, (self.folder / "server.log").read_text()
        try:
            return (await self.http.get("/ok")).is_success
        except httpx.TransportError:
            return False

    async def stop(self, how: signal.Signals = signal.SIGKILL) -> None:
        if self._process is not None:
            self._process.send_signal(how)
            await self._process.wait()
            self._process = None

    async def close(self) -> None:
        await self.stop()
        await self.http.aclose()

    async def thread(self) -> str:
        return (await self.http.post("/threads", json={})).json()["thread_id"]

    async def wait(self, thread_id: str | None, graph: str, webhook: str) -> Any:
        """Run a graph to its end; its output."""
        path = "/runs/wait" if thread_id is None else f"/threads/{thread_id}/runs/wait"
        body = {"assistant_id": graph, "input": {"text": "hi"}, "webhook": webhook}
        answer = await self.http.post(path, json=body)
        assert answer.is_success, answer.text
        return answer.json()

    async def run_id(self, thread_id: str) -> str:
        """The only run of a thread."""
        [run] = (await self.http.get(f"/threads/{thread_id}/runs")).json()
        return run["run_id"]

    def sql(self, statement: str) -> list[Any]:
        """Run a statement beside the server, which may be dead."""
        connection = sqlite3.connect(self.database, isolation_level=None)
        try:
            return connection.execute(statement).fetchall()
        finally:
            connection.close()

    def entries(self) -> list[Any]:
        """What is in the outbox."""
        return self.sql("SELECT run_id, attempts FROM webhook_outbox")

    async def emptied(self) -> None:
        await until(lambda: not self.entries(), "the outbox is empty")


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    receiver = Receiver()
    await receiver.open()
    yield receiver
    await receiver.close()


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[Server]:
    (tmp_path / "graphs.py").write_text(GRAPHS)
    (tmp_path / "langgraph.json").write_text(json.dumps(CONFIG))
    server = Server(tmp_path)
    await server.start()
    yield server
    await server.close()


async def test_a_kill_between_a_failed_attempt_and_the_next(server: Server, receiver: Receiver):
    receiver.behave = lambda: 500
    thread_id = await server.thread()
    await server.wait(thread_id, "echo", receiver.url)
    await until(lambda: any(attempts == 1 for _, attempts in server.entries()), "it has failed")
    await server.stop()
    assert len(receiver.calls) == 1
    receiver.behave = lambda: 200
    await server.start()
    await server.emptied()
    run_id = await server.run_id(thread_id)
    assert receiver.successes == {run_id: 1}
    assert len(receiver.calls) == 2
    assert receiver.calls[1]["values"] == {"text": "hi", "reply": "echo: hi"}
    assert receiver.calls[1]["status"] == "success"
    assert receiver.calls[1]["webhook_sent_at"] > receiver.calls[0]["webhook_sent_at"]


async def test_a_kill_amid_an_attempt(server: Server, receiver: Receiver):
    receiver.behave = lambda: None
    thread_id = await server.thread()
    await server.wait(thread_id, "echo", receiver.url)
    await until(lambda: receiver.calls, "it is called")
    await server.stop()
    receiver.behave = lambda: 200
    await server.start()
    await server.emptied()
    assert receiver.successes == {await server.run_id(thread_id): 1}
    first, second = receiver.deliveries
    assert first == second


async def test_what_was_delivered_is_not_delivered_after_a_kill(server: Server, receiver: Receiver):
    thread_id = await server.thread()
    await server.wait(thread_id, "echo", receiver.url)
    await server.emptied()
    await server.stop()
    await server.start()
    other = await server.thread()
    await server.wait(other, "echo", receiver.url)
    await server.emptied()
    assert receiver.successes == {
        await server.run_id(thread_id): 1,
        await server.run_id(other): 1,
    }


async def test_a_stop_amid_an_attempt(server: Server, receiver: Receiver):
    receiver.behave = lambda: None
    await server.wait(await server.thread(), "echo", receiver.url)
    await until(lambda: receiver.calls, "it is called")
    await asyncio.wait_for(server.stop(signal.SIGTERM), PATIENCE_SECONDS)
    assert [attempts for _, attempts in server.entries()] == [0]
    receiver.behave = lambda: 200
    await server.start()
    await server.emptied()
    assert len(receiver.calls) == 2


async def test_a_run_ends_together_with_what_it_puts_in_or_not_at_all(
    server: Server, receiver: Receiver
):
    server.sql(
        "CREATE TRIGGER full BEFORE INSERT ON webhook_outbox"
        " BEGIN SELECT RAISE(ABORT, 'the outbox is full'); END"
    )
    thread_id = await server.thread()
    body = {"assistant_id": "echo", "input": {"text": "hi"}, "webhook": receiver.url}
    await server.http.post(f"/threads/{thread_id}/runs", json=body)
    log = server.folder / "server.log"
    await until(lambda: "the outbox is full" in log.read_text(), "the end is refused")
    assert server.sql("SELECT status FROM runs") == [("running",)]
    assert server.sql("SELECT status, state_values FROM threads") == [("busy", None)]
    server.sql("DROP TRIGGER full")
    await server.stop()
    await server.start()
    await until(lambda: receiver.calls, "it is called")
    await server.emptied()
    assert server.sql("SELECT status FROM runs") == [("success",)]
    assert receiver.successes == {await server.run_id(thread_id): 1}


async def test_kills_under_load_lose_no_webhook_of_a_run_that_was_seen_to_end(
    server: Server, receiver: Receiver
):
    """Whatever moment a kill hits: an end that was acknowledged has its webhook."""
    seen: set[str] = set()

    async def run() -> None:
        try:
            thread_id = await server.thread()
            await server.wait(thread_id, "echo", receiver.url)
            seen.add(thread_id)
        except (httpx.TransportError, AssertionError):
            pass

    kills = (5, 12, 20)
    for acknowledged in kills:
        tasks = [asyncio.create_task(run()) for _ in range(24)]
        enough = len(seen) + acknowledged
        await until(lambda enough=enough: len(seen) >= enough, "some runs have ended")
        await server.stop()
        await asyncio.gather(*tasks)
        await server.start()

    def told() -> set[str]:
        return {call["thread_id"] for call in receiver.calls}

    await until(lambda: seen <= told(), "every run that was seen to end has had its webhook")
    await server.emptied()
    # A kill between an answer and its note in the database makes for one more call.
    assert all(count <= 1 + len(kills) for count in receiver.successes.values())
    assert all(call["status"] == "success" for call in receiver.calls)


async def test_a_thread_that_is_deleted_takes_no_webhook_along(server: Server, receiver: Receiver):
    receiver.behave = lambda: 500
    thread_id = await server.thread()
    await server.wait(thread_id, "echo", receiver.url)
    await until(lambda: receiver.calls, "it is called")
    receiver.behave = lambda: 200
    assert (await server.http.delete(f"/threads/{thread_id}")).status_code == 204
    await server.emptied()
    assert [call["thread_id"] for call in receiver.calls] == [thread_id] * 2


async def test_a_rollback_and_a_stateless_run_have_their_webhooks(
    server: Server, receiver: Receiver
):
    await server.wait(None, "echo", receiver.url)
    await server.emptied()
    [stateless] = receiver.calls
    assert (stateless["status"], stateless["values"]["reply"]) == ("success", "echo: hi")
    thread_id = await server.thread()
    body = {"assistant_id": "sleeper", "input": {"text": "hi"}, "webhook": receiver.url}
    run = (await server.http.post(f"/threads/{thread_id}/runs", json=body)).json()
    await until((server.folder / "asleep").exists, "the run sleeps")
    path = f"/threads/{thread_id}/runs/{run['run_id']}/cancel"
    await server.http.post(path, params={"action": "rollback", "wait": True})
    await until(lambda: len(receiver.calls) == 2, "the rollback is told of")
    rolled_back = receiver.calls[1]
    assert (rolled_back["status"], rolled_back["values"]) == ("rollback", None)
    assert rolled_back["run_id"] == run["run_id"]


async def test_a_question_is_told_of_with_the_threads_values(server: Server, receiver: Receiver):
    thread_id = await server.thread()
    await server.wait(thread_id, "asker", receiver.url)
    await server.emptied()
    [call] = receiver.calls
    assert (call["status"], call["values"]) == ("success", {"text": "hi"})
