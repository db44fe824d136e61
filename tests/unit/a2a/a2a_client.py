"""A client of agents, and what tests say of their tasks."""

from __future__ import annotations

import asyncio
import json
from typing import Any
from uuid import uuid4

import httpx

PATIENCE_SECONDS = 10.0


def text(said: str) -> dict[str, Any]:
    return {"kind": "text", "text": said}


def message(*parts: Any, **fields: Any) -> dict[str, Any]:
    """The params of a send. A part that is a text stands for a text part."""
    listed = [text(part) if isinstance(part, str) else part for part in parts]
    return {"message": {"role": "user", "messageId": str(uuid4()), "parts": listed, **fields}}


class Agents:
    """A server with agents, and calls to them."""

    def __init__(self, http: httpx.AsyncClient) -> None:
        self.http = http

    async def post(self, agent: str, body: Any, **headers: str) -> httpx.Response:
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        return await self.http.post(f"/a2a/{agent}", content=content, headers=headers)

    async def call(self, agent: str, method: str, params: Any = None, **headers: str) -> Any:
        body = {"jsonrpc": "2.0", "id": 1, "method": method, "params": params}
        answer = await self.post(agent, body, **headers)
        assert answer.status_code == 200, answer.text
        return answer.json()

    async def result(self, agent: str, method: str, params: Any = None, **headers: str) -> Any:
        answer = await self.call(agent, method, params, **headers)
        assert "error" not in answer, answer
        return answer["result"]

    async def error(self, agent: str, method: str, params: Any = None) -> tuple[int, str]:
        answer = await self.call(agent, method, params)
        assert "result" not in answer, answer
        return answer["error"]["code"], answer["error"]["message"]

    async def send(self, agent: str, *parts: Any, **fields: Any) -> Any:
        """The task of a message, once it has ended."""
        configuration = fields.pop("configuration", None)
        params = message(*parts, **fields)
        if configuration is not None:
            params["configuration"] = configuration
        return await self.result(agent, "message/send", params)

    async def begin(self, agent: str, *parts: Any, **fields: Any) -> Any:
        """The task of a message, as soon as it is accepted."""
        return await self.send(agent, *parts, configuration={"blocking": False}, **fields)

    async def get(self, agent: str, task: Any, **params: Any) -> Any:
        return await self.result(agent, "tasks/get", {"id": task["id"], **params})

    async def stream(self, agent: str, method: str, params: Any) -> list[Any]:
        """The results of a stream, once it has ended."""
        body = {"jsonrpc": "2.0", "id": 1, "method": method, "params": params}
        answer = await self.post(agent, body, accept="text/event-stream")
        assert answer.headers["content-type"].startswith("text/event-stream"), answer.text
        lines = [line[5:] for line in answer.text.splitlines() if line.startswith("data:")]
        return [json.loads(line)["result"] for line in lines]

    async def until(self, agent: str, task: Any, state: str) -> Any:
        """The task, once it is in a state."""
        async with asyncio.timeout(PATIENCE_SECONDS):
            while True:
                found = await self.get(agent, task)
                if found["status"]["state"] == state:
                    return found
                await asyncio.sleep(0)


def texts(task: Any) -> list[str]:
    return [part["text"] for said in task["history"] for part in said["parts"] if "text" in part]


def answer_of(task: Any) -> str:
    """The text of a task's only artifact."""
    [artifact] = task["artifacts"]
    [part] = artifact["parts"]
    return part["text"]
