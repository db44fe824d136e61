"""Batches through Redis Streams: each process has a stream of its own, in which others put them.

Redis 6.2 or newer, or Valkey; one server, or a cluster. A stream is bounded, and goes away by
itself when its process is no more. Nothing depends on Redis: what it does not take goes through
the database, and what it loses is missed by the receiver, who looks elsewhere.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import structlog
from redis.asyncio import Redis
from redis.asyncio.cluster import RedisCluster
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisClusterException, RedisError

from treadle.cluster.signals import Signals
from treadle.database import Database
from treadle.errors import StartupError
from treadle.streaming.relay.relays import WAITING_BYTES, DatabaseRelay, Pages, Receive, size_of

logger = structlog.get_logger("treadle.relay")

LONGEST_STREAM = 10_000
STREAM_SECONDS = 60
BLOCK_MS = 2000
REPLY_SECONDS = 2.0
PAUSE_SECONDS = 0.5
READ_BYTES = 2**20
"""As much that was read may still be in Redis."""
FAULTS = (RedisError, RedisClusterException, OSError)


class RedisRelay:
    """See ``Relay``; what Redis does not take goes through ``ends``."""

    def __init__(
        self,
        uri: str,
        database: Database,
        signals: Signals,
        ends: DatabaseRelay,
        *,
        cluster: bool = False,
        prefix: str = "",
    ) -> None:
        self._database, self._me, self._ends = database, signals.me, ends
        self._prefix = f"{prefix}treadle:"
        self._sender = _client(uri, cluster, REPLY_SECONDS)
        self._reader = _client(uri, cluster, BLOCK_MS / 1000 + REPLY_SECONDS)
        self._waiting: asyncio.Queue[tuple[Sequence[tuple[str, bytes]], bool]] = asyncio.Queue()
        self._waiting_bytes = 0
        self._tasks: tuple[asyncio.Task[None], ...] = ()
        self._is_well = True

    async def open(self, receive: Receive) -> None:
        self._receive = receive
        try:
            await self._make_stream()
        except FAULTS as error:
            self._note(False, error)
        self._tasks = (
            asyncio.create_task(self._send_forever(), name="redis sender"),
            asyncio.create_task(self._read_forever(), name="redis reader"),
        )

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)
        self._tasks = ()
        for client in (self._sender, self._reader):
            try:
                if client is self._sender:
                    await client.delete(self._stream(self._me))
                await client.aclose()
            except FAULTS:
                pass  # it goes away by itself

    async def is_well(self) -> bool:
        try:
            await self._sender.exists(self._stream(self._me))
        except FAULTS:
            return False
        return True

    def _stream(self, process: str) -> str:
        return f"{self._prefix}{process}"

    def _note(self, is_well: bool, error: BaseException | None = None) -> None:
        if is_well != self._is_well:
            self._is_well = is_well
            if is_well:
                logger.info("Redis carries events again")
            else:
                logger.warning("Redis fails: events go through the database", error=str(error))

    # -- sending ---------------------------------------------------------------------------

    def send(self, batches: Sequence[tuple[str, bytes]], *, when_durable: bool = False) -> None:
        size = size_of(batches)
        if self._waiting_bytes + size > WAITING_BYTES:
            logger.warning("events for other processes are dropped", bytes=size)
            return
        self._waiting_bytes += size
        self._waiting.put_nowait((batches, when_durable))

    async def _send_forever(self) -> None:
        while True:
            batches, when_durable = await self._waiting.get()
            if when_durable:
                await self._flush()
            left = [one for one in batches if not await self._put(*one)]
            if left:
                self._ends.send(left)
            self._waiting_bytes -= size_of(batches)

    async def _flush(self) -> None:
        try:
            await self._database.flush()
        except Exception as error:
            logger.warning("what is to be replayed may not be durable", error=repr(error))

    async def _put(self, target: str, data: bytes) -> bool:
        """Whether Redis has taken a batch."""
        fields: Any = {"o": self._me, "d": data}
        try:
            taken = await self._sender.xadd(
                self._stream(target), fields, maxlen=LONGEST_STREAM, nomkstream=True
            )
        except FAULTS as error:
            self._note(False, error)
            return False
        return taken is not None

    # -- receiving -------------------------------------------------------------------------

    async def _make_stream(self) -> None:
        """Make this process's stream, if it is not there, and keep it for a while."""
        stream = self._stream(self._me)
        if not await self._reader.expire(stream, STREAM_SECONDS):
            await self._reader.xadd(stream, {"o": self._me, "d": b""})
            await self._reader.expire(stream, STREAM_SECONDS)

    async def _read_forever(self) -> None:
        stream, last = self._stream(self._me), "0-0"
        loop = asyncio.get_running_loop()
        made_at = loop.time()
        pages, read_bytes = Pages(), 0
        while True:
            try:
                wanted: Any = {stream: last}
                found: Any = await self._reader.xread(wanted, count=pages.limit, block=BLOCK_MS)
                if not found or loop.time() - made_at > STREAM_SECONDS / 4:
                    await self._make_stream()
                    made_at = loop.time()
                if read_bytes > READ_BYTES:
                    await self._reader.xtrim(stream, minid=last)
                    read_bytes = 0
                self._note(True)
            except FAULTS as error:
                self._note(False, error)
                await asyncio.sleep(PAUSE_SECONDS)
                continue
            sizes: list[int] = []
            for id, fields in _entries(found):
                last = id
                if fields[b"d"]:
                    self._receive(fields[b"o"].decode(), fields[b"d"])
                sizes.append(len(fields[b"d"]))
                await asyncio.sleep(0)  # so that readers take it
            pages.came(sizes)
            read_bytes += sum(sizes)


def _entries(found: Any) -> Any:
    """The entries of the one stream that was asked for."""
    if not found:
        return ()
    pages = found.values() if isinstance(found, dict) else [page for _, page in found]
    return [entry for page in pages for entry in (page[0] if page and _is_nested(page) else page)]


def _is_nested(page: Any) -> bool:
    return isinstance(page[0], list)


def _client(uri: str, cluster: bool, seconds: float) -> Any:
    """A client that gives up soon: there is another way."""
    options: dict[str, Any] = {"socket_timeout": seconds, "socket_connect_timeout": REPLY_SECONDS}
    try:
        if cluster:
            return RedisCluster.from_url(uri, **options)
        client = Redis.from_url(uri, retry=Retry(NoBackoff(), 0), **options)
        client.connection_pool.make_connection()  # which looks at the options of the URI
    except (ValueError, TypeError) as error:
        raise StartupError(f"REDIS_URI cannot be used: {error}.") from None
    return client
