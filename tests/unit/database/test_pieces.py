"""Removal in small pieces."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from treadle.database import pieces
from treadle.database.pieces import Piece, in_pieces
from treadle.database.sqlite import SQLiteDatabase

WITHIN = {"owner": "me"}


@pytest.fixture
async def database(tmp_path):
    database = SQLiteDatabase(tmp_path / "treadle.db")
    await database.open()

    async def make(tx: Any) -> None:
        await tx.execute("CREATE TABLE things (owner TEXT, name TEXT)")
        for owner in ("me", "you"):
            await tx.execute_many(
                "INSERT INTO things VALUES (:owner, :name)",
                [{"owner": owner, "name": str(number)} for number in range(500)],
            )

    await database.write(make)
    yield database
    await database.close()


async def left(database: SQLiteDatabase) -> dict[str, int]:
    rows = await database.read_all("SELECT owner, count(*) AS n FROM things GROUP BY owner")
    return {row["owner"]: row["n"] for row in rows}


@pytest.fixture
def counted(database):
    """Removes all of mine in pieces; what was left of it after each of them."""

    async def counted() -> list[int]:
        seen: list[int] = []

        async def remove(tx: Any, piece: Piece) -> bool:
            done = await piece.delete(tx, "things", ("name",), WITHIN)
            row = await tx.fetch_one("SELECT count(*) AS n FROM things WHERE owner = 'me'")
            seen.append(row["n"])
            return done

        await in_pieces(database, remove)
        return seen

    return counted


async def test_everything_goes_and_nothing_else(database, counted):
    seen = await counted()
    assert seen == sorted(seen, reverse=True)
    assert seen[-1] == 0
    assert len(seen) >= 500 // pieces.PIECE_ROWS
    assert await left(database) == {"you": 500}


async def test_a_piece_without_time_does_one_step(counted, monkeypatch):
    monkeypatch.setattr(pieces, "PIECE_SECONDS", -1)
    monkeypatch.setattr(pieces, "PAUSE_SECONDS", 0)
    assert await counted() == [*range(499, -1, -1)]


async def test_others_go_on_between_the_pieces(database, counted, monkeypatch):
    monkeypatch.setattr(pieces, "PIECE_SECONDS", -1)
    monkeypatch.setattr(pieces, "PAUSE_SECONDS", 0)
    removal = asyncio.create_task(counted())
    turns = 0
    while not removal.done():
        await asyncio.sleep(0)
        turns += 1
    assert turns > 500


async def test_a_failure_ends_the_removal(database):
    async def remove(tx: Any, piece: Piece) -> bool:
        await piece.delete(tx, "things", ("name",), WITHIN)
        raise RuntimeError("no")

    with pytest.raises(RuntimeError):
        await in_pieces(database, remove)
    assert await left(database) == {"me": 500, "you": 500}


async def test_what_is_remembered_is_that_of_pieces_that_were_committed(database, monkeypatch):
    monkeypatch.setattr(pieces, "PIECE_SECONDS", 60)
    done: list[str] = []

    async def remove(tx: Any, piece: Piece) -> bool:
        is_done = await piece.delete(tx, "things", ("name",), WITHIN)
        piece.then(lambda: done.append("settled"))
        if not done:
            done.append("begun")
            raise RuntimeError("no")
        return is_done

    with pytest.raises(RuntimeError):
        await in_pieces(database, remove)
    assert done == ["begun"]
    assert await in_pieces(database, remove) == 500
    assert done == ["begun", "settled", "settled"]
