"""A proxy before PostgreSQL that breaks connections off."""

from __future__ import annotations

import asyncio
import contextlib
import select
import socket
import struct
import threading
from collections.abc import Callable
from typing import Any

import psycopg
from psycopg.conninfo import make_conninfo

READY_BYTES = 6
LAST_WORDS = b"SFATAL\0VFATAL\0C57P01\0Mterminating connection\0\0"
FATAL = b"E" + struct.pack("!I", len(LAST_WORDS) + 4) + LAST_WORDS
WAIT_SECONDS = 10

CUTS: dict[str, Callable[[bytes], bytes]] = {
    "nothing": lambda answer: b"",
    "half a message": lambda answer: answer[: len(answer) // 2],
    "all but that it is ready": lambda answer: answer[:-READY_BYTES],
    "last words": lambda answer: FATAL,
    "the answer and last words": lambda answer: answer[:-READY_BYTES] + FATAL,
    "the answer": lambda answer: answer,
}
"""What of the answer arrives, together with the reset."""


class BreakingProxy:
    """Stands before PostgreSQL, and breaks off the connection that asks next when it is told to.

    The event loop stands still meanwhile: it finds what arrived and the reset at the same time.
    """

    def __init__(self, uri: str) -> None:
        with psycopg.connect(uri) as connection:
            self._host, self._port = connection.info.host, connection.info.port
        self._listening = socket.create_server(("127.0.0.1", 0))
        port = self._listening.getsockname()[1]
        self.uri = make_conninfo(
            uri, host="127.0.0.1", port=port, sslmode="disable", gssencmode="disable"
        )
        self._cut: Callable[[bytes], bytes] | None = None
        self._asked, self._stands, self._broken = (threading.Event() for _ in range(3))
        self._threads: list[threading.Thread] = []
        self._start(self._accept)

    def _start(self, target: Callable[..., None], *args: Any) -> None:
        thread = threading.Thread(target=target, args=args, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listening.accept()
                self._start(self._serve, client)

    def _connect(self) -> socket.socket:
        if not self._host.startswith("/"):
            return socket.create_connection((self._host, self._port))
        server = socket.socket(socket.AF_UNIX)
        server.connect(f"{self._host}/.s.PGSQL.{self._port}")
        return server

    def _serve(self, client: socket.socket) -> None:
        with client, self._connect() as server:
            while True:
                for ready in select.select([client, server], [], [])[0]:
                    passing = ready.recv(1 << 20)
                    if not passing:
                        return
                    if ready is client:
                        server.sendall(passing)
                        if self._cut is not None:
                            self._asked.set()
                    elif self._asked.is_set() and self._cut is not None:
                        self._break(client, passing)
                        return
                    else:
                        client.sendall(passing)

    def _break(self, client: socket.socket, answer: bytes) -> None:
        assert self._cut is not None
        assert self._stands.wait(WAIT_SECONDS)
        client.sendall(self._cut(answer))
        self._cut = None
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        client.close()
        self._broken.set()

    def break_off(self, cut: Callable[[bytes], bytes]) -> None:
        self._cut = cut
        self._stand_still()

    def _stand_still(self) -> None:
        if not self._asked.is_set():
            asyncio.get_running_loop().call_soon(self._stand_still)
            return
        self._stands.set()
        assert self._broken.wait(WAIT_SECONDS)

    def close(self) -> None:
        self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()
        for thread in self._threads:
            thread.join(WAIT_SECONDS)
