"""The guard of tests/guard is in every process."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

TRY = "import socket; socket.create_connection(('192.0.2.1', 9), 1)"


def test_a_test_cannot_connect_elsewhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setenv("OUTBOUND_LOG", str(tmp_path / "log"))
    with pytest.raises(ConnectionRefusedError, match="this machine alone"):
        socket.create_connection(("192.0.2.1", 9), 1)
    with pytest.raises(ConnectionRefusedError, match="this machine alone"):
        socket.getaddrinfo("api.smith.langchain.com", 443)
    assert len((tmp_path / "log").read_text().splitlines()) == 2


def test_a_process_that_a_test_starts_cannot_either(tmp_path: Path):
    env = {**os.environ, "OUTBOUND_LOG": str(tmp_path / "log")}
    done = subprocess.run([sys.executable, "-c", TRY], env=env, capture_output=True, text=True)
    assert "this machine alone" in done.stderr
    assert "192.0.2.1" in (tmp_path / "log").read_text()
