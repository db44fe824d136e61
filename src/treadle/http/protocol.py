"""HTTP/1.1 on the wire: uvicorn's, with limits for what comes too large or not at all."""

from __future__ import annotations

import asyncio
from http import HTTPStatus
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from treadle.serialization import dumps

MAX_HEAD_BYTES = 128 * 1024
PATIENCE_SECONDS = 60.0
"""As long may a head take to come, and as long may pass without any of a body that is awaited."""


class HttpProtocol(HttpToolsProtocol):
    """Refuses what is no HTTP with 400, and a head beyond ``MAX_HEAD_BYTES`` with 431.

    A head is the request line and the headers, and the trailers of a chunked body. Neither it
    nor a single line of it is ever held in memory beyond the limit and what one read brings.
    Who does not come to the end of a request is let go (408) after ``PATIENCE_SECONDS``.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._head_bytes = 0
        self._line_bytes = 0
        """What has come since the parser last told of anything: a line without an end."""
        self._is_in_head = True
        self._is_silent = False
        self._timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._wait()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_waiting()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        self._line_bytes += len(data)
        self._is_silent = False
        super().data_received(data)
        if self.transport.is_closing():
            return
        if self._line_bytes > MAX_HEAD_BYTES:
            self._head_bytes = self._line_bytes
            self.send_400_response("")
        elif self._timer is None and (self._is_in_head or self._awaits_body):
            self._wait()

    def on_message_begin(self) -> None:
        self._head_bytes = 0
        self._is_in_head = True
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        self._is_in_head = False
        self._stop_waiting()
        super().on_headers_complete()

    @property
    def _awaits_body(self) -> bool:
        cycle: Any = self.cycle
        return cycle is not None and cycle.more_body and not cycle.response_complete

    def _wait(self) -> None:
        self._is_silent = True
        self._timer = self.loop.call_later(PATIENCE_SECONDS, self._look)

    def _stop_waiting(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _look(self) -> None:
        """See what has come of the request that was waited for."""
        self._timer = None
        if self.transport.is_closing():
            return
        if self._is_in_head:
            self._refuse(HTTPStatus.REQUEST_TIMEOUT, "The request did not come to its end")
        elif self._awaits_body:
            if self._is_silent and not self.flow.read_paused:
                self.transport.close()  # whoever reads the body hears of it
            else:
                self._wait()

    def on_url(self, url: bytes) -> None:
        self._count(len(url))
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        self._count(len(name) + len(value))
        super().on_header(name, value)

    def on_body(self, body: bytes) -> None:
        self._line_bytes = 0
        super().on_body(body)

    def _count(self, size: int) -> None:
        self._line_bytes = 0
        self._head_bytes += size
        if self._head_bytes > MAX_HEAD_BYTES:
            raise ValueError  # the parser stops, and data_received answers

    def send_400_response(self, msg: str) -> None:
        """Answer a request that cannot be read, and close the connection."""
        status, detail = HTTPStatus.BAD_REQUEST, msg
        if self._head_bytes > MAX_HEAD_BYTES:
            status = HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE
            detail = f"The request line and headers are larger than {MAX_HEAD_BYTES} bytes"
        self._refuse(status, detail)

    def _refuse(self, status: HTTPStatus, detail: str) -> None:
        body = dumps({"detail": detail})
        head = (
            f"HTTP/1.1 {status.value} {status.phrase}\r\ncontent-type: application/json\r\n"
            f"content-length: {len(body)}\r\nconnection: close\r\n\r\n"
        )
        self.transport.write(head.encode() + body)
        self.transport.close()
