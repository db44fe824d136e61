from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # for promise_server.py

from promise_server import Server


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server for all tests that leave it as it is."""
    server = Server(tmp_path_factory.mktemp("shared")).start()
    yield server
    server.kill()


@pytest.fixture
def own_server(tmp_path: Path) -> Iterator[Callable[..., Server]]:
    """``own_server(**env)``: a server of the test's own, to kill and to start again."""
    started: list[Server] = []

    def own_server(**env: str) -> Server:
        started.append(Server(tmp_path, **env).start())
        return started[-1]

    yield own_server
    for server in started:
        server.kill()
