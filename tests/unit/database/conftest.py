from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # for database_notes.py
from database_notes import Notes

from treadle.database.sqlite import SQLiteDatabase


@pytest.fixture(params=["normal", "full"])
def synchronous(request: pytest.FixtureRequest) -> Any:
    return request.param


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "deep" / "treadle.db"


@pytest.fixture
async def database(path: Path, synchronous: Any) -> AsyncIterator[SQLiteDatabase]:
    database = SQLiteDatabase(path, synchronous)
    await database.open()
    yield database
    await database.close()


@pytest.fixture
async def notes(database: SQLiteDatabase) -> Notes:
    notes = Notes(database)
    await notes.make()
    return notes
