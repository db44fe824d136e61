"""Test scripts for node's own runner, against a server: what tests/javascript and tests/browser
share."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

TESTS = Path(__file__).parent


def install(folder: Path) -> None:
    """What package-lock.json names; installed again only when it has changed."""
    assert shutil.which("npm"), "these tests need Node.js with npm: install both"
    lock, installed = folder / "package-lock.json", folder / "node_modules" / ".package-lock.json"
    if not installed.exists() or installed.stat().st_mtime < lock.stat().st_mtime:
        command = ["npm", "ci", "--no-audit", "--no-fund", "--ignore-scripts"]
        subprocess.run(command, cwd=folder, check=True, timeout=300)
        installed.touch()


@contextmanager
def server(config: Path, folder: Path, **env: str) -> Iterator[str]:
    """The address of a server with a fresh database in ``folder``."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port = sock.getsockname()[1]
    command = [sys.executable, str(TESTS / "fresh_server.py"), str(config), str(port)]
    environment = os.environ | {"TMPDIR": str(folder), "LANGSMITH_TRACING": "false"} | env
    log = folder / "log"
    with log.open("wb") as file:
        process = subprocess.Popen(command, stdout=file, stderr=file, env=environment)
    url = f"http://127.0.0.1:{port}"
    try:
        deadline = time.monotonic() + 60
        while True:
            try:
                urllib.request.urlopen(f"{url}/ok", timeout=2).close()
                break
            except OSError:
                assert process.poll() is None, log.read_text()
                assert time.monotonic() < deadline, log.read_text()
                time.sleep(0.05)
        yield url
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(20)


def run(script: Path, url: str, **env: str) -> None:
    """Run a script's tests against the server at ``url``; what they say is shown if one fails."""
    command = ["node", "--test", "--test-force-exit", "--test-timeout=60000", script.name]
    done = subprocess.run(
        command,
        cwd=script.parent,
        env=os.environ | {"TREADLE_URL": url} | env,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
