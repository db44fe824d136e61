"""``langgraph_sdk.get_client()`` without a URL: it calls this server, in process.

Such a call is made on behalf of whoever the calling code works for: the user of the run or of the
request. It is not authenticated again, but authorized like any other; code that works for
nobody, such as a lifespan or a public route of the project's own app, may do everything.
"""

from __future__ import annotations

import asyncio
import os
from collections import deque
from collections.abc import AsyncIterator, Coroutine
from typing import Any, TypeVar

import httpx
from langgraph_sdk._async import client as sdk
from langgraph_sdk.client import configure_loopback_transports

from treadle.auth import ANYONE
from treadle.auth.acting import ACTING

T = TypeVar("T")
Asgi = Any

CHUNKS = 16
"""So much of an answer is made before it is read."""


class Loopback(httpx.AsyncBaseTransport):
    """Passes requests to the server of this process, whichever event loop they come from.

    Answers are read as they are made. Whoever closes one early has hung up.
    """

    app: Asgi = None
    prefix = ""
    home: asyncio.AbstractEventLoop

    def __init__(self, app: Any = None, root_path: str = "") -> None:
        pass

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        if Loopback.app is None:
            raise httpx.ConnectError("The server has not started yet", request=request)
        call = _Call(request, await request.aread(), self.prefix)
        status, headers = await call.on_loop(Loopback.home, call.start(Loopback.app))
        return httpx.Response(status, headers=headers, stream=call)


def install() -> None:
    """Let clients that are made from now on come here, once ``connect`` says where that is."""
    os.environ["__LANGGRAPH_DEFER_LOOPBACK_TRANSPORT"] = "true"
    # The SDK has no other place for it; its own transport holds answers back until they are whole.
    module: Any = sdk
    module.get_asgi_transport = lambda: Loopback
    module._registered_transports = deque(maxlen=0)


def connect(app: Asgi, prefix: str) -> None:
    """Calls come to ``app``, whose paths begin with ``prefix``, on the loop that runs now."""
    Loopback.app, Loopback.prefix = app, prefix
    Loopback.home = asyncio.get_running_loop()
    configure_loopback_transports(app)


class _Call(httpx.AsyncByteStream):
    """One request and its answer. All but ``on_loop`` happens on the server's loop."""

    def __init__(self, request: httpx.Request, body: bytes, prefix: str) -> None:
        caller = ACTING.get()
        self._scope = {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.4"},
            "http_version": "1.1",
            "method": request.method,
            "scheme": request.url.scheme,
            "path": prefix + request.url.path,
            "raw_path": prefix.encode() + request.url.raw_path.split(b"?")[0],
            "query_string": request.url.query,
            "root_path": "",
            "headers": [(name.lower(), value) for name, value in request.headers.raw],
            "server": (request.url.host, request.url.port),
            "client": ("127.0.0.1", 0),
            "treadle.caller": ANYONE if caller is None else caller,
        }
        self._body: bytes | None = body
        self._started: asyncio.Future[tuple[int, list[tuple[bytes, bytes]]]]
        self._chunks: asyncio.Queue[bytes | None] = asyncio.Queue(CHUNKS)
        self._left = asyncio.Event()
        self._home: asyncio.AbstractEventLoop
        self._task: asyncio.Task[None]

    async def on_loop(self, home: asyncio.AbstractEventLoop, work: Coroutine[Any, Any, T]) -> T:
        self._home = home
        if asyncio.get_running_loop() is home:
            return await work
        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(work, home))

    async def start(self, app: Asgi) -> tuple[int, list[tuple[bytes, bytes]]]:
        self._started = asyncio.get_running_loop().create_future()
        self._task = asyncio.create_task(self._serve(app))
        try:
            return await self._started
        except asyncio.CancelledError:
            self._leave()
            raise

    async def _serve(self, app: Asgi) -> None:
        try:
            await app(self._scope, self._receive, self._send)
            if not self._started.done():
                self._started.set_exception(httpx.RemoteProtocolError("No answer was sent"))
        except Exception as error:
            if not self._started.done():
                self._started.set_exception(error)
        finally:
            await self._put(None)

    async def _receive(self) -> dict[str, Any]:
        if self._body is not None:
            body, self._body = self._body, None
            return {"type": "http.request", "body": body, "more_body": False}
        await self._left.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message: Any) -> None:
        if message["type"] == "http.response.start":
            if not self._started.done():
                self._started.set_result((message["status"], list(message["headers"])))
        elif message["type"] == "http.response.body":
            if body := message.get("body", b""):
                await self._put(body)
            if not message.get("more_body", False):
                await self._put(None)

    async def _put(self, chunk: bytes | None) -> None:
        if not self._left.is_set():
            await self._chunks.put(chunk)

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while (chunk := await self.on_loop(self._home, self._chunks.get())) is not None:
            yield chunk

    async def aclose(self) -> None:
        async def leave() -> None:
            self._leave()

        await self.on_loop(self._home, leave())

    def _leave(self) -> None:
        self._left.set()
        while not self._chunks.empty():
            self._chunks.get_nowait()
