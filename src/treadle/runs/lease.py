"""The lease of a worker: as long as it is renewed, nobody else takes up the worker's runs.

It is renewed from a thread with a database connection of its own, so that a node that blocks
the event loop does not let it run out.
"""

from __future__ import annotations

import asyncio
import math
import threading
import time
from collections.abc import Callable

import structlog

from treadle.clock import SECOND_US, now_us
from treadle.cluster.run_rows import owner_of
from treadle.database import Database, Transaction
from treadle.ids import new_id
from treadle.runs import queries

logger = structlog.get_logger("treadle.runs")

LEASE_SECONDS = 15.0
RENEW_SECONDS = 4.0
RETRY_SECONDS = 0.5
assert 3 * RENEW_SECONDS < LEASE_SECONDS, "two renewals may fail before a lease is lost"


class Lease:
    """This process's claim to be alive. ``owner`` names it in the rows of its runs.

    ``on_lost`` is called on the event loop once another worker has declared this one dead: it
    was out of touch for longer than a lease, and its runs are others' now.

    ``in_touch_since`` is when, by the monotonic clock, it began to be renewed without fail:
    never, while that fails.
    """

    def __init__(
        self, database: Database, on_lost: Callable[[], None], process: str = "", number: int = 1
    ) -> None:
        self.owner = owner_of(process or new_id()[-12:], number)
        self._database = database
        self._on_lost = on_lost
        self.in_touch_since = time.monotonic()
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._renew, name="treadle-lease", daemon=True)

    async def open(self) -> None:
        """Take the lease and begin to renew it."""
        self._loop = asyncio.get_running_loop()

        async def take(transaction: Transaction) -> None:
            await transaction.execute(queries.TAKE_LEASE, self._params())

        await self._database.write(take)
        self._thread.start()

    async def close(self) -> None:
        """Give the lease up: what this process still executes may be taken at once."""
        self._stopped.set()
        await asyncio.to_thread(self._thread.join)

        async def end(transaction: Transaction) -> None:
            await transaction.execute(queries.END_LEASE, {"owner": self.owner})

        await self._database.write(end)

    def _params(self) -> dict[str, object]:
        return {"owner": self.owner, "until": now_us() + int(LEASE_SECONDS * SECOND_US)}

    def _renew(self) -> None:
        pause = RENEW_SECONDS
        while not self._stopped.wait(pause):
            try:
                renewed = self._database.execute_outside(queries.RENEW_LEASE, self._params())
            except Exception as error:
                if pause == RENEW_SECONDS:
                    logger.warning("the lease could not be renewed", error=repr(error))
                pause, self.in_touch_since = RETRY_SECONDS, math.inf
                continue
            if pause == RETRY_SECONDS:
                pause, self.in_touch_since = RENEW_SECONDS, time.monotonic()
            if not renewed:
                self._loop.call_soon_threadsafe(self._on_lost)
                return
