"""One request on its way to an answer."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import Any

from treadle.http.custom_app import joined_headers
from treadle.http.response import Send

_VARY_ORIGIN = (b"vary", b"Origin")


class Exchange:
    """What is known of a request besides its scope, and how its answer leaves.

    ``status`` is that of the answer, once it has begun to leave; ``is_begun``: the built-in API
    has begun to give one. ``is_foreign``: the project's
    own app has a say in the answer, whose headers may be there already. ``is_outside``: the path
    is not below the mount prefix. ``is_gone``: the client went away.
    """

    __slots__ = (
        "_send", "counted", "extra", "is_begun", "is_foreign", "is_gone", "is_head", "is_outside",
        "request_id", "status", "template",
    )  # fmt: skip

    def __init__(self, send: Send, is_head: bool, request_id: str) -> None:
        self._send, self.is_head, self.request_id = send, is_head, request_id
        self.extra = [_VARY_ORIGIN, (b"x-request-id", request_id.encode("latin-1"))]
        self.status = 0
        self.template = ""
        self.counted = True
        self.is_begun = self.is_foreign = self.is_gone = self.is_outside = False

    def send(self, message: Any) -> Awaitable[None]:
        """Pass a message on, with the headers that every answer has."""
        if message["type"] == "http.response.start":
            self.status = message["status"]
            self.is_begun = True
            if self.is_foreign:
                message["headers"] = joined_headers(message.get("headers", ()), self.extra)
            else:
                message["headers"] = [*message["headers"], *self.extra]
        elif self.is_head:
            message["body"] = b""
        return self._send(message)
