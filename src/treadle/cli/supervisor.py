"""Hot reload: a light process that starts the server, watches the code, and starts it anew.

The supervisor holds the listening socket, so clients that come during a restart wait for the
new server instead of being turned away. The server ends with its supervisor, however that ends.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from types import FrameType

import click
from watchfiles import Change, DefaultFilter, watch

from treadle.cli import wants_json_logs
from treadle.config import Config, load_config
from treadle.errors import StartupError
from treadle.settings import STATE_FOLDER

STOP_SECONDS = 10.0
"""How long a server may take to stop for a restart, beyond what it gives to its runs."""


class CodeFilter(DefaultFilter):
    """What a restart follows: Python files, the config, and the files of variables."""

    ignore_dirs = (*DefaultFilter.ignore_dirs, STATE_FOLDER, "venv", "env")

    def __init__(self, config_path: Path) -> None:
        super().__init__()
        self._config_path = str(config_path)

    def __call__(self, change: Change, path: str) -> bool:
        name = os.path.basename(path)
        wanted = path.endswith(".py") or name.startswith(".env") or path == self._config_path
        return wanted and super().__call__(change, path)


class Supervisor:
    """Keeps one server process up to date with the code."""

    def __init__(
        self, sock: socket.socket, arguments: Sequence[str], config: Config, *, browser: bool
    ) -> None:
        self._sock, self._arguments, self._config = sock, arguments, config
        self._browser = browser
        self._alive = os.pipe()
        self._server: subprocess.Popen[bytes] | None = None
        self._stopping = False
        self._wake = threading.Event()

    def run(self) -> int:
        """Serve until a signal says stop, or the first start fails; the exit code."""
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._on_signal)
        server = self._start(*([] if self._browser else ["--no-browser"]))
        restarts = 0
        while not self._stopping:
            if (changed := self._next_change()) is not None:
                self._end(server)
                if not self._stopping:
                    _say(f"{changed} has changed: starting again", "info")
                    server = self._start("--no-browser")
                    restarts += 1
            elif self._stopping or restarts == 0:
                break
            else:
                _say("The server has ended; the next change of the code starts it again", "error")
        return max(server.wait(), 0)

    def _start(self, *more: str) -> subprocess.Popen[bytes]:
        self._wake.clear()
        inherited, alive = self._sock.fileno(), self._alive[0]
        command = [sys.executable, "-m", "treadle", *self._arguments, *more, "--no-reload"]
        command += ["--inherited", str(inherited), "--alive", str(alive)]
        server = self._server = subprocess.Popen(command, pass_fds=(inherited, alive))
        threading.Thread(target=self._wake_at_end, args=[server], daemon=True).start()
        if self._stopping:
            server.terminate()
        return server

    def _wake_at_end(self, server: subprocess.Popen[bytes]) -> None:
        server.wait()
        if server is self._server:
            self._wake.set()

    def _next_change(self) -> str | None:
        """The first file to change, or None once the server has ended or is to end."""
        folders = [path for path in self._config.local_dependencies if path.is_dir()]
        code = CodeFilter(self._config.path)
        for changes in watch(*folders, watch_filter=code, stop_event=self._wake, step=50):
            with contextlib.suppress(StartupError):  # which the server will report
                self._config = load_config(self._config.path)
            return os.path.relpath(min(path for _, path in changes), self._config.folder)
        self._wake.clear()
        return None

    def _end(self, server: subprocess.Popen[bytes]) -> None:
        server.terminate()
        try:
            server.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        """Pass the stop on: the first as SIGTERM, a second as SIGINT, which stops at once."""
        if self._server is not None:
            self._server.send_signal(signal.SIGINT if self._stopping else signal.SIGTERM)
        self._stopping = True
        self._wake.set()


def end_with_parent(alive: int) -> None:
    """Stop this server when its supervisor has gone: when the pipe ``alive`` is closed."""

    def wait() -> None:
        os.read(alive, 1)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=wait, daemon=True, name="end-with-parent").start()


def _say(text: str, level: str) -> None:
    """A log line in the form of the server's, without the weight of its logging."""
    if wants_json_logs():
        click.echo(json.dumps({"event": text, "level": level, "logger": "treadle.dev"}), err=True)
    else:
        click.echo(f"\n{text}", err=True)
