"""A server process that can be killed and started again, and clients of it."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import httpx

from free_port import free_port

PROXY = Path(__file__).parents[1] / "round_robin.py"
PATIENCE_SECONDS = 30
OPTIONS = ("--no-reload", "--no-browser", "--port", "0", "--db")
GRAPHS = ("steps", "talk", "speech", "boom", "question", "quits", "nested")


class Server:
    """``treadle dev`` in a folder of its own, with its database and journal.

    With ``as_two`` it is two processes, to which connections go in turn.
    """

    def __init__(self, folder: Path, database: str, as_two: bool = False, **env: str) -> None:
        self.folder, self.database, self._as_two = folder, database, as_two
        self.journal_path = folder / "journal"
        self.env = {
            **{k: v for k, v in os.environ.items() if not k.startswith(("LANG", "HTTP", "NO_"))},
            "JOURNAL": str(self.journal_path),
            "LOG_COLOR": "false",
            **env,
        }
        self.url = ""
        self.process: subprocess.Popen[bytes] | None = None
        source = Path(__file__).with_name("promise_graphs.py")
        (folder / "promise_graphs.py").write_text(source.read_text())
        graphs = {name: f"./promise_graphs.py:{name}" for name in GRAPHS}
        webhooks = {"url": {"require_https": False, "disable_loopback": False}}
        config = {"graphs": graphs, "webhooks": webhooks}
        (folder / "langgraph.json").write_text(json.dumps(config))

    def start(self) -> Server:
        """Start it, and wait until it answers."""
        log = self.folder / "log"
        treadle = [sys.executable, "-m", "treadle"]
        command = [*treadle, "dev", *OPTIONS, self.database]
        if self._as_two:
            port = free_port()
            self.url = f"http://127.0.0.1:{port}"
            command = [sys.executable, str(PROXY), str(port), *treadle, "serve", "--db"]
            command += [self.database]
        with log.open("wb") as output:
            self.process = subprocess.Popen(
                command,
                cwd=self.folder,
                env=self.env,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        deadline = time.monotonic() + PATIENCE_SECONDS
        while time.monotonic() < deadline:
            if self._answers(log):
                return self
            assert self.process.poll() is None, log.read_text()
            time.sleep(0.01)
        raise AssertionError(f"the server did not start:\n{log.read_text()}")

    def _answers(self, log: Path) -> bool:
        if self._as_two:
            with contextlib.suppress(httpx.HTTPError):
                return httpx.get(f"{self.url}/ok").status_code == 200
            return False
        lines = [line.split()[1] for line in log.read_text().splitlines() if "  API" in line]
        self.url = lines[0] if lines else ""
        return bool(lines)

    def kill(self) -> None:
        """End it as a power cut of the process would: ``kill -9``."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        """Ask it to end, and wait until it has."""
        self._end(signal.SIGTERM)

    def _end(self, number: int) -> None:
        if self.process is not None:
            os.killpg(self.process.pid, number)
            self.process.wait(PATIENCE_SECONDS)
            self.process = None

    def memory_bytes(self) -> int:
        """The most memory that a process of it has had in use."""
        assert self.process is not None
        pids = [self.process.pid]
        if self._as_two:
            children = Path(f"/proc/{pids[0]}/task/{pids[0]}/children")
            pids = [int(pid) for pid in children.read_text().split()]
        return max(_most_bytes(pid) for pid in pids)

    def client(self) -> httpx.AsyncClient:
        limits = httpx.Limits(max_connections=500, max_keepalive_connections=500)
        return httpx.AsyncClient(base_url=self.url, timeout=PATIENCE_SECONDS, limits=limits)

    def journal(self) -> list[tuple[str, str, str]]:
        """Thread, run and step of what nodes did, in its order."""
        if not self.journal_path.exists():
            return []
        return [tuple(json.loads(line)) for line in self.journal_path.read_text().splitlines()]


def _most_bytes(pid: int) -> int:
    status = Path(f"/proc/{pid}/status").read_text()
    [line] = [line for line in status.splitlines() if line.startswith("VmHWM")]
    return int(line.split()[1]) * 1024


def asking(graph: str = "steps", **fields: Any) -> dict[str, Any]:
    """The body of a request for a run."""
    return {"assistant_id": graph, "input": {}, **fields}


async def new_thread(http: httpx.AsyncClient) -> str:
    return (await http.post("/threads", json={})).json()["thread_id"]


async def output(http: httpx.AsyncClient, thread: str, run: str) -> Any:
    """What a run came to: waits for its end."""
    return (await http.get(f"/threads/{thread}/runs/{run}/join")).json()


class Event:
    """A server-sent event."""

    def __init__(self, text: str) -> None:
        fields = dict(line.split(": ", 1) for line in text.split("\r\n"))
        self.name, self.data, self.id = fields["event"], fields["data"], fields.get("id")

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Event) and vars(self) == vars(other)

    def __repr__(self) -> str:
        return f"{self.id} {self.name} {self.data[:60]}"

    __hash__ = None  # type: ignore[assignment]


async def events(
    http: httpx.AsyncClient,
    method: str,
    path: str,
    body: Any = None,
    last: str | None = None,
    most: int | None = None,
) -> list[Event]:
    """The events of a stream, to its end or up to ``most`` of them."""
    found: list[Event] = []
    headers = {"last-event-id": last} if last is not None else {}
    async with http.stream(method, path, json=body, headers=headers) as answer:
        assert answer.status_code == 200, await answer.aread()
        rest = ""
        async for text in answer.aiter_text():
            *whole, rest = (rest + text).split("\r\n\r\n")
            found += [Event(part) for part in whole if not part.startswith(":")]
            if most is not None and len(found) >= most:
                return found[:most]
    assert rest == ""
    return found
