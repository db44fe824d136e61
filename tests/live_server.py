"""A server in a process of its own, as its clients see it: for the tests that stop and kill it."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from typing import Any

import httpx

from free_port import free_port

START_SECONDS = 30.0
PATIENCE_SECONDS = 20.0


def until(check: Callable[[], Any], what: str, seconds: float = PATIENCE_SECONDS) -> Any:
    """Poll until ``check`` gives something true, and give that."""
    deadline = time.monotonic() + seconds
    while not (found := check()):
        assert time.monotonic() < deadline, f"in vain for {seconds} s: {what}"
        time.sleep(0.01)
    return found


class LiveServer:
    """The API at a port that it keeps over restarts."""

    def __init__(self) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.http = httpx.Client(base_url=self.url, timeout=30)

    def connect_anew(self) -> None:
        """Let go of connections to a process that has ended."""
        self.http.close()
        self.http = httpx.Client(base_url=self.url, timeout=30)

    def answers(self) -> bool:
        """Whether it answers requests yet."""
        with contextlib.suppress(httpx.HTTPError):
            return httpx.get(f"{self.url}/ok", timeout=5).status_code == 200
        return False

    def call(self, method: str, path: str, body: Any = None, **options: Any) -> Any:
        """The JSON of an answer, which has to be a 2xx."""
        answer = self.http.request(method, path, json=body, **options)
        assert answer.is_success, f"{method} {path}: {answer.status_code} {answer.text}"
        return answer.json() if answer.content else None

    def thread(self) -> str:
        return self.call("POST", "/threads", {})["thread_id"]

    def run(self, thread_id: str, graph: str, **body: Any) -> str:
        """Create a run in the background; its id."""
        body = {"assistant_id": graph, **body}
        return self.call("POST", f"/threads/{thread_id}/runs", body)["run_id"]

    def status(self, thread_id: str, run_id: str) -> str:
        return self.call("GET", f"/threads/{thread_id}/runs/{run_id}")["status"]

    def begun(self, thread_id: str, run_id: str) -> None:
        until(lambda: self.status(thread_id, run_id) == "running", "the run to begin")

    def ended(self, thread_id: str, run_id: str, seconds: float = PATIENCE_SECONDS) -> str:
        """Wait for the end of a run; its status."""

        def check() -> str | None:
            status = self.status(thread_id, run_id)
            return None if status in ("pending", "running") else status

        return until(check, f"the end of run {run_id}", seconds)
