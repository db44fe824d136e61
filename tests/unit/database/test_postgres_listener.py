"""A listener whose connection breaks off, on each kind of event loop."""

from __future__ import annotations

import asyncio
from typing import Any

import psycopg
import pytest
import uvloop
from breaking_proxy import CUTS, WAIT_SECONDS, BreakingProxy

from treadle.database import postgres_listener
from treadle.database.postgres_listener import PostgresListener


@pytest.mark.parametrize("loop", [asyncio.SelectorEventLoop, uvloop.new_event_loop])
@pytest.mark.parametrize("cut", CUTS)
def test_a_listener_hears_at_once_that_its_connection_broke_off(
    proxy: BreakingProxy, postgres_uri: str, cut: str, loop: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgres_listener, "PING_SECONDS", 10 * WAIT_SECONDS)

    async def listen() -> str:
        missed = asyncio.Event()
        heard: asyncio.Queue[str] = asyncio.Queue()
        listener = PostgresListener(proxy.uri, ("broken",), heard.put_nowait, missed.set)
        await listener.open()
        proxy.break_off(CUTS[cut])
        listener.ping()
        async with asyncio.timeout(WAIT_SECONDS):
            await missed.wait()
            with psycopg.connect(postgres_uri) as connection:
                connection.execute("NOTIFY broken, 'again'")
            told = await heard.get()
        await listener.close()
        return told

    with asyncio.Runner(loop_factory=loop) as runner:
        assert runner.run(listen()) == "again"
