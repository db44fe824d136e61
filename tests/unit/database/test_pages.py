"""The total of a search is counted only where its page does not tell it."""

from __future__ import annotations

from typing import Any

import pytest

from treadle.database.pages import page_of

NUMBERS = "WITH n (v) AS (VALUES (1), (2), (3), (4), (5)) SELECT {} FROM n WHERE v <= :most"
SELECT = NUMBERS.format("v") + " LIMIT :limit OFFSET :offset"
COUNT = NUMBERS.format("count(*) AS n")


class Counting:
    """A database that remembers what it was asked."""

    def __init__(self, database: Any) -> None:
        self._database = database
        self.asked: list[str] = []

    async def scan(self, sql: str, params: Any) -> Any:
        self.asked.append(sql)
        return await self._database.scan(sql, params)


@pytest.mark.parametrize(
    ("most", "limit", "offset", "values", "total", "counted"),
    [
        (5, 2, 0, [1, 2], 5, True),
        (5, 10, 0, [1, 2, 3, 4, 5], 5, False),
        (5, 2, 4, [5], 5, False),
        (4, 2, 2, [3, 4], 4, True),
        (5, 2, 9, [], 5, True),
        (0, 2, 0, [], 0, False),
    ],
)
async def test_pages(database, most, limit, offset, values, total, counted):
    asked = Counting(database)
    rows, found = await page_of(asked, SELECT, COUNT, {"most": most}, limit, offset)  # type: ignore[arg-type]
    assert ([row["v"] for row in rows], found) == (values, total)
    assert (COUNT in asked.asked) == counted
