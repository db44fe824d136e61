from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from hashlib import sha1
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # for served.py

from served import Collector, Served

from postgres_server import PREFIX, drop_databases, make_database


@pytest.fixture
def collector() -> Iterator[Collector]:
    collector = Collector()
    yield collector
    collector.close()


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Callable[..., Served]]:
    """``serve(*options, command=..., database=..., **env)``: a process, which may not be ready."""
    started: list[Served] = []

    def serve(
        *more: str, command: str = "serve", database: str | None = None, **env: str
    ) -> Served:
        if command == "serve":
            more = ("--port", "0", *more)
        served = Served(tmp_path, database or str(tmp_path / "t.db"), env, command, *more)
        started.append(served)
        return served

    yield serve
    for served in started:
        served.stop(9)


@pytest.fixture
def shared_database() -> Iterator[str]:
    """A PostgreSQL database that several processes can have."""
    worker = os.environ.get("PYTEST_XDIST_WORKER", "alone")
    name = f"{PREFIX}telemetry_{sha1(__file__.encode()).hexdigest()[:8]}_{worker}"
    drop_databases(name)
    yield make_database(name)
    drop_databases(name)
