"""A connection that breaks off at any point of a transaction, on each kind of event loop."""

from __future__ import annotations

import asyncio
import contextlib
import select
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest
import uvloop
from psycopg.conninfo import make_conninfo

from treadle.database import Transaction
from treadle.database.postgres import PostgresDatabase
from treadle.database.postgres_writer import UnclearCommit

ADD = "INSERT INTO workers (owner, lease_until) VALUES (:owner, 0)"
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


@pytest.fixture
def proxy(postgres_uri: str, empty_postgres: Callable[[], None]) -> Iterator[BreakingProxy]:
    proxy = BreakingProxy(postgres_uri)
    yield proxy
    proxy.close()
    empty_postgres()


@pytest.mark.parametrize("loop", [asyncio.SelectorEventLoop, uvloop.new_event_loop])
@pytest.mark.parametrize("bodies", [1, 3])
@pytest.mark.parametrize("point", ["first answer", "later answer", "commit"])
@pytest.mark.parametrize("cut", CUTS)
def test_a_connection_that_breaks_off_keeps_no_write_waiting(
    proxy: BreakingProxy, postgres_uri: str, cut: str, point: str, bodies: int, loop: Any
) -> None:
    owners = {f"{number}" for number in range(bodies)}
    left = {point}

    def reach(reached: str) -> None:
        if reached in left:
            left.remove(reached)
            proxy.break_off(CUTS[cut])

    async def body(transaction: Transaction, owner: str) -> str:
        reach("first answer")
        await transaction.execute(ADD, {"owner": owner})
        reach("later answer")
        await transaction.fetch_one("SELECT count(*) AS n FROM workers")
        reach("commit")
        return owner

    async def write() -> list[str | BaseException]:
        database = PostgresDatabase(proxy.uri)
        await database.open()
        async with asyncio.timeout(WAIT_SECONDS):
            jobs = [
                database.write(lambda transaction, owner=owner: body(transaction, owner), owner)
                for owner in sorted(owners)
            ]
            told = await asyncio.gather(*jobs, return_exceptions=True)
            await database.write(lambda transaction: body(transaction, "after"))
            await database.close()
        return told

    with asyncio.Runner(loop_factory=loop) as runner:
        told = runner.run(write())
    assert not left
    with psycopg.connect(postgres_uri) as connection:
        kept = {owner for (owner,) in connection.execute("SELECT owner FROM workers")}
    if point != "commit" or cut in (
        "all but that it is ready",
        "the answer and last words",
        "the answer",
    ):
        assert set(told) == owners
        assert kept == {*owners, "after"}
    else:
        assert all(isinstance(one, UnclearCommit) for one in told)
        assert kept in ({"after"}, {*owners, "after"})
