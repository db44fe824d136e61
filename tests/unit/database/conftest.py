from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # for the modules beside this one
from breaking_proxy import BreakingProxy
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


@pytest.fixture
def proxy(postgres_uri: str, empty_postgres: Callable[[], None]) -> Iterator[BreakingProxy]:
    proxy = BreakingProxy(postgres_uri)
    yield proxy
    proxy.close()
    empty_postgres()
