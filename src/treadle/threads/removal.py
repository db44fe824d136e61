"""Removing threads with all that is theirs, however much that is.

What a deleted thread has in other tables goes with it in one transaction if it is little.
Otherwise the thread is noted as deleted, which nobody can tell from gone, and the rest goes in
small pieces after that: by the removal that was begun or, if the server stops in between, by the
sweep of the next start.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Iterable

import structlog

from treadle.database import Database, Transaction
from treadle.database.pieces import Piece, in_pieces
from treadle.threads import queries

logger = structlog.get_logger("treadle.threads")

DeletedIn = Callable[[Transaction, str], Awaitable[None]]
"""Hears of each thread that a transaction deletes."""

AT_ONCE_ROWS = 300
AT_ONCE_BYTES = 2**20


class Removal:
    """Removes deleted threads. ``begin`` it after a transaction that deleted some."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._task: asyncio.Task[None] | None = None
        self._wanted = False

    async def delete(self, transaction: Transaction, thread_id: str, piece: Piece) -> None:
        """Delete a thread with its runs; ``piece`` has the time that all of it may take."""
        within = {"thread_id": thread_id}
        await transaction.send(queries.LOCK_RUNS, within)
        await transaction.send(queries.DELETE_THREAD, within)
        if not piece.spent and await self._is_small(transaction, thread_id):
            for table in queries.LEFT_BEHIND:
                await transaction.send(queries.DELETE_ALL.format(table=table), within)
        else:
            await transaction.send(queries.DELETE_IN_FLIGHT, within)
            await transaction.send(queries.BURY, within)
            self._wanted = True
        piece.step()

    async def _is_small(self, transaction: Transaction, thread_id: str) -> bool:
        params = {"thread_id": thread_id, "most": AT_ONCE_ROWS + 1}
        size = await transaction.fetch_one(queries.SIZE_OF_REST, params)
        assert size is not None
        return size["row_count"] <= AT_ONCE_ROWS and size["bytes"] <= AT_ONCE_BYTES

    def begin(self) -> None:
        """Clear away, beside everything else, what transactions have left to be removed."""
        if self._wanted and self._task is None:
            self._task = asyncio.create_task(self._clear_away_all(), name="removal of threads")
            self._task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._task = None
        if not task.cancelled() and (error := task.exception()) is not None:
            logger.error("deleted threads could not be cleared away", exc_info=error)

    async def _clear_away_all(self) -> None:
        while self._wanted:
            self._wanted = False
            await self.clear_away()

    async def stop(self) -> None:
        """Stop, also in the middle: the next start goes on with what is left."""
        if (task := self._task) is not None:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task

    async def clear_away(self) -> None:
        """Remove what deleted threads have left in other tables."""
        while rows := await self._database.read_all(queries.BURIED):
            await in_pieces(self._database, _Leftovers(row["thread_id"] for row in rows).remove)


class _Leftovers:
    """The rows of deleted threads in other tables."""

    def __init__(self, thread_ids: Iterable[str]) -> None:
        self._thread_ids = list(thread_ids)

    async def remove(self, transaction: Transaction, piece: Piece) -> bool:
        """Remove as much as the piece has time for; whether all is done."""
        while self._thread_ids:
            if piece.spent or not await self._remove(transaction, piece, self._thread_ids[-1]):
                return False
            self._thread_ids.pop()
            piece.step()
        return True

    async def _remove(self, transaction: Transaction, piece: Piece, thread_id: str) -> bool:
        within = {"thread_id": thread_id}
        if await transaction.fetch_one(queries.IS_BURIED, within) is None:
            return True  # the thread was made anew, and all that was left of the old one is gone
        for table, key in queries.LEFT_BEHIND.items():
            if not await piece.delete(transaction, table, key, within):
                return False
        await transaction.send(queries.UNBURY, within)
        return True
