"""Server-sent events: a reader's entries on the wire."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any, Protocol

from treadle.http.response import Headers, Receive, Send
from treadle.streaming.entries import Entry

HEARTBEAT_SECONDS = 5.0
HEARTBEAT = b": heartbeat\r\n\r\n"
EVENT_STREAM_HEADERS: Headers = (
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-store"),
    (b"x-accel-buffering", b"no"),
)

Pick = Callable[[Entry], bytes | None]


class Source(Protocol):
    """Where the entries of a stream come from: a ``Reader``, or what is like one."""

    @property
    def cut_off(self) -> bool: ...
    async def next(self, timeout: float) -> Sequence[Entry] | None: ...
    def wake(self) -> None: ...
    def close(self) -> None: ...


class Disconnect:
    """Watches for a client that leaves, and wakes the reader that serves it."""

    def __init__(self, receive: Receive, reader: Source) -> None:
        self.happened = False
        self._reader = reader
        self._task = asyncio.create_task(self._watch(receive))

    async def _watch(self, receive: Receive) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        self.happened = True
        self._reader.wake()

    def stop(self) -> None:
        self._task.cancel()


class EventStream:
    """A response that sends what a reader reads, until the last entry or the client leaves.

    ``pick`` gives the bytes to send for an entry (None: nothing), ``is_last`` tells the entry
    after which the stream closes. ``past`` yields what is sent first. ``abandoned`` is awaited
    if the client leaves before the end.
    """

    def __init__(
        self,
        reader: Source,
        pick: Pick,
        is_last: Callable[[Entry], bool],
        *,
        headers: Headers = (),
        past: AsyncIterator[bytes] | None = None,
        ended: bool = False,
        abandoned: Callable[[], Awaitable[Any]] | None = None,
    ) -> None:
        self._reader, self._pick, self._is_last = reader, pick, is_last
        self._headers, self._past, self._ended = headers, past, ended
        self._abandoned = abandoned

    async def send(self, receive: Receive, send: Send) -> None:
        reader = self._reader
        disconnect = Disconnect(receive, reader)
        try:
            headers = [*EVENT_STREAM_HEADERS, *self._headers]
            await send({"type": "http.response.start", "status": 200, "headers": headers})
            if self._past is not None:
                async for page in self._past:
                    await send({"type": "http.response.body", "body": page, "more_body": True})
            ended = self._ended
            clock = asyncio.get_running_loop().time
            silent_until = clock() + HEARTBEAT_SECONDS
            while not ended and not disconnect.happened:
                entries = await reader.next(silent_until - clock())
                if entries is None:
                    if reader.cut_off:
                        return  # no proper end: the client is to come back for the rest
                    break
                frames: list[bytes] = []
                for entry in entries:
                    frame = self._pick(entry)
                    if frame is not None:
                        frames.append(frame)
                    if self._is_last(entry):
                        ended = True
                        break
                if frames or (clock() >= silent_until and not disconnect.happened):
                    body = b"".join(frames) or HEARTBEAT
                    await send({"type": "http.response.body", "body": body, "more_body": True})
                    silent_until = clock() + HEARTBEAT_SECONDS
            if disconnect.happened and not ended:
                if self._abandoned is not None:
                    await self._abandoned()
            else:
                await send({"type": "http.response.body", "body": b""})
        finally:
            disconnect.stop()
            reader.close()
