"""A server of its own for a test, and plain HTTP that sees what is on the wire."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

CONFORMANCE = Path(__file__).parent.parent / "conformance"
START_SECONDS = 30
ANSWER_SECONDS = 10
STREAM_SECONDS = 0.15
"""How long a stream, or an answer that waits for a run, is listened to."""


class Answer(NamedTuple):
    """What came back; of a stream, what came within ``STREAM_SECONDS``."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class Server:
    """``treadle dev`` on a port of its own, with a fresh database, and its log."""

    def __init__(self, folder: Path, **env: str) -> None:
        self._log_path = folder / "server.log"
        with socket.socket() as sock:
            sock.bind(("127.0.0.1", 0))
            self.port: int = sock.getsockname()[1]
        self._connection = http.client.HTTPConnection("127.0.0.1", self.port)
        command = [sys.executable, "-m", "treadle", "dev", "--no-reload", "--no-browser"]
        command += ["--config", str(folder / "langgraph.json"), "--port", str(self.port)]
        with self._log_path.open("wb") as log:
            self._process = subprocess.Popen(
                [*command, "--db", str(folder / "treadle.db")],
                cwd=folder,
                env={**os.environ, "LANGSMITH_TRACING": "false", **env},
                stdout=log,
                stderr=log,
            )

    def wait_until_ready(self) -> None:
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline and self._process.poll() is None:
            with contextlib.suppress(OSError):
                if self.request("GET", "/ok").status == 200:
                    return
            time.sleep(0.02)
        raise AssertionError(f"the server did not start:\n{self.log[-4000:]}")

    def stop(self) -> None:
        self._connection.close()
        self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(15)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    @property
    def log(self) -> str:
        return self._log_path.read_text(errors="replace")

    def request(
        self,
        method: str,
        path: str,
        value: Any = None,
        *,
        body: bytes | None = None,
        headers: dict[str, str] | None = None,
    ) -> Answer:
        """Send ``value`` as JSON, or ``body`` as it is. An answer has to begin in time."""
        if value is not None:
            body = json.dumps(value).encode()
        connection = self._connection
        connection.timeout = ANSWER_SECONDS
        whole = False
        try:
            connection.request(method, path, body, headers or {})
            response = connection.getresponse()
            found = {name.lower(): text for name, text in response.getheaders()}
            whole = "content-length" in found or response.status == 204
            data = response.read() if whole else _listen(connection, response)
            return Answer(response.status, found, data)
        finally:
            if not whole:
                connection.close()

    def raw(self, *parts: bytes) -> bytes:
        """Send bytes, and give what comes back until it pauses or the connection ends."""
        with socket.create_connection(("127.0.0.1", self.port), ANSWER_SECONDS) as sock:
            with contextlib.suppress(OSError):  # it may well close before all is sent
                for part in parts:
                    sock.sendall(part)
            received = b""
            with contextlib.suppress(OSError):
                while data := sock.recv(65536):
                    received += data
                    sock.settimeout(STREAM_SECONDS)
            return received


def _listen(connection: http.client.HTTPConnection, response: http.client.HTTPResponse) -> bytes:
    """What a chunked answer says within ``STREAM_SECONDS``."""
    received = b""
    deadline = time.monotonic() + STREAM_SECONDS
    sock = response.fp.raw._sock if response.fp is not None else connection.sock  # pyright: ignore
    with contextlib.suppress(OSError, http.client.IncompleteRead):
        while (left := deadline - time.monotonic()) > 0:
            sock.settimeout(left)
            data = response.read1(65536)
            if not data:
                break
            received += data
    return received


@contextlib.contextmanager
def serving(area: str, folder: Path, **env: str) -> Iterator[Server]:
    """A server of the graphs of ``tests/conformance/<area>``, in a copy of its folder."""
    project = folder / area
    shutil.copytree(CONFORMANCE / area, project)
    server = Server(project, **env)
    try:
        server.wait_until_ready()
        yield server
    finally:
        server.stop()
