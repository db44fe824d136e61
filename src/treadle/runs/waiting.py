"""What ``wait``, ``join`` and ``cancel?wait`` answer: headers at once, white space, then JSON."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from treadle.http.response import JSON_TYPE, Headers, Receive, Send
from treadle.runs.outcome import END, GONE_KIND, Outcome, output_json
from treadle.streaming.log import Reader
from treadle.streaming.sse import Disconnect

KEEP_ALIVE_SECONDS = 5.0


class WaitForRun:
    """Sends a run's output once it has ended.

    ``finish`` makes the body from the outcome (None: the run was deleted), perhaps after a look at
    what the run has left. ``abandoned`` is awaited if the client leaves before that.
    """

    def __init__(
        self,
        reader: Reader,
        run_id: str,
        *,
        headers: Headers = (),
        finish: Callable[[Outcome | None], bytes | Awaitable[bytes]] = output_json,
        abandoned: Callable[[], Awaitable[Any]] | None = None,
    ) -> None:
        self._reader, self._run_id, self._headers = reader, run_id, headers
        self._finish, self._abandoned = finish, abandoned

    async def send(self, receive: Receive, send: Send) -> None:
        disconnect = Disconnect(receive, self._reader)
        try:
            headers = [JSON_TYPE, *self._headers]
            await send({"type": "http.response.start", "status": 200, "headers": headers})
            body: bytes | Awaitable[bytes] | None = None
            clock = asyncio.get_running_loop().time
            silent_until = clock() + KEEP_ALIVE_SECONDS
            while body is None:
                entries = await self._reader.next(silent_until - clock())
                if disconnect.happened:
                    if self._abandoned is not None:
                        await self._abandoned()
                    return
                if entries is None:
                    return  # the server stops: the client asks again where Location says
                for entry in entries:
                    if entry.kind == END and entry.run_id == self._run_id:
                        body = self._finish(entry.payload)
                    elif entry.kind == GONE_KIND and entry.run_id in ("", self._run_id):
                        body = self._finish(None)
                if body is None and clock() >= silent_until:
                    await send({"type": "http.response.body", "body": b"\n", "more_body": True})
                    silent_until = clock() + KEEP_ALIVE_SECONDS
            if not isinstance(body, bytes):
                body = await body
            await send({"type": "http.response.body", "body": body})
        finally:
            disconnect.stop()
            self._reader.close()
