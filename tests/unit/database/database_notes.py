"""A table of texts, for looking at how writes get there."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from treadle.database import Transaction
from treadle.database.sqlite import SQLiteDatabase


class Notes:
    """``make`` the table, add to it, read it."""

    def __init__(self, database: SQLiteDatabase) -> None:
        self.database = database

    async def make(self) -> None:
        async def body(transaction: Transaction) -> None:
            await transaction.execute(
                "CREATE TABLE notes (seq INTEGER PRIMARY KEY AUTOINCREMENT, text UNIQUE)"
            )

        await self.database.write(body)

    def adding(self, text: str, then: Exception | None = None) -> Callable[..., Any]:
        """A body that adds a text, and then raises."""

        async def body(transaction: Transaction) -> str:
            sql = "INSERT INTO notes (text) VALUES (:text)"
            assert await transaction.execute(sql, {"text": text}) == 1
            if then is not None:
                raise then
            return text

        return body

    async def texts(self) -> list[str]:
        rows = await self.database.read_all("SELECT text FROM notes ORDER BY seq")
        return [row["text"] for row in rows]
