"""A web server on this machine that keeps what it gets and answers as it is told."""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

Answer = int | bytes | Callable[[asyncio.StreamWriter], Any]


@dataclass
class Call:
    line: str
    headers: dict[str, str]
    body: bytes
    server_name: str | None = None

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class Receiver:
    """``answers`` are used up one by one, then everything is answered 200.

    A number is a status, bytes are sent as they are, a function gets the connection to write to.
    """

    def __init__(self, *answers: Answer, tls: ssl.SSLContext | None = None) -> None:
        self.calls: list[Call] = []
        self.connections = 0
        self.most_at_once = 0
        self._at_once = 0
        self._answers = list(answers)
        self._tls = tls
        self._server_name: str | None = None
        if tls is not None:
            tls.sni_callback = self._note_name

    def _note_name(self, _socket: Any, name: str | None, _context: Any) -> None:
        self._server_name = name

    async def open(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=self._tls)
        self.port: int = self._server.sockets[0].getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"

    async def close(self) -> None:
        self._server.close()
        await self._server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self._at_once += 1
        self.most_at_once = max(self._at_once, self.most_at_once)
        try:
            line, *lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").splitlines()
            parts = (part.partition(": ") for part in lines if part)
            headers = {name.lower(): value for name, _, value in parts}
            body = await reader.readexactly(int(headers["content-length"]))
            self.calls.append(Call(line, headers, body, self._server_name))
            answer = self._answers.pop(0) if self._answers else 200
            if isinstance(answer, int):
                answer = b"HTTP/1.1 %d X\r\ncontent-length: 2\r\n\r\nok" % answer
            if isinstance(answer, bytes):
                writer.write(answer)
            else:
                await answer(writer)
            await writer.drain()
            await reader.read()  # until the other side closes
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            self._at_once -= 1
            writer.close()
