"""Promise: any MCP client can use an assistant. The example, and the official client in detail."""

from __future__ import annotations

import asyncio
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
from guides import PATIENCE_SECONDS, ROOT, printed_by, shown_in
from promise_server import Server

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from mcp import Client, MCPError


@pytest.fixture(scope="module")
def agents(tmp_path_factory: pytest.TempPathFactory, new_database: Callable[[Path], str]) -> Server:
    """A server of the example agent."""
    folder = tmp_path_factory.mktemp("agents")
    server = Server(folder, new_database(folder))
    shutil.copytree(ROOT / "examples" / "support-agent", folder, dirs_exist_ok=True)
    yield server.start()
    server.kill()


def test_the_guide_shows_what_the_example_prints(agents: Server):
    assert printed_by("mcp_client", agents.url) == shown_in("mcp", "support(")


async def test_cancelling_in_the_client_ends_the_run(server: Server):
    async with Client(f"{server.url}/mcp") as client, server.client() as http:

        async def busy() -> int:
            return (await http.post("/threads/count", json={"status": "busy"})).json()

        before = await busy()
        call = asyncio.create_task(client.call_tool("steps", {"seconds": 60}))
        async with asyncio.timeout(PATIENCE_SECONDS):
            while await busy() == before:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
            call.cancel()
            await asyncio.wait([call])
            while await busy() != before:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        assert call.cancelled()


async def test_errors_reach_the_client(server: Server):
    async with Client(f"{server.url}/mcp") as client:
        assert (await client.call_tool("boom", {})).is_error
        with pytest.raises(MCPError, match="Unknown tool: nope"):
            await client.call_tool("nope", {})
