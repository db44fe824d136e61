from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from treadle.checkpoints import Saver
from treadle.database.sqlite import SQLiteDatabase

sys.path.insert(0, str(Path(__file__).parent))  # for checkpointed.py


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[SQLiteDatabase]:
    database = SQLiteDatabase(tmp_path / "treadle.db")
    await database.open()
    yield database
    await database.close()


@pytest.fixture
async def saver(database: SQLiteDatabase) -> Saver:
    return Saver(database)
