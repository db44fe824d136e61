"""Treadle's processes under measurement, each in a process of its own."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Sequence
from pathlib import Path

HERE = Path(__file__).parent
TICKS = os.sysconf("SC_CLK_TCK")
START_SECONDS = 60


class Server:
    """``treadle COMMAND`` on a port of its own, and the processor time that it has spent.

    ``before`` goes before the command, as taskset does.
    """

    def __init__(
        self, config: str, database: str, *command: str, before: Sequence[str] = ()
    ) -> None:
        with socket.socket() as sock:
            sock.bind(("127.0.0.1", 0))
            port = sock.getsockname()[1]
        self.url = f"http://127.0.0.1:{port}"
        command = command or ("serve",)
        port_option = "--health-port" if command[0] == "worker" else "--port"
        self.process = subprocess.Popen([
            *before, str(Path(sys.executable).with_name("treadle")), *command,
            port_option, str(port), "--server-log-level", "error",
            "--config", str(HERE / config), "--db", database,
        ])  # fmt: skip

    def wait_ready(self) -> None:
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline and self.process.poll() is None:
            try:
                urllib.request.urlopen(f"{self.url}/ok").close()
                return
            except OSError:
                time.sleep(0.1)
        raise SystemExit("the server did not start")

    @property
    def seconds(self) -> float:
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / TICKS

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait(20)
