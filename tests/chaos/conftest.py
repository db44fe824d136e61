"""Servers for the chaos tests.

``make chaos CHAOS_SECONDS=60`` runs all of them in full; without it, they are a sample that takes
about a minute, without the soak.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parents[1]))  # for free_port.py
sys.path.insert(0, str(Path(__file__).parent))  # for arena.py

from arena import LONG, Foundry, Server

collect_ignore = [] if LONG else ["test_soak.py"]


@pytest.fixture(scope="session")
def foundry() -> Iterator[Foundry]:
    foundry = Foundry()
    yield foundry
    foundry.close()


@pytest.fixture
def make_server(foundry: Foundry, tmp_path: Path) -> Iterator[Callable[..., Server]]:
    """``make_server(**env)``: a server that is not started yet, over the test's own database."""
    servers: list[Server] = []

    def make(**env: str) -> Server:
        servers.append(Server(foundry, tmp_path, **env))
        return servers[-1]

    yield make
    for server in servers:
        server.close()


@pytest.fixture
def server(make_server: Callable[..., Server]) -> Server:
    return make_server()
