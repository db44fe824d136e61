"""Removal in small pieces, so that it holds up nobody.

SQLite commits on the event loop, and removing a large thread takes seconds. So it is done by
many transactions, each of which ends after ``PIECE_SECONDS``, with pauses between in which
everything else goes on. Whatever is removed like this has to make sense after each of them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from time import perf_counter

from treadle.database import Database, Params, Transaction

PIECE_SECONDS = 0.004
PIECE_ROWS = 500
PAUSE_SECONDS = 0.016


class Piece:
    """The time of one transaction: over once it has got on with its work and is ``spent``."""

    def __init__(self) -> None:
        self._began = perf_counter()
        self._got_on = False

    @property
    def spent(self) -> bool:
        """Whether it is time to stop. Never before the first ``step``, so that all work ends."""
        return self._got_on and perf_counter() - self._began > PIECE_SECONDS

    def step(self) -> None:
        """Something is done that the next piece need not do again."""
        self._got_on = True

    async def delete(
        self, transaction: Transaction, table: str, key: Sequence[str], within: Params
    ) -> bool:
        """Delete the rows of ``table`` whose columns equal ``within``; whether none is left.

        ``key`` are the columns that tell those rows apart.
        """
        where = " AND ".join(f"{column} = :{column}" for column in within)
        one = " AND ".join(f"{column} = :{column}" for column in (*within, *key))
        rows = await transaction.fetch_all(
            f"SELECT {', '.join(key)} FROM {table} WHERE {where} LIMIT {PIECE_ROWS}", within
        )
        for row in rows:
            if self.spent:
                return False
            await transaction.execute(f"DELETE FROM {table} WHERE {one}", {**within, **dict(row)})
            self.step()
        return len(rows) < PIECE_ROWS


async def in_pieces(
    database: Database, remove: Callable[[Transaction, Piece], Awaitable[bool]]
) -> None:
    """Call ``remove`` in transaction after transaction, until it returns True: all is done."""
    while True:
        if await database.write(lambda transaction: remove(transaction, Piece())):
            return
        await asyncio.sleep(PAUSE_SECONDS)
