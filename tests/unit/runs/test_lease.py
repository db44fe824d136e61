from __future__ import annotations

import asyncio
import math
import threading
from typing import Any

import pytest

from treadle.clock import now_us
from treadle.runs import lease as lease_module
from treadle.runs.lease import LEASE_SECONDS, Lease

WORKERS = "SELECT owner, lease_until FROM workers"


@pytest.fixture(autouse=True)
def renewed_often(monkeypatch):
    monkeypatch.setattr(lease_module, "RENEW_SECONDS", 0.01)


async def lease_until(database) -> int:
    (row,) = await database.scan(WORKERS)
    return row["lease_until"]


async def test_a_lease_lasts_for_its_time_and_is_given_up_at_the_end(database):
    before = now_us()
    lease = Lease(database, lambda: None)
    await lease.open()
    until = await lease_until(database)
    assert before + LEASE_SECONDS * 1e6 <= until <= now_us() + LEASE_SECONDS * 1e6
    await lease.close()
    assert not await database.scan(WORKERS)


async def test_it_is_renewed_while_the_event_loop_stands_still(database):
    lease = Lease(database, lambda: None)
    await lease.open()
    first = {"until": await lease_until(database)}
    renewed = "UPDATE workers SET owner = owner WHERE lease_until > :until"
    deadline = now_us() + 5_000_000
    while not database.execute_outside(renewed, first):  # the loop never gets a turn
        assert now_us() < deadline
    await lease.close()


async def test_it_is_renewed_soon_after_the_database_was_away(database, monkeypatch):
    monkeypatch.setattr(lease_module, "RENEW_SECONDS", 0.05)
    monkeypatch.setattr(lease_module, "RETRY_SECONDS", 0.001)
    execute, away, done = database.execute_outside, iter(range(20)), threading.Event()
    since: list[float] = []

    def execute_outside(sql: str, params: Any) -> int:
        if next(away, None) is not None:
            raise OSError("away")
        since.append(lease.in_touch_since)
        done.set()
        return execute(sql, params)

    monkeypatch.setattr(database, "execute_outside", execute_outside)
    lease = Lease(database, lambda: None)
    await lease.open()
    before = lease.in_touch_since
    assert await asyncio.to_thread(done.wait, 0.9)  # twenty times RENEW_SECONDS is longer
    await lease.close()
    assert since[0] == math.inf  # until then
    assert before < lease.in_touch_since < math.inf


async def test_a_worker_that_was_declared_dead_hears_of_it(database):
    lost = asyncio.Event()
    lease = Lease(database, lost.set)
    await lease.open()
    await database.write(lambda transaction: transaction.execute("DELETE FROM workers"))
    async with asyncio.timeout(5):
        await lost.wait()
    await lease.close()


async def test_each_lease_has_an_owner_of_its_own(database):
    assert Lease(database, lambda: None).owner != Lease(database, lambda: None).owner
