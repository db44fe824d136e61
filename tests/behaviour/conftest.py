from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from hashlib import sha1
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # for promise_server.py
sys.path.insert(0, str(Path(__file__).parents[1]))  # for postgres_server.py

from promise_server import Server

from postgres_server import PREFIX, drop_databases, make_database


@pytest.fixture(scope="session", params=["sqlite", "postgres"])
def engine(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="session")
def new_database(engine: str) -> Iterator[Callable[[Path], str]]:
    """``new_database(folder)``: what ``--db`` takes for a database that belongs to a folder."""
    if engine == "sqlite":
        yield lambda folder: str(folder / "treadle.db")
        return
    worker = os.environ.get("PYTEST_XDIST_WORKER", "alone")
    prefix = f"{PREFIX}promise_{sha1(__file__.encode()).hexdigest()[:8]}_{worker}_"
    drop_databases(prefix)
    yield lambda folder: make_database(prefix + sha1(str(folder).encode()).hexdigest()[:8])
    drop_databases(prefix)


@pytest.fixture(scope="session")
def server(
    tmp_path_factory: pytest.TempPathFactory, new_database: Callable[[Path], str]
) -> Iterator[Server]:
    """A server for all tests that leave it as it is."""
    folder = tmp_path_factory.mktemp("shared")
    server = Server(folder, new_database(folder)).start()
    yield server
    server.kill()


@pytest.fixture
def own_server(
    tmp_path: Path, new_database: Callable[[Path], str]
) -> Iterator[Callable[..., Server]]:
    """``own_server(**env)``: a server of the test's own, to kill and to start again."""
    started: list[Server] = []

    def own_server(**env: str) -> Server:
        started.append(Server(tmp_path, new_database(tmp_path), **env).start())
        return started[-1]

    yield own_server
    for server in started:
        server.kill()
