"""Several servers at one socket: a light process that starts them, and again those that die.

The servers end with it, however it ends. A signal is passed on to all of them, and each drains as
it would alone.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from types import FrameType

import click

from treadle.cli import wants_json_logs

YOUNG_SECONDS = 5.0
"""A server that dies younger than this is not started again at once."""
STARTING_SECONDS = 120.0
"""A server that ends with ``EXIT_STARTUP`` younger than this has not come to its start."""
PAUSES_SECONDS = (0.0, 1.0, 2.0, 5.0, 10.0)
EXIT_STARTUP = 1


class Processes:
    """Keeps ``count`` server processes at ``sock``."""

    def __init__(self, sock: socket.socket, arguments: Sequence[str], count: int) -> None:
        self._sock, self._arguments, self._count = sock, arguments, count
        self._alive = os.pipe()
        self._servers: dict[int, subprocess.Popen[bytes]] = {}
        self._born: dict[int, float] = {}
        self._deaths = [0] * count
        self._stopping = False
        self._wake = threading.Event()

    def run(self) -> int:
        """Serve until a signal says stop, or the servers cannot start; the exit code."""
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._on_signal)
        for place in range(self._count):
            self._start(place)
        code = 0
        while self._servers:
            self._wake.wait(0.5)
            self._wake.clear()
            for place, server in list(self._servers.items()):
                if server.poll() is None:
                    continue
                del self._servers[place]
                code = code or self._ended(place, server.returncode)
        return code

    def _ended(self, place: int, code: int) -> int:
        """Start a server again that died; the exit code of all, if that is of no use."""
        if self._stopping:
            return max(code, 0)
        age = time.monotonic() - self._born[place]
        is_first = self._deaths[place] == 0
        self._deaths[place] = self._deaths[place] + 1 if age < YOUNG_SECONDS else 0
        if code == EXIT_STARTUP and age < STARTING_SECONDS and is_first:
            # It has said why it cannot start: so would all others.
            self._stop(signal.SIGTERM)
            return code
        pause = PAUSES_SECONDS[min(self._deaths[place], len(PAUSES_SECONDS) - 1)]
        _say(f"server {place + 1} has ended with {code}: it is started again")
        threading.Timer(pause, self._start, [place]).start() if pause else self._start(place)
        return 0

    def _start(self, place: int) -> None:
        if self._stopping:
            return
        inherited, alive = self._sock.fileno(), self._alive[0]
        command = [sys.executable, "-m", "treadle", *self._arguments]
        command += ["--inherited", str(inherited), "--alive", str(alive)]
        server = subprocess.Popen(command, pass_fds=(inherited, alive))
        self._servers[place], self._born[place] = server, time.monotonic()
        threading.Thread(target=self._wake_at_end, args=[server], daemon=True).start()
        if self._stopping:
            server.terminate()

    def _wake_at_end(self, server: subprocess.Popen[bytes]) -> None:
        server.wait()
        self._wake.set()

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        """Pass the stop on: the first as SIGTERM, a second as SIGINT, which stops at once."""
        self._stop(signal.SIGINT if self._stopping else signal.SIGTERM)

    def _stop(self, number: signal.Signals) -> None:
        self._stopping = True
        for server in self._servers.values():
            if server.poll() is None:
                server.send_signal(number)
        self._wake.set()


def _say(text: str) -> None:
    """A log line in the form of the servers', without the weight of their logging."""
    if wants_json_logs() or not os.environ.get("LOG_JSON"):
        line = {"event": text, "level": "error", "logger": "treadle.processes"}
        click.echo(json.dumps(line), err=True)
    else:
        click.echo(text, err=True)
