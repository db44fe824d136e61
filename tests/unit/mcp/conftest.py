from __future__ import annotations

import json
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest
from structlog.testing import capture_logs

sys.path.insert(0, str(Path(__file__).parent))  # for tool_graphs.py

import tool_graphs

from treadle.config import load_config
from treadle.server import Server
from treadle.settings import Settings

BOTH = "application/json, text/event-stream"


class Client:
    """What an MCP client does, by hand. ``await elsewhere(address)`` is one on another machine."""

    def __init__(self, app: Any, http: httpx.AsyncClient, elsewhere: Callable[..., Any]) -> None:
        self.app, self.http, self.elsewhere = app, http, elsewhere

    async def post(self, body: Any, accept: str = BOTH, **headers: str) -> httpx.Response:
        content = body if isinstance(body, str) else json.dumps(body)
        return await self.http.post("/mcp", content=content, headers={"accept": accept, **headers})

    async def ask(self, method: str, params: Any = None, id: Any = 1, **headers: str) -> Any:
        body = {"jsonrpc": "2.0", "id": id, "method": method}
        answer = await self.post(body if params is None else {**body, "params": params}, **headers)
        assert answer.status_code == 200, answer.text
        assert answer.json()["id"] == id
        return answer.json()

    async def call(self, name: str, arguments: Any = None, id: Any = 1, **headers: str) -> Any:
        params = {"name": name, "arguments": arguments or {}}
        return (await self.ask("tools/call", params, id, **headers))["result"]

    async def tools(self) -> dict[str, Any]:
        return {tool["name"]: tool for tool in (await self.ask("tools/list"))["result"]["tools"]}

    async def cancel(self, id: Any, **headers: str) -> None:
        params = {"requestId": id, "reason": "no longer needed"}
        body = {"jsonrpc": "2.0", "method": "notifications/cancelled", "params": params}
        assert (await self.post(body, **headers)).status_code == 202

    async def create(self, **fields: Any) -> Any:
        """A new assistant."""
        answer = await self.http.post("/assistants", json=fields)
        assert answer.status_code == 200, answer.text
        return answer.json()


@pytest.fixture
def logged() -> Iterator[list[Any]]:
    with capture_logs() as logged:
        yield logged


@pytest.fixture(params=["sqlite", "postgres"])
def settings(request: Any, tmp_path: Path) -> Iterator[Settings]:
    if request.param == "sqlite":
        yield Settings(database_uri=f"sqlite:///{tmp_path}/treadle.db", log_level="ERROR")
        return
    uri, empty = map(request.getfixturevalue, ("postgres_uri", "empty_postgres"))
    yield Settings(database_uri=uri, log_level="ERROR")
    empty()


@pytest.fixture
async def open_client(
    tmp_path: Path, settings: Settings, logged: list[Any]
) -> AsyncIterator[Callable[..., Any]]:
    """``await open_client(role="all")``: a server, and a client of it."""
    tool_graphs.reset()
    named = {name: f"tool_graphs:{name}" for name in tool_graphs.NAMES}
    named["add"] = {"path": named["add"], "description": "Adds two numbers."}
    (tmp_path / "langgraph.json").write_text(json.dumps({"graphs": named}))
    config = load_config(tmp_path / "langgraph.json")
    async with AsyncExitStack() as stack:

        async def open_client(role: Any = "all") -> Client:
            app = await stack.enter_async_context(Server(config, settings, role=role).open())

            async def client_at(address: str) -> Client:
                transport = httpx.ASGITransport(app, client=(address, 1234))
                http = httpx.AsyncClient(transport=transport, base_url="http://test")
                return Client(app, await stack.enter_async_context(http), client_at)

            return await client_at("127.0.0.1")

        yield open_client


@pytest.fixture
async def client(open_client: Callable[..., Any]) -> Client:
    return await open_client()
