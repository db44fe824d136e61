"""Ten thousand runs, and everything deleted again: nothing may have grown."""

from __future__ import annotations

import contextlib
import os
import random
import sqlite3
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from arena import Server, until

RUNS, LEG_RUNS, CLIENTS = 10_000, 1_000, 8
KIB = 1024
MOST_WAL_KIB = 160 * KIB


@dataclass
class Figures:
    """What a server takes at one time."""

    rss_kib: int
    files: int
    threads: int
    database_kib: int
    wal_kib: int
    vacuumed_kib: int

    @classmethod
    def of(cls, server: Server, scratch: Path) -> Figures:
        process = Path(f"/proc/{server.pid}")
        status = dict(line.split(":", 1) for line in (process / "status").read_text().splitlines())
        scratch.unlink(missing_ok=True)
        with contextlib.closing(sqlite3.connect(server.database_path)) as connection:
            connection.execute("VACUUM INTO ?", (str(scratch),))
        return cls(
            int(status["VmRSS"].split()[0]),
            len(os.listdir(process / "fd")),
            int(status["Threads"]),
            server.database_path.stat().st_size // KIB,
            Path(f"{server.database_path}-wal").stat().st_size // KIB,
            scratch.stat().st_size // KIB,
        )


class Clients:
    """Clients that make runs of all kinds, and delete what they have made."""

    def __init__(self, server: Server) -> None:
        self.http = httpx.Client(base_url=server.url, timeout=60)

    def _call(self, method: str, path: str, body: Any = None) -> Any:
        answer = self.http.request(method, path, json=body)
        assert answer.is_success, (method, path, answer.status_code, answer.text)
        return answer.json() if answer.content and path[-6:] != "stream" else None

    def session(self, number: int) -> None:
        """Five runs on one thread and a stateless one, and nothing left of them."""
        choice = random.Random(number)
        thread_id = self._call("POST", "/threads", {"metadata": {"user": f"u{number % 50}"}})[
            "thread_id"
        ]
        path = f"/threads/{thread_id}"
        for turn in range(5):
            body = {
                "assistant_id": choice.choice(["plain", "plain", "asking"]),
                "input": {"token": "x" * choice.choice([10, 1000, 20_000])},
                "stream_resumable": turn % 2 == 0,
                "stream_mode": ["values", "updates"],
            }
            self._call("POST", f"{path}/runs/{choice.choice(['wait', 'stream'])}", body)
        self._call("POST", f"{path}/state", {"values": {"log": ["u"]}, "as_node": "reply"})
        self._call("POST", "/runs/wait", {"assistant_id": "plain", "input": {"token": "s"}})
        run_id = self._call("GET", f"{path}/runs")[0]["run_id"]
        self._call("DELETE", f"{path}/runs/{run_id}")
        self._call("DELETE", path)


@pytest.mark.timeout(900)
def test_nothing_grows(server: Server, tmp_path: Path) -> None:
    server.start()
    clients = Clients(server)
    figures: list[Figures] = []
    begun = time.monotonic()
    with clients.http, ThreadPoolExecutor(CLIENTS) as pool:
        for leg in range(RUNS // LEG_RUNS):
            numbers = range(leg * LEG_RUNS // 6, (leg + 1) * LEG_RUNS // 6)
            list(pool.map(clients.session, numbers))
            figures.append(Figures.of(server, tmp_path / "vacuumed.db"))
            print(
                f"{(leg + 1) * LEG_RUNS:>6} runs, {time.monotonic() - begun:.0f} s: {figures[-1]}"
            )
    until(lambda: server.database.rows("SELECT * FROM deleted_threads") == [], "all to go")
    warm, last = figures[2], figures[-1]
    assert server.database.faults() == []
    assert server.database.one("SELECT count(*) AS n FROM threads")["n"] == 0
    assert last.rss_kib < warm.rss_kib * 1.05 + 4 * KIB
    assert last.files <= warm.files + 2
    assert last.threads <= warm.threads + 2
    assert last.vacuumed_kib <= warm.vacuumed_kib + 8
    assert last.database_kib <= warm.database_kib * 1.5 + KIB
    assert max(each.wal_kib for each in figures) < MOST_WAL_KIB
