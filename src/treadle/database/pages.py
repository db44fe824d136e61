"""One page of a search, and how many rows the whole of it has."""

from __future__ import annotations

from collections.abc import Sequence

from treadle.database import Database, Params, Row


async def page_of(
    database: Database, select: str, count: str, params: Params, limit: int, offset: int
) -> tuple[Sequence[Row], int]:
    """The rows of ``select``, which ends in ``LIMIT :limit OFFSET :offset``, and their total.

    ``count`` gives the total as ``n``; it is asked only where the page does not tell it.
    """
    rows = await database.scan(select, {**params, "limit": limit, "offset": offset})
    if len(rows) < limit and (rows or not offset):
        return rows, offset + len(rows)
    [counted] = await database.scan(count, params)
    return rows, counted["n"]
