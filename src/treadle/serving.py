"""Serves an application at a socket until it is told to stop."""

from __future__ import annotations

import asyncio
import os
import socket
import time
from collections.abc import Callable
from contextlib import AsyncExitStack
from pathlib import Path
from types import FrameType
from typing import Any

import structlog
import uvicorn

from treadle.config import Config
from treadle.errors import StartupError, Unavailable
from treadle.http.protocol import HttpProtocol
from treadle.runs.loops import loop_factory
from treadle.server import Role, Server
from treadle.settings import Settings

logger = structlog.get_logger("treadle.server")

KEEP_ALIVE_SECONDS = 75
CLOSE_SECONDS = 2
ECHO_SECONDS = 0.5

Tls = tuple[Path, Path]
"""The files of a certificate and of its key."""


class _HttpServer(uvicorn.Server):
    """uvicorn, which lets runs end and closes streams before it waits for its connections."""

    def __init__(self, config: uvicorn.Config, rooms: Server, on_ready: Callable[[], None]) -> None:
        super().__init__(config)
        self._rooms, self._on_ready = rooms, on_ready
        self._told_at = 0.0

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._rooms.ready()
        self._on_ready()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        for listening in self.servers:
            listening.close()
        await self._rooms.drain()
        await super().shutdown(sockets)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """A first signal drains; a second one ends the process where it stands.

        One stop may come twice: to the whole group, and passed on by the process that started
        this one.
        """
        now = time.monotonic()
        if self.should_exit:
            if now - self._told_at > ECHO_SECONDS:
                os._exit(128 + sig)
            return
        self._told_at = now
        super().handle_exit(sig, frame)


def run(
    config: Config,
    settings: Settings,
    *,
    host: str,
    port: int,
    sock: socket.socket | None,
    log: Any,
    on_ready: Callable[[], None],
    role: Role = "all",
    tls: Tls | None = None,
) -> None:
    """Serve at ``sock`` until SIGINT or SIGTERM. ``on_ready`` is called once requests are answered.

    A worker answers there nothing but how it is; it needs no ``sock``.
    Raises ``StartupError`` if the server cannot start.
    """
    scheme = "http" if tls is None else "https"
    server = Server(config, settings, f"{scheme}://{host}:{port}{settings.mount_prefix}", role)
    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        loop = runner.get_loop()
        serving = loop.create_task(_serve(server, sock, on_ready, tls))
        while not serving.done():
            try:
                loop.run_until_complete(serving)
            except SystemExit as error:
                if serving.done():
                    raise
                # It ends the run that it comes from, as any other exception does.
                logger.error("a graph called sys.exit(): the server goes on", code=error.code)


async def _serve(
    server: Server, sock: socket.socket | None, on_ready: Callable[[], None], tls: Tls | None
) -> None:
    async with AsyncExitStack() as stack:
        try:
            app = await stack.enter_async_context(server.open())
        except Unavailable as error:
            raise StartupError(
                f"The database has connected, but not stayed: {error}. Perhaps it has no room for"
                " the connections of one more process (its max_connections, or a limit of the role"
                " or the database; TREADLE_POSTGRES_CONNECTIONS says how many that may be)."
            ) from error
        http = uvicorn.Config(
            app,
            http=HttpProtocol,
            ws="websockets-sansio",
            ws_max_size=server.max_body_bytes,
            ws_per_message_deflate=False,  # it would encode each event for each client
            log_config=None,
            access_log=False,
            server_header=False,
            timeout_keep_alive=KEEP_ALIVE_SECONDS,
            timeout_graceful_shutdown=CLOSE_SECONDS,
            ssl_certfile=None if tls is None else tls[0],
            ssl_keyfile=None if tls is None else tls[1],
        )
        sockets = [] if sock is None else [sock]
        serving = _HttpServer(http, server, on_ready)
        try:
            await serving.serve(sockets=sockets)
        finally:
            server.check_started()
