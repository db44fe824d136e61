"""How batches get from one process to another."""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable, Sequence
from typing import Protocol

import structlog

from treadle.cluster.signals import Signals
from treadle.database import Database, Transaction
from treadle.streaming.relay import queries

logger = structlog.get_logger("treadle.relay")

FEW = 16
MANY = 256
PAGE_BYTES = 2**22
TRIES = 3
TIDY_SECONDS = 5.0
WAITING_BYTES = 64 * 2**20
"""As much may wait to be sent; beyond it, batches are dropped, and receivers notice the gap."""

Receive = Callable[[str, bytes], None]
"""Takes the name of the process that has sent a batch, and the batch."""


def size_of(batches: Sequence[tuple[str, bytes]]) -> int:
    """In bytes."""
    return sum(len(data) for _, data in batches)


class Pages:
    """How many of the batches that wait are asked for at once.

    They are few, since each may be large; ever more, while those that come are many and small.
    """

    def __init__(self) -> None:
        self.limit = FEW

    def came(self, sizes_bytes: Sequence[int]) -> bool:
        """Note a page that has come; whether more may wait."""
        full = len(sizes_bytes) >= self.limit
        small = sum(sizes_bytes) <= PAGE_BYTES
        self.limit = min(2 * self.limit, MANY) if full and small else FEW
        return full


class Relay(Protocol):
    """A way for batches. They arrive in the order in which one process has sent them to another.

    Some may be lost, or come twice; receivers can tell. ``send`` never waits.
    """

    async def open(self, receive: Receive) -> None: ...

    def send(self, batches: Sequence[tuple[str, bytes]], *, when_durable: bool = False) -> None:
        """Send each of ``batches`` to the process that is named with it.

        ``when_durable``: not before all that was handed to the database is durable.
        """
        ...

    async def is_well(self) -> bool:
        """Whether it carries batches now."""
        ...

    async def close(self) -> None: ...


class DatabaseRelay:
    """Through a table of the database; a signal says that there is something in it.

    ``send_in`` sends within a transaction.
    """

    def __init__(self, database: Database, signals: Signals) -> None:
        self._database, self._signals = database, signals
        self._number = 0
        self._waiting_bytes = 0
        self._last: dict[str, int] = {}
        self._forgotten: dict[str, int] = {}
        self._to_fetch: deque[str] = deque()
        self._woken = asyncio.Event()
        self._tasks: tuple[asyncio.Task[None], ...] = ()
        signals.on("news", self._news)
        signals.on_missed(self.look_again)

    async def open(self, receive: Receive) -> None:
        self._receive = receive
        self._tasks = (
            asyncio.create_task(self._fetch_forever(), name="relay"),
            asyncio.create_task(self._tidy_forever(), name="relay's tidying"),
        )

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)
        self._tasks = ()

    async def is_well(self) -> bool:
        return True  # as the database is, which others look after

    # -- sending ---------------------------------------------------------------------------

    def send(self, batches: Sequence[tuple[str, bytes]], *, when_durable: bool = False) -> None:
        self._send(batches, TRIES)

    def _send(self, batches: Sequence[tuple[str, bytes]], tries: int) -> None:
        # In the order of all writes, so behind what was to be durable.
        size = size_of(batches)
        if self._waiting_bytes + size > WAITING_BYTES:
            logger.warning("events for other processes are dropped", bytes=size)
            return
        self._waiting_bytes += size

        async def body(transaction: Transaction) -> None:
            for target, data in batches:
                await transaction.send(
                    queries.PUT_BATCH,
                    {
                        "target": target,
                        "origin": self._signals.me,
                        "number": self._next_number(),
                        "data": data,
                    },
                )
                self._signals.tell(transaction, "news", self._signals.me, to=target)

        def failed(error: Exception) -> None:
            self._waiting_bytes -= size
            if tries > 1:
                self._send(batches, tries - 1)
            else:
                logger.warning("events for other processes are lost", error=repr(error))

        def committed() -> None:
            self._waiting_bytes -= size

        self._database.write_soon(body, failed, committed)
        self._database.hurry()

    async def send_in(self, transaction: Transaction, thread_id: str, data: bytes) -> None:
        """Send a batch to all that watch a thread, once the transaction is committed."""
        await transaction.send(
            queries.TELL_WATCHERS,
            {
                "thread_id": thread_id,
                "origin": self._signals.me,
                "number": self._next_number(),
                "data": data,
                "channel": self._database.channel,
                "text": f"{self._signals.me} news {self._signals.me}",
            },
        )

    def _next_number(self) -> int:
        self._number += 1
        return self._number

    # -- receiving -------------------------------------------------------------------------

    def _news(self, origin: str) -> None:
        if origin not in self._to_fetch:
            self._to_fetch.append(origin)
        self._woken.set()

    def look_again(self) -> None:
        """Look for what signals may have told in vain."""
        self._news("")

    async def _fetch_forever(self) -> None:
        while True:
            await self._woken.wait()
            self._woken.clear()
            while self._to_fetch:
                origin = self._to_fetch.popleft()
                try:
                    await self._fetch(origin)
                except Exception as error:
                    logger.warning("events of other processes wait", error=repr(error))
                    self._news(origin)
                    await asyncio.sleep(0.5)

    async def _fetch(self, origin: str) -> None:
        if not origin:
            rows = await self._database.read_all(queries.ORIGINS, {"target": self._signals.me})
            for row in rows:
                self._news(row["origin"])
            return
        pages = Pages()
        while True:
            last = self._last.get(origin, 0)
            params = {
                "target": self._signals.me,
                "origin": origin,
                "last": last,
                "limit": pages.limit,
            }
            rows = await self._database.read_all(queries.BATCHES, params)
            for row in rows:
                self._last[origin] = row["number"]
                self._receive(origin, bytes(row["data"]))
                await asyncio.sleep(0)  # so that readers take it
            if not pages.came([len(row["data"]) for row in rows]):
                return

    # -- tidying ---------------------------------------------------------------------------

    async def _tidy_forever(self) -> None:
        """Remove what was received, and what nobody fetches; the safety net for signals."""
        while True:
            await asyncio.sleep(TIDY_SECONDS)
            with contextlib.suppress(Exception):
                await self._database.write(self._tidy)
            self.look_again()

    async def _tidy(self, transaction: Transaction) -> None:
        for origin, last in self._last.items():
            if self._forgotten.get(origin) != last:
                self._forgotten[origin] = last
                params = {"target": self._signals.me, "origin": origin, "last": last}
                await transaction.send(queries.FORGET_BATCHES, params)
        await transaction.send(queries.FORGET_OLD_BATCHES)
        await transaction.send(queries.FORGET_WATCHES)
