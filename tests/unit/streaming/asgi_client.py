"""A client of one ASGI response, which leaves when it is told to."""

from __future__ import annotations

import asyncio
from typing import Any


class Client:
    """``await client.gets(response)``; ``body`` grows as the response is sent."""

    def __init__(self) -> None:
        self.status = 0
        self.headers: list[tuple[bytes, bytes]] = []
        self.chunks: list[bytes] = []
        self.finished = False
        self.reads = asyncio.Event()
        self.reads.set()
        self._got = asyncio.Event()
        self._left = asyncio.Event()

    @property
    def body(self) -> bytes:
        return b"".join(self.chunks)

    async def receive(self) -> Any:
        await self._left.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Any) -> None:
        if message["type"] == "http.response.start":
            assert not self.status
            self.status, self.headers = message["status"], list(message["headers"])
            return
        assert self.status
        assert not self.finished
        if message["body"]:
            self.chunks.append(message["body"])
        self.finished = not message.get("more_body", False)
        self._got.set()
        await self.reads.wait()

    def leave(self) -> None:
        """Hang up."""
        self._left.set()

    async def got(self, text: bytes) -> None:
        """Return once the body has ``text``."""
        async with asyncio.timeout(60):
            while text not in self.body:
                self._got.clear()
                await self._got.wait()

    async def gets(self, response: Any) -> None:
        """Let the response be sent to its end."""
        await response.send(self.receive, self.send)
