"""The public JavaScript SDK and ``useStream`` against a server, by node's own test runner."""

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
from pathlib import Path

import pytest

HERE = Path(__file__).parent
TESTS = HERE.parent
INSTALLED = HERE / "node_modules" / ".package-lock.json"

pytestmark = pytest.mark.skipif(shutil.which("npm") is None, reason="needs node with npm")


@pytest.fixture(scope="module")
def packages() -> None:
    """What package-lock.json names; installed again only when it has changed."""
    lock = HERE / "package-lock.json"
    if not INSTALLED.exists() or INSTALLED.stat().st_mtime < lock.stat().st_mtime:
        command = ["npm", "ci", "--no-audit", "--no-fund", "--ignore-scripts"]
        subprocess.run(command, cwd=HERE, check=True, timeout=300)
        INSTALLED.touch()


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A server of the conformance suite's graphs."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port = sock.getsockname()[1]
    folder = tmp_path_factory.mktemp("server")
    config = TESTS / "conformance" / "protocol_v2" / "langgraph.json"
    command = [sys.executable, str(TESTS / "fresh_server.py"), str(config), str(port)]
    environment = os.environ | {"TMPDIR": str(folder), "LANGSMITH_TRACING": "false"}
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


@pytest.mark.timeout(400)
@pytest.mark.parametrize("script", sorted(path.name for path in HERE.glob("*.test.mjs")))
def test_script(script: str, url: str, packages: None) -> None:
    command = ["node", "--test", "--test-force-exit", "--test-timeout=60000", script]
    done = subprocess.run(
        command,
        cwd=HERE,
        env=os.environ | {"TREADLE_URL": url},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
