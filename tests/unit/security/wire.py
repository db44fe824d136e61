"""Requests as ASGI has them: streams that never end, and sockets."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from typing import Any, NamedTuple

PATIENCE_SECONDS = 10.0


class Answer(NamedTuple):
    """What came back, until the answer ended or ``Ask.endless`` was left."""

    status: int
    headers: list[tuple[str, str]]
    body: str

    @property
    def text(self) -> str:
        return "\n".join([*(f"{name}: {value}" for name, value in self.headers), "", self.body])


def _scope(kind: str, path: str, headers: dict[str, str]) -> dict[str, Any]:
    path, _, query = path.partition("?")
    return {
        "type": kind, "asgi": {"version": "3.0"}, "http_version": "1.1", "scheme": "http",
        "path": path, "raw_path": path.encode(), "query_string": query.encode(), "root_path": "",
        "headers": [(name.encode(), value.encode()) for name, value in headers.items()],
        "client": ("127.0.0.1", 1), "server": ("127.0.0.1", 2),
    }  # fmt: skip


async def request(
    app: Any, method: str, path: str, body: Any, headers: dict[str, str], *, endless: bool = False
) -> Answer:
    """``endless``: the client leaves as soon as an answer that is no refusal has begun."""
    content = b"" if body is None else json.dumps(body).encode()
    gone, taken = asyncio.Event(), False
    start: dict[str, Any] = {}
    parts: list[bytes] = []

    async def receive() -> Any:
        nonlocal taken
        if not taken:
            taken = True
            return {"type": "http.request", "body": content, "more_body": False}
        await gone.wait()
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        if message["type"] == "http.response.start":
            start.update(message)
            if endless and message["status"] < 400:
                gone.set()
        else:
            parts.append(message.get("body", b""))
            if not message.get("more_body", False):
                gone.set()

    async with asyncio.timeout(PATIENCE_SECONDS):
        await app({**_scope("http", path, headers), "method": method}, receive, send)
    found = [(bytes(k).decode().lower(), bytes(v).decode()) for k, v in start["headers"]]
    return Answer(start["status"], found, b"".join(parts).decode())


async def socket(
    app: Any, path: str, messages: Sequence[Any], headers: dict[str, str]
) -> list[Any]:
    """What a socket is told that sends ``messages`` and leaves once each has an answer."""
    sent: list[Any] = []
    answers = asyncio.Queue[None]()
    closed = asyncio.Event()
    waiting = list(messages)
    first = True

    async def receive() -> Any:
        nonlocal first
        if first:
            first = False
            return {"type": "websocket.connect"}
        if waiting:
            return {"type": "websocket.receive", "text": json.dumps(waiting.pop(0))}
        for _ in messages:
            taking = asyncio.ensure_future(answers.get())
            ending = asyncio.ensure_future(closed.wait())
            await asyncio.wait((taking, ending), return_when=asyncio.FIRST_COMPLETED)
            taking.cancel()
            ending.cancel()
        return {"type": "websocket.disconnect", "code": 1000}

    async def send(message: Any) -> None:
        if message["type"] == "websocket.send":
            told = json.loads(message["text"])
            sent.append(told)
            if told.get("type") in ("success", "error"):
                answers.put_nowait(None)
        elif message["type"] == "websocket.close":
            sent.append({"closed": message.get("code"), "reason": message.get("reason")})
            closed.set()

    scope = _scope("websocket", path, headers) | {"subprotocols": [], "extensions": {}}
    async with asyncio.timeout(PATIENCE_SECONDS):
        await app(scope, receive, send)
    return sent
