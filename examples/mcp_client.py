"""Talks to the support agent as an MCP client does. ``pip install mcp``, then:

make dev                                              # in another terminal
.venv/bin/python examples/mcp_client.py [http://127.0.0.1:2024]
"""

import asyncio
import json
import sys

from mcp import Client
from mcp_types import CallToolResult


async def main(url: str) -> None:
    async with Client(f"{url}/mcp") as client:
        for tool in (await client.list_tools()).tools:
            print(f"{tool.name}({', '.join(tool.input_schema['properties'])}): {tool.description}")

        async def show(progress: float, total: float | None, message: str | None) -> None:
            print(f"  {progress:g}. {message}")

        async def ask(text: str) -> CallToolResult:
            print(f"\nyou> {text}")
            said = {"messages": text}
            return await client.call_tool("support", said, progress_callback=show)

        found = await ask("Where is my order 1042?")
        print("agent>", found.structured_content["messages"][-1]["content"])

        stopped = await ask("Order 1042 arrived broken. I want a refund.")
        for asked in stopped.structured_content["__interrupt__"]:
            print("asked>", json.dumps(asked["value"]["question"]))


if __name__ == "__main__":
    asyncio.run(main(*(sys.argv[1:] or ["http://127.0.0.1:2024"])))
