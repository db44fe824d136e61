from __future__ import annotations

import json
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # for auth_house.py and auth_of_tests.py

import auth_of_tests
from auth_house import House

from treadle.config import load_config
from treadle.server import Server
from treadle.settings import Settings


@pytest.fixture(params=["sqlite", "postgres"])
async def house(request: Any, tmp_path: Path) -> AsyncIterator[House]:
    """A server on each database; its one graph is ``echo``, and ``approval``, which asks."""
    uri = None
    if request.param == "postgres":
        uri, empty = map(request.getfixturevalue, ("postgres_uri", "empty_postgres"))
    config = tmp_path / "langgraph.json"
    graphs = {name: f"auth_of_tests:{name}" for name in ("echo", "approval")}
    config.write_text(json.dumps({"graphs": graphs, "auth": {"path": "auth_of_tests:auth"}}))
    auth_of_tests.ASKED.clear()
    async with Server(load_config(config), Settings(database_uri=uri)).open() as app:
        yield House(app)
    if request.param == "postgres":
        empty()
