"""The ticker: starts the run of each cron when it is due.

It sleeps until the earliest tick, and looks again every few seconds for what it was not woken for:
crons of other processes, a clock that was put forward. Invariant: the transaction that makes a
tick's run also moves the cron on from that tick, on the condition that it still stands there. So
a tick has one run, however many tickers there are; and no tick is lost to a crash in between.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any, Protocol

import msgspec
import structlog

from treadle.auth import Caller, Policy
from treadle.auth.callers import unpack_caller
from treadle.clock import SECOND_US, now_us
from treadle.crons import queries
from treadle.crons.models import RUN_FIELDS
from treadle.crons.service import next_run
from treadle.database import Database, Row, Transaction
from treadle.errors import RequestError, Unavailable
from treadle.ids import new_id
from treadle.lookout import Lookout
from treadle.runs.models import RunCreate, StatelessRunCreate
from treadle.runs.service import Impulse
from treadle.serialization import loads

logger = structlog.get_logger("treadle.crons")

LOOK_SECONDS = 5.0
STUMBLE_SECONDS = 1.0
CONCURRENT = 64
MISSED_SECONDS = 60
"""With ``catch_up: none`` a tick that could not be started for so long is left out."""
CATCH_UP_SECONDS = 7 * 86_400
"""With ``catch_up: all`` the ticks of so long a time are made up."""
CLOCK_BACK_SECONDS = 3 * 3600
"""A clock that is put back by less does not repeat ticks; by more, it was wrong before."""


class Runs(Protocol):
    async def create(
        self,
        caller: Caller,
        request_id: str,
        thread_id: str | None,
        body: RunCreate,
        *,
        impulse: Impulse,
    ) -> object: ...


class _Taken(Exception):
    """The tick is another process's, or the cron has been changed."""


class Ticker:
    """Starts the runs of crons through ``runs``, each as the one who made its cron.

    ``policy`` decides what they may do.
    """

    def __init__(self, database: Database, runs: Runs, policy: Policy | None = None) -> None:
        self._database, self._runs, self._policy = database, runs, policy
        self._lookout = Lookout("crons", self.look, STUMBLE_SECONDS)
        self._starting: dict[str, asyncio.Task[None]] = {}

    # -- life ------------------------------------------------------------------------------

    def open(self) -> None:
        """Begin, with what became due while no server ran."""
        self._lookout.start()

    async def close(self) -> None:
        """Start no more runs. Harmless when repeated."""
        await self._lookout.stop()
        if starting := list(self._starting.values()):
            for task in starting:
                task.cancel()
            await asyncio.wait(starting)

    def wake(self) -> None:
        """Look now: a cron may be due earlier than was known."""
        self._lookout.wake()

    # -- what is due -----------------------------------------------------------------------

    async def look(self) -> float:
        """Begin to start what is due now; in how many seconds to look again."""
        now = now_us()
        await self._mend(now)
        for row in await self._database.read_all(queries.EARLIEST, {"limit": CONCURRENT + 1}):
            cron_id: str = row["cron_id"]
            if cron_id in self._starting:
                continue
            if row["next_run_at"] > now:
                return min(LOOK_SECONDS, (row["next_run_at"] - now) / SECOND_US + 0.001)
            if len(self._starting) == CONCURRENT:
                break
            self._starting[cron_id] = asyncio.create_task(self._start(cron_id))
        return LOOK_SECONDS

    async def _mend(self, now: int) -> None:
        """Plan crons anew that were planned by a clock that was far ahead of this one."""
        later = {"later": now + CLOCK_BACK_SECONDS * SECOND_US}
        rows = await self._database.read_all(queries.SCHEDULED_LATER, later)
        if not rows:
            return

        async def reschedule(transaction: Transaction) -> None:
            for row in rows:
                params = {**dict(row), "following": next_run(row, now), "now": now}
                await transaction.execute(queries.RESCHEDULE, params)

        await self._database.write(reschedule)
        logger.warning("the clock was put back: crons are planned anew", crons=len(rows))

    # -- one tick --------------------------------------------------------------------------

    async def _start(self, cron_id: str) -> None:
        try:
            row = await self._database.read_one(queries.CRON, {"cron_id": cron_id})
            if row is not None and row["enabled"]:
                await self._tick(row, now_us())
        except Exception as error:
            logger.error("a cron's run could not be started", cron_id=cron_id, exc_info=error)
            await asyncio.sleep(STUMBLE_SECONDS)
        finally:
            del self._starting[cron_id]
            self.wake()

    async def _tick(self, row: Row, now: int) -> None:
        tick, payload = row["next_run_at"], loads(row["payload"])
        if tick is None or tick > now:
            return
        wanted, following = _plan(row, payload.get("catch_up", "once"), now)
        params = {
            "cron_id": row["cron_id"],
            "tick": tick,
            "seen": row["updated_at"],
            "following": following,
            "now": now,
        }

        async def take(transaction: Transaction) -> None:
            if not await transaction.execute(queries.TAKE_TICK, params):
                raise _Taken

        with contextlib.suppress(_Taken):
            if not wanted:
                await self._database.write(take)
                return
            impulse = Impulse({"cron_id": row["cron_id"]}, take)
            try:
                owner = unpack_caller(row["caller"], self._policy)
                await self._runs.create(
                    owner, new_id(), row["thread_id"], _run(row, payload), impulse=impulse
                )
            except Unavailable:
                raise  # of the tick itself nothing is known: it is tried again
            except RequestError as error:
                await self._database.write(take)
                logger.warning(
                    "a cron's run was refused", cron_id=row["cron_id"], problem=str(error)
                )


def _plan(row: Row, catch_up: str, now: int) -> tuple[bool, int | None]:
    """Whether the tick at which a cron stands gets a run, and the tick to wait for next."""
    tick = row["next_run_at"]
    if catch_up == "all":
        oldest = now - CATCH_UP_SECONDS * SECOND_US
        return tick >= oldest, next_run(row, max(tick, oldest))
    is_fresh = now - tick <= MISSED_SECONDS * SECOND_US
    return catch_up == "once" or is_fresh, next_run(row, now)


def _run(row: Row, payload: dict[str, Any]) -> RunCreate:
    """What a cron's run is asked for with. Its metadata names the cron."""
    asked = {key: value for key, value in payload.items() if key in RUN_FIELDS}
    config = asked["config"]
    own = {k: v for k, v in config["configurable"].items() if k != "cron_id"}
    asked["config"] = {**config, "configurable": own}
    asked["metadata"] = {**loads(row["metadata"]), "cron_id": row["cron_id"]}
    asked["assistant_id"] = row["assistant_id"]
    if row["thread_id"] is not None:
        return msgspec.convert(asked, RunCreate, strict=False)
    asked["on_completion"] = row["on_run_completed"]
    return msgspec.convert(asked, StatelessRunCreate, strict=False)
