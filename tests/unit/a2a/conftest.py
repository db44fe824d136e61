from __future__ import annotations

import json
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest
from structlog.testing import capture_logs

sys.path.insert(0, str(Path(__file__).parent))  # for a2a_client.py
sys.path.insert(0, str(Path(__file__).parents[1] / "webhooks"))  # for receiver.py

import a2a_graphs
from a2a_client import Agents
from receiver import Receiver

from treadle.config import load_config
from treadle.server import Server
from treadle.settings import Settings

WEBHOOKS = {"url": {"require_https": False, "disable_loopback": False}}


@pytest.fixture(autouse=True)
def logged() -> Iterator[list[Any]]:
    with capture_logs() as logged:
        yield logged


@pytest.fixture
def graphs() -> Any:
    a2a_graphs.reset()
    return a2a_graphs


@pytest.fixture(params=["sqlite", "postgres"])
def database_uri(request: Any, tmp_path: Path) -> Iterator[str]:
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path / 'treadle.db'}"
        return
    uri, empty = map(request.getfixturevalue, ("postgres_uri", "empty_postgres"))
    yield uri
    empty()


@pytest.fixture
def open_agents(tmp_path: Path, database_uri: str, graphs: Any) -> Callable[..., Any]:
    """``async with open_agents(**keys)``: agents over a server with these keys in its config."""

    @asynccontextmanager
    async def open_agents(settings: Settings | None = None, **keys: Any) -> AsyncIterator[Agents]:
        named: dict[str, Any] = {name: f"a2a_graphs:{name}" for name in a2a_graphs.NAMES}
        named["chat"] = {"path": "a2a_graphs:chat", "description": "Repeats what is said."}
        path = tmp_path / "langgraph.json"
        path.write_text(json.dumps({"graphs": named, "webhooks": WEBHOOKS, **keys}))
        settings = settings or Settings(log_level="ERROR")
        settings = msgspec.structs.replace(settings, database_uri=database_uri)
        server = Server(load_config(path), settings)
        async with server.open() as app:
            server.ready()
            transport = httpx.ASGITransport(app)
            async with httpx.AsyncClient(transport=transport, base_url="http://test") as http:
                yield Agents(http)

    return open_agents


@pytest.fixture
async def agents(open_agents: Any) -> AsyncIterator[Agents]:
    async with open_agents() as agents:
        yield agents


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    receiver = Receiver()
    await receiver.open()
    yield receiver
    await receiver.close()
