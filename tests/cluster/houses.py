"""Processes that share a database, for the tests of clusters."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx

from live_server import PATIENCE_SECONDS, START_SECONDS, LiveServer, until

HERE = Path(__file__).parent
CONFIG = HERE / "langgraph.json"


class Process(LiveServer):
    """A process of Treadle's, at a port of its own."""

    def __init__(self, folder: Path, name: str, command: list[str], env: dict[str, str]) -> None:
        super().__init__()
        self.name = name
        self.log_path = folder / f"{name}.log"
        place = "--health-port" if command[0] == "worker" else "--port"
        self._command = [sys.executable, "-m", "treadle", *command, place, str(self.port)]
        self._env = {**os.environ, "LANGSMITH_TRACING": "false", "LOG_LEVEL": "INFO", **env}
        self.process: subprocess.Popen[bytes] | None = None

    def start(self, ready: bool = True) -> None:
        with self.log_path.open("ab") as log:
            self.process = subprocess.Popen(
                self._command,
                cwd=HERE,
                env=self._env,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        if ready:
            self.wait_ready()

    def wait_ready(self) -> None:
        def check() -> bool:
            assert self.process is not None
            assert self.process.poll() is None, f"{self.name} has ended:\n{self.log}"
            return self.answers()

        until(check, f"{self.name} to answer", START_SECONDS)

    def away(self) -> list[str]:
        """The services that ``/ok`` says do not answer."""
        answer = httpx.get(f"{self.url}/ok?check_db=1", timeout=30).json()
        away = [name for name, state in answer["services"].items() if not state["ok"]]
        assert answer["ok"] == ("database" not in away)
        return away

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    @property
    def log(self) -> str:
        return self.log_path.read_text(errors="replace")

    def signal(self, number: signal.Signals) -> None:
        assert self.process is not None
        self.process.send_signal(number)

    def wait(self, seconds: float = PATIENCE_SECONDS) -> int:
        assert self.process is not None
        return self.process.wait(seconds)

    def kill(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait()

    def stop(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(signal.SIGCONT)
            self.process.terminate()
            try:
                self.process.wait(15)
            except subprocess.TimeoutExpired:
                self.kill()
        self.http.close()


class Cluster:
    """Processes over one database. Each is started when it is made."""

    def __init__(self, folder: Path, database: str, **env: str) -> None:
        self.folder, self.database, self.config = folder, database, CONFIG
        self.env = {
            "DATABASE_URI": database,
            "TREADLE_POSTGRES_CONNECTIONS": "6",  # the tests of others need some too
            "RESUMABLE_STREAM_TTL_SECONDS": "600",
            **env,
        }
        self.processes: list[Process] = []

    def make(self, name: str, *command: str, **env: str) -> Process:
        arguments = [command[0], "--config", str(self.config), *command[1:]]
        process = Process(self.folder, name, arguments, {**self.env, **env})
        self.processes.append(process)
        return process

    def api(self, name: str, **env: str) -> Process:
        return self.make(name, "serve", "--api-only", **env)

    def worker(self, name: str, **env: str) -> Process:
        return self.make(name, "worker", **env)

    def server(self, name: str, **env: str) -> Process:
        return self.make(name, "serve", **env)

    def start(self) -> None:
        """Start all processes that do not run, at the same time."""
        waiting = [one for one in self.processes if one.process is None]
        for process in waiting:
            process.start(ready=False)
        for process in waiting:
            process.wait_ready()

    def close(self) -> None:
        for process in self.processes:
            if process.process is not None and process.process.poll() is None:
                process.process.send_signal(signal.SIGCONT)
                process.process.terminate()
        for process in self.processes:
            process.stop()


class Follower(threading.Thread):
    """Reads a stream to its end. ``broke``: it broke off without a proper one."""

    def __init__(self, process: Process, path: str, last: str | None = None) -> None:
        super().__init__()
        self.events: list[Event] = []
        self.broke = False
        self.open = threading.Event()
        self._place = process, path, last
        self.start()
        assert self.open.wait(20)

    def run(self) -> None:
        process, path, last = self._place
        try:
            with stream(process, path, last=last) as events:
                self.open.set()
                for event in events:
                    self.events.append(event)
        except httpx.RemoteProtocolError:
            self.broke = True

    @property
    def seen(self) -> list[tuple[str, str, str]]:
        return [(event.id, event.name, event.data) for event in self.events]


# -- streams -----------------------------------------------------------------------------------


class Event:
    """A server-sent event, and when it came."""

    def __init__(self, id: str, name: str, data: str) -> None:
        self.id, self.name, self.data, self.at = id, name, data, time.monotonic()

    def __repr__(self) -> str:
        return f"{self.id}:{self.name}:{self.data[:60]}"


def events(answer: httpx.Response) -> Iterator[Event]:
    """The events of a stream, as they come."""
    id, name, data = "", "", ""
    for line in answer.iter_lines():
        if line.startswith("id: "):
            id = line[4:]
        elif line.startswith("event: "):
            name = line[7:]
        elif line.startswith("data: "):
            data = line[6:]
        elif not line and name:
            yield Event(id, name, data)
            id, name, data = "", "", ""


@contextlib.contextmanager
def stream(
    process: Process, path: str, body: Any = None, last: str | None = None
) -> Iterator[Iterator[Event]]:
    """The events at ``path``; with a body it is a POST."""
    headers = {} if last is None else {"Last-Event-ID": last}
    method = "GET" if body is None else "POST"
    with (
        httpx.Client(base_url=process.url, timeout=30) as client,
        client.stream(method, path, json=body, headers=headers) as answer,
    ):
        assert answer.status_code == 200, answer.read()
        yield events(answer)


def new_name() -> str:
    return uuid4().hex[:12]
