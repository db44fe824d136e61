"""Reads the body of a request, up to a limit."""

from __future__ import annotations

from treadle.errors import TooLarge
from treadle.http.response import Receive


class ClientGone(Exception):
    """The client went away before its request was whole: there is nobody to answer."""


async def read_body(receive: Receive, length: bytes | None, limit: int) -> bytes:
    """The whole body. ``TooLarge`` at once if ``length``, its content-length, is over ``limit``."""
    if length is not None and length.isdigit() and int(length) > limit:
        raise _too_large(limit)
    parts: list[bytes] = []
    size, more = 0, True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientGone
        body: bytes = message.get("body", b"")
        parts.append(body)
        size += len(body)
        if size > limit:
            raise _too_large(limit)
        more = message.get("more_body", False)
    return parts[0] if len(parts) == 1 else b"".join(parts)


def _too_large(limit: int) -> TooLarge:
    return TooLarge(f"The request body is larger than the limit of {limit} bytes")
