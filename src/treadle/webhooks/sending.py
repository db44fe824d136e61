"""The HTTP of webhooks. It is imported at the first delivery, on a thread: httpx and the system's
certificates take a while to load.

No client of httpx is used but its transports alone: they follow no redirect, keep no cookie and
know no proxy. The address that was checked is the one that is connected to; the host's name is in
the ``Host`` header and is what a certificate is checked against.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping, Sequence
from typing import Any

import httpx

from treadle.webhooks.rules import Target

CONNECT_SECONDS = 4.0
ANSWER_SECONDS = 1.0
ANSWER_LIMIT_BYTES = 64 * 1024
OWN_HOST = "api"
_TIMEOUT = httpx.Timeout(None, connect=CONNECT_SECONDS).as_dict()


class Sender:
    """Posts to targets. ``app`` is this server itself."""

    def __init__(self, app: Any) -> None:
        # A connection that is kept would serve another name at the same address, whose
        # certificate was never looked at.
        limits = httpx.Limits(max_keepalive_connections=0)
        self._network = httpx.AsyncHTTPTransport(limits=limits)
        self._own = httpx.ASGITransport(app)

    async def post(
        self, target: Target, addresses: Sequence[str], headers: Mapping[str, str], body: bytes
    ) -> int:
        """The status that the target answers with.

        ``addresses`` are those of its host: they are tried in turn until one can be connected
        to. Raises what went wrong; it waits for an answer as long as it takes.
        """
        if not target.host:
            return await _status(self._own, _request(target, OWN_HOST, headers, body))
        *others, last = addresses
        for address in others:
            with contextlib.suppress(httpx.ConnectError, httpx.ConnectTimeout):
                return await _status(self._network, _request(target, address, headers, body))
        return await _status(self._network, _request(target, last, headers, body))

    async def close(self) -> None:
        await self._network.aclose()


def _request(
    target: Target, address: str, headers: Mapping[str, str], body: bytes
) -> httpx.Request:
    url = httpx.URL(
        scheme=target.scheme, host=address, port=target.port, raw_path=target.path.encode()
    )
    request = httpx.Request(
        "POST",
        url,
        headers={"host": target.netloc or OWN_HOST, **headers},
        content=body,
        extensions={"timeout": _TIMEOUT, "sni_hostname": target.host},
    )
    if target.user is not None:
        request = next(httpx.BasicAuth(*target.user).auth_flow(request))
    return request


async def _status(transport: httpx.AsyncBaseTransport, request: httpx.Request) -> int:
    response = await transport.handle_async_request(request)
    try:
        await _take_leave(response)
    finally:
        await response.aclose()
    return response.status_code


async def _take_leave(response: httpx.Response) -> None:
    """Read a small answer to its end, so that the other side sees an orderly close."""
    size = 0
    with contextlib.suppress(httpx.TransportError, TimeoutError):
        async with asyncio.timeout(ANSWER_SECONDS):
            async for chunk in response.aiter_raw():
                size += len(chunk)
                if size > ANSWER_LIMIT_BYTES:
                    return
