"""A large database for the tests of scale, made once."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1]))  # for postgres_server.py
sys.path.insert(0, str(Path(__file__).parent))

from million import fill

from postgres_server import PREFIX, drop_databases, make_database
from treadle.database.postgres import PostgresDatabase


@pytest.fixture(scope="session")
def million() -> Iterator[str]:
    """The URI of a PostgreSQL database with a million rows in each large table."""
    name = f"{PREFIX}million_{os.getpid()}"
    uri = make_database(name)
    try:
        asyncio.run(migrate(uri))
        fill(uri)
        yield uri
    finally:
        drop_databases(name)


async def migrate(uri: str) -> None:
    database = PostgresDatabase(uri)
    await database.open()
    await database.close()
