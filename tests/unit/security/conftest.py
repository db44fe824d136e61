from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "auth"))  # for auth_house.py
sys.path.insert(0, str(Path(__file__).parent))

import auth_of_tests
from auth_house import House
from belongings import Row, rows_of

from treadle.config import load_config
from treadle.server import Server
from treadle.settings import Settings

WEBHOOKS = {"url": {"require_https": False, "disable_loopback": False}}


@pytest.fixture(params=["sqlite", "postgres"])
async def house(request: Any, tmp_path: Path) -> AsyncIterator[House]:
    """A server on each database, whose handlers do what tokens say."""
    uri, empty = f"sqlite:///{tmp_path / 'treadle.db'}", None
    if request.param == "postgres":
        uri, empty = map(request.getfixturevalue, ("postgres_uri", "empty_postgres"))
    config = tmp_path / "langgraph.json"
    graphs = {name: f"matrix_graphs:{name}" for name in ("echo", "approval")}
    auth = {"path": "auth_of_tests:auth"}
    config.write_text(json.dumps({"graphs": graphs, "auth": auth, "webhooks": WEBHOOKS}))
    auth_of_tests.ASKED.clear()
    server = Server(load_config(config), Settings(database_uri=uri, log_level="ERROR"))
    async with server.open() as app:
        server.ready()
        house = House(app)
        house.database_uri = uri  # pyright: ignore[reportAttributeAccessIssue]
        yield house
    if empty:
        empty()


@pytest.fixture
def rows(house: Any) -> Callable[[], Counter[Row]]:
    """``rows()``: every row of the server's database."""
    return lambda: rows_of(house.database_uri.removeprefix("sqlite:///"))
