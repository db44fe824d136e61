from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # for streaming_time.py and asgi_client.py

from treadle.database import Database
from treadle.streaming.log import EventHub, ThreadLog

THREAD = "00000000-0000-0000-0000-000000000001"


@pytest.fixture
async def hub(database: Database) -> EventHub:
    hub = EventHub(database)
    await hub.open()
    return hub


@pytest.fixture
def log(hub: EventHub) -> ThreadLog:
    return hub.log(THREAD)
