"""A connection that breaks off at any point of a transaction, on each kind of event loop."""

from __future__ import annotations

import asyncio
from typing import Any

import psycopg
import pytest
import uvloop
from breaking_proxy import CUTS, WAIT_SECONDS, BreakingProxy

from treadle.database import Transaction
from treadle.database.postgres import PostgresDatabase
from treadle.database.postgres_writer import UnclearCommit

ADD = "INSERT INTO workers (owner, lease_until) VALUES (:owner, 0)"


@pytest.mark.parametrize("loop", [asyncio.SelectorEventLoop, uvloop.new_event_loop])
@pytest.mark.parametrize("bodies", [1, 3])
@pytest.mark.parametrize("point", ["first answer", "later answer", "commit"])
@pytest.mark.parametrize("cut", CUTS)
def test_a_connection_that_breaks_off_keeps_no_write_waiting(
    proxy: BreakingProxy, postgres_uri: str, cut: str, point: str, bodies: int, loop: Any
) -> None:
    owners = {f"{number}" for number in range(bodies)}
    left = {point}

    def reach(reached: str) -> None:
        if reached in left:
            left.remove(reached)
            proxy.break_off(CUTS[cut])

    async def body(transaction: Transaction, owner: str) -> str:
        reach("first answer")
        await transaction.execute(ADD, {"owner": owner})
        reach("later answer")
        await transaction.fetch_one("SELECT count(*) AS n FROM workers")
        reach("commit")
        return owner

    async def write() -> list[str | BaseException]:
        database = PostgresDatabase(proxy.uri)
        await database.open()
        async with asyncio.timeout(WAIT_SECONDS):
            jobs = [
                database.write(lambda transaction, owner=owner: body(transaction, owner), owner)
                for owner in sorted(owners)
            ]
            told = await asyncio.gather(*jobs, return_exceptions=True)
            await database.write(lambda transaction: body(transaction, "after"))
            await database.close()
        return told

    with asyncio.Runner(loop_factory=loop) as runner:
        told = runner.run(write())
    assert not left
    with psycopg.connect(postgres_uri) as connection:
        kept = {owner for (owner,) in connection.execute("SELECT owner FROM workers")}
    if point != "commit" or cut in (
        "all but that it is ready",
        "the answer and last words",
        "the answer",
    ):
        assert set(told) == owners
        assert kept == {*owners, "after"}
    else:
        assert all(isinstance(one, UnclearCommit) for one in told)
        assert kept in ({"after"}, {*owners, "after"})
