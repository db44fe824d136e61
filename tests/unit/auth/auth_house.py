"""A server whose handlers do what tokens say, and requests of its users."""

from __future__ import annotations

import json
from typing import Any

import auth_of_tests
import httpx

ALL = {"identity": "all"}
"""Who may do everything."""


def owner(name: str, **more: Any) -> dict[str, Any]:
    """Who sees only what is their own, and makes it their own."""
    return {"identity": name, "filter": {"owner": name}, "stamp": {"owner": name},
            "namespace": [name], **more}  # fmt: skip


class House:
    """A server, and what its handlers were asked."""

    def __init__(self, app: Any) -> None:
        self.app = app
        transport = httpx.ASGITransport(app)
        self.http = httpx.AsyncClient(transport=transport, base_url="http://test", timeout=30)

    async def __call__(
        self, user: dict[str, Any], method: str, path: str, body: Any = None, **more: Any
    ) -> httpx.Response:
        headers = {"authorization": json.dumps(user), **more.pop("headers", {})}
        return await self.http.request(method, path, json=body, headers=headers, **more)

    async def gives(self, user: dict[str, Any], method: str, path: str, body: Any = None) -> Any:
        """The JSON of an answer that has to be a success."""
        answer = await self(user, method, path, body)
        assert answer.is_success, answer.text
        return answer.json() if answer.content else None

    def asked(self, identity: str) -> list[tuple[str, dict[str, Any]]]:
        """What the handlers were asked about a user's requests, in order."""
        return [(check, value) for who, check, value in auth_of_tests.ASKED if who == identity]
