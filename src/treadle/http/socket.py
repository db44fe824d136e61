"""A WebSocket as a handler sees it."""

from __future__ import annotations

from typing import Any

from treadle.http.body import ClientGone
from treadle.http.response import Receive, Send


class WebSocket:
    """One connection, accepted. ``send`` waits for a client that does not keep up.

    Raises ``ClientGone`` where the client has gone.
    """

    def __init__(self, receive: Receive, send: Send) -> None:
        self._receive, self._send = receive, send

    async def receive(self) -> str | bytes | None:
        """The next message; None once the client has closed."""
        message = await self._receive()
        if message["type"] == "websocket.disconnect":
            return None
        text: str | None = message.get("text")
        return message["bytes"] if text is None else text

    async def send(self, text: str) -> None:
        await self._pass({"type": "websocket.send", "text": text})

    async def close(self, code: int, reason: str) -> None:
        await self._pass({"type": "websocket.close", "code": code, "reason": reason})

    async def _pass(self, message: dict[str, Any]) -> None:
        try:
            await self._send(message)
        except OSError:  # what ASGI servers raise
            raise ClientGone from None
