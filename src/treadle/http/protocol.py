"""HTTP/1.1 on the wire: uvicorn's, with a limit on what surrounds a body, and JSON refusals."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from treadle.serialization import dumps

MAX_HEAD_BYTES = 128 * 1024


class HttpProtocol(HttpToolsProtocol):
    """Refuses what is no HTTP with 400, and a head beyond ``MAX_HEAD_BYTES`` with 431.

    A head is the request line and the headers, and the trailers of a chunked body. Neither it
    nor a single line of it is ever held in memory beyond the limit and what one read brings.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._head_bytes = 0
        self._line_bytes = 0
        """What has come since the parser last told of anything: a line without an end."""

    def data_received(self, data: bytes) -> None:
        self._line_bytes += len(data)
        super().data_received(data)
        if self._line_bytes > MAX_HEAD_BYTES and not self.transport.is_closing():
            self._head_bytes = self._line_bytes
            self.send_400_response("")

    def on_message_begin(self) -> None:
        self._head_bytes = 0
        super().on_message_begin()

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
        body = dumps({"detail": detail})
        head = (
            f"HTTP/1.1 {status.value} {status.phrase}\r\ncontent-type: application/json\r\n"
            f"content-length: {len(body)}\r\nconnection: close\r\n\r\n"
        )
        self.transport.write(head.encode() + body)
        self.transport.close()
