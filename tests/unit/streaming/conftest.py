from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # for streaming_time.py and asgi_client.py

from treadle.database.sqlite import SQLiteDatabase
from treadle.streaming.log import EventHub, ThreadLog

THREAD = "00000000-0000-0000-0000-000000000001"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "treadle.db"


@pytest.fixture
async def database(path: Path) -> AsyncIterator[SQLiteDatabase]:
    database = SQLiteDatabase(path)
    await database.open()
    yield database
    await database.close()


@pytest.fixture
async def hub(database: SQLiteDatabase) -> EventHub:
    hub = EventHub(database)
    await hub.open()
    return hub


@pytest.fixture
def log(hub: EventHub) -> ThreadLog:
    return hub.log(THREAD)
