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
        self.steps = 0
        self._began = perf_counter()
        self._then: Callable[[], None] | None = None

    @property
    def spent(self) -> bool:
        """Whether it is time to stop. Never before the first ``step``, so that all work ends."""
        return self.steps > 0 and perf_counter() - self._began > PIECE_SECONDS

    def step(self) -> None:
        """Something is done that the next piece need not do again."""
        self.steps += 1

    def then(self, go_on: Callable[[], None]) -> None:
        """Call ``go_on`` once this piece's work is committed.

        What is to be remembered from piece to piece belongs there: a transaction's body may be
        rolled back and run again.
        """
        self._then = go_on

    def settle(self) -> None:
        """The piece's work is committed, or belongs to a transaction that goes on."""
        if self._then is not None:
            self._then()

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
            await transaction.send(f"DELETE FROM {table} WHERE {one}", {**within, **dict(row)})
            self.step()
        return len(rows) < PIECE_ROWS


async def in_pieces(
    database: Database, remove: Callable[[Transaction, Piece], Awaitable[bool]]
) -> int:
    """Call ``remove`` in transaction after transaction, until it returns True: all is done.

    Returns how many steps were taken in all.
    """

    async def body(transaction: Transaction) -> tuple[bool, Piece]:
        piece = Piece()
        return await remove(transaction, piece), piece

    steps = 0
    while True:
        is_done, piece = await database.write(body)
        piece.settle()
        steps += piece.steps
        if is_done:
            return steps
        await asyncio.sleep(PAUSE_SECONDS)
