"""What happens to threads whose time is over.

``delete`` removes a thread at once and for good, as if by a client; what it leaves in other
tables goes in small pieces after that (``removal.py``). ``keep_latest`` takes away all states
but the latest, in small pieces; after the last one the thread expires no more, until it gets a
new TTL or its state changes, from which its TTL then counts anew. A thread with runs pending or
running is left alone.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import structlog

from treadle.checkpoints.saver import Saver
from treadle.checkpoints.shrinking import Shrinking
from treadle.database import Database, Row, Transaction
from treadle.database.pieces import Piece, in_pieces
from treadle.threads import queries
from treadle.threads.removal import DeletedIn, Removal

logger = structlog.get_logger("treadle.threads")

PAGE_ROWS = 100


class ThreadSweep:
    """Sweeps at most ``limit`` expired threads at a time, those that expired first.

    ``deleted(thread_id)`` hears of each thread that was deleted, ``deleted_in`` within the
    transaction that does so.
    """

    def __init__(
        self,
        database: Database,
        saver: Saver,
        *,
        limit: int,
        deleted: Callable[[str], Awaitable[None]],
        deleted_in: DeletedIn | None = None,
    ) -> None:
        self._database, self._saver, self._deleted_in = database, saver, deleted_in
        self._limit, self._deleted = limit, deleted
        self._removal = Removal(database)

    async def sweep(self, now: int) -> int:
        """Sweep what has expired by ``now``; how many threads that were."""
        await self._removal.clear_away()
        swept, left = 0, self._limit
        place: dict[str, Any] = {"now": now, "expires_at": 0, "seq": 0}
        while left:
            page = min(left, PAGE_ROWS)
            rows = await self._database.scan(queries.EXPIRED, {**place, "limit": page})
            for row in rows:
                swept += await self._sweep_one(row, now)
            await self._removal.clear_away()
            if len(rows) < page:
                break
            left -= len(rows)
            place |= {"expires_at": rows[-1]["expires_at"], "seq": rows[-1]["seq"]}
        return swept

    async def _sweep_one(self, row: Row, now: int) -> bool:
        thread_id: str = row["thread_id"]
        try:
            if row["ttl_strategy"] == "keep_latest":
                return await self._keep_latest(thread_id, now)
            return await self._delete(thread_id, now)
        except Exception as error:
            logger.error("a thread could not be swept", thread_id=thread_id, exc_info=error)
            return False

    async def _delete(self, thread_id: str, now: int) -> bool:
        params = {"thread_id": thread_id, "now": now}

        async def delete(transaction: Transaction) -> bool:
            await transaction.send(queries.EXISTS_LOCKED, params)
            if not await transaction.execute(queries.DELETE_EXPIRED, params):
                return False
            await transaction.execute(queries.BURY, {"thread_id": thread_id})
            if self._deleted_in is not None:
                await self._deleted_in(transaction, thread_id)
            return True

        deleted = await self._database.write(delete, thread_id)
        if deleted:
            await self._deleted(thread_id)
        return deleted

    async def _keep_latest(self, thread_id: str, now: int) -> bool:
        params = {"thread_id": thread_id, "now": now}
        shrinking = Shrinking(self._database.dialect, self._saver.serde, thread_id)
        await shrinking.prepare(self._database.scan)
        swept = False

        async def remove(transaction: Transaction, piece: Piece) -> bool:
            nonlocal swept
            await transaction.send(queries.EXISTS_LOCKED, params)
            if await transaction.fetch_one(queries.STILL_EXPIRED, params) is None:
                return True
            if not await shrinking.remove(transaction, piece):
                return False
            await transaction.execute(queries.END_EXPIRY, params)
            swept = True
            return True

        await in_pieces(self._database, remove)
        if swept and not self._saver.in_database:
            await self._saver.aprune([thread_id])
        return swept
