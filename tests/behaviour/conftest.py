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

import redis_server
from outbound import pytest_configure, pytest_sessionfinish, pytest_unconfigure  # noqa: F401
from postgres_server import PREFIX, drop_databases, make_database


@pytest.fixture(scope="session", params=["sqlite", "postgres", "two"])
def engine(request: pytest.FixtureRequest) -> str:
    """What a server stands on; "two" processes over PostgreSQL and Redis."""
    return request.param


@pytest.fixture(scope="session")
def new_server(
    engine: str, new_database: Callable[[Path], str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[..., Server]]:
    """``new_server(folder, **env)``: a server that is still to be started."""
    if engine != "two":
        yield lambda folder, **env: Server(folder, new_database(folder), **env)
        return
    with redis_server.running(str(tmp_path_factory.mktemp("redis"))) as uri:
        few = {"REDIS_URI": uri, "TREADLE_POSTGRES_CONNECTIONS": "6"}
        yield lambda folder, **env: Server(
            folder, new_database(folder), as_two=True, **{**few, **env}
        )


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
    tmp_path_factory: pytest.TempPathFactory, new_server: Callable[..., Server]
) -> Iterator[Server]:
    """A server for all tests that leave it as it is."""
    server = new_server(tmp_path_factory.mktemp("shared")).start()
    yield server
    server.kill()


@pytest.fixture
def own_server(
    tmp_path: Path, new_server: Callable[..., Server]
) -> Iterator[Callable[..., Server]]:
    """``own_server(**env)``: a server of the test's own, to kill and to start again."""
    started: list[Server] = []

    def own_server(**env: str) -> Server:
        started.append(new_server(tmp_path, **env).start())
        return started[-1]

    yield own_server
    for server in started:
        server.kill()
