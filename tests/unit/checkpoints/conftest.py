from __future__ import annotations

import sys
from pathlib import Path

import pytest

from treadle.checkpoints import Saver
from treadle.database import Database

sys.path.insert(0, str(Path(__file__).parent))  # for checkpointed.py


@pytest.fixture
async def saver(database: Database) -> Saver:
    return Saver(database)
