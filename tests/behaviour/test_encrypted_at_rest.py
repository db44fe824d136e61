"""With ``LANGGRAPH_AES_KEY``, what graphs keep in checkpoints is not to be read in the database."""

from __future__ import annotations

import contextlib
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any
from uuid import uuid4

import httpx
import psycopg
import pytest
from promise_server import PATIENCE_SECONDS, Server, asking, new_thread

from postgres_server import PREFIX, drop_databases, make_database

SECRET = "Schnurrbert"
KEY, NEXT_KEY = "0123456789abcdef" * 2, "fedcba9876543210"
ENCRYPTED = {
    "checkpoints": "checkpoint",
    "checkpoint_values": "value",
    "checkpoint_writes": "value",
}


@pytest.fixture
def postgres() -> Iterator[str]:
    name = f"{PREFIX}sealed_{uuid4().hex[:8]}"
    yield make_database(name)
    drop_databases(name)


def stored(database: str, table: str, column: str) -> list[bytes]:
    """What a column holds, as it lies there."""
    sql = f"SELECT {column} FROM {table}"
    if database.startswith("postgres"):
        with psycopg.connect(database) as connection:
            return [bytes(value) for (value,) in connection.execute(sql)]  # type: ignore[arg-type]
    with contextlib.closing(sqlite3.connect(database)) as connection:
        return [value for (value,) in connection.execute(sql)]


async def wait_for(http: httpx.AsyncClient, thread: str, **body: Any) -> Any:
    asked = {**asking("question"), **body}
    return (await http.post(f"/threads/{thread}/runs/wait", json=asked)).json()


async def ask(http: httpx.AsyncClient) -> str:
    """A thread that has the secret in large values and small ones, and waits for an answer."""
    thread = await new_thread(http)
    await wait_for(http, thread, input={"log": [SECRET, SECRET * 50], "size": SECRET})
    answer = await http.post(f"/threads/{thread}/state", json={"values": {"log": [SECRET]}})
    assert answer.status_code == 200, answer.text
    return thread


def found(server: Server) -> dict[str, bool]:
    """Whether the secret is to be read in what has checkpoints."""
    rows = {table: stored(server.database, table, column) for table, column in ENCRYPTED.items()}
    assert all(rows.values())
    return {table: any(SECRET.encode() in value for value in rows[table]) for table in rows}


async def test_checkpoints_cannot_be_read_and_runs_go_on(
    own_server: Callable[..., Server],
) -> None:
    server = own_server(LANGGRAPH_AES_KEY=KEY)
    async with server.client() as http:
        thread = await ask(http)
        before = (await http.get(f"/threads/{thread}/history")).json()
    server.kill()
    assert not any(found(server).values())

    server.start()
    async with server.client() as http:
        assert (await http.get(f"/threads/{thread}/history")).json() == before
        output = await wait_for(http, thread, input=None, command={"resume": "fine"})
        assert output["log"][-1] == "fine"
    assert not any(found(server).values())


async def test_without_a_key_they_can_be_read_and_stay_readable_with_one(
    own_server: Callable[..., Server],
) -> None:
    """The other tests would notice if nothing were encrypted; and a key can be added later."""
    server = own_server()
    async with server.client() as http:
        thread = await ask(http)
    server.stop()
    assert all(found(server).values())

    server.env["LANGGRAPH_AES_KEY"] = KEY
    server.start()
    async with server.client() as http:
        output = await wait_for(http, thread, input=None, command={"resume": "fine"})
        assert output["log"][-1] == "fine"


async def test_a_start_with_the_wrong_key_or_none_says_so(
    own_server: Callable[..., Server],
) -> None:
    server = own_server(LANGGRAPH_AES_KEY=KEY)
    async with server.client() as http:
        thread = await ask(http)
    server.stop()
    for wrong in (None, NEXT_KEY):
        server.env.pop("LANGGRAPH_AES_KEY", None)
        if wrong is not None:
            server.env["LANGGRAPH_AES_KEY"] = wrong
        with pytest.raises(AssertionError, match="Set LANGGRAPH_AES_KEY to the key"):
            server.start()
        assert "Traceback" not in (server.folder / "log").read_text()

    server.env["LANGGRAPH_AES_FALLBACK_KEYS"] = KEY
    server.start()
    async with server.client() as http:
        output = await wait_for(http, thread, input=None, command={"resume": "fine"})
        assert output["log"][-1] == "fine"


@pytest.mark.parametrize("engine", ["sqlite", "postgres"], indirect=True)  # a file serves one alone
async def test_a_copy_on_the_other_engine_is_as_unreadable_and_goes_on(
    own_server: Callable[..., Server], engine: str, postgres: str
) -> None:
    server = own_server(LANGGRAPH_AES_KEY=KEY)
    async with server.client() as http:
        thread = await ask(http)
    server.stop()
    target = postgres if engine == "sqlite" else str(server.folder / "copy.db")
    command = [sys.executable, "-m", "treadle", "db", "copy", server.database, target]
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_SECONDS)  # noqa: ASYNC221
    assert done.returncode == 0, done.stderr
    server.database = target
    assert not any(found(server).values())

    server.start()
    async with server.client() as http:
        output = await wait_for(http, thread, input=None, command={"resume": "fine"})
        assert output["log"][-1] == "fine"
