"""Connecting to PostgreSQL: when the server starts, and again whenever a connection was lost."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Awaitable, Callable
from typing import Any

import structlog
from psycopg import AsyncConnection, OperationalError, ProgrammingError
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from treadle.database.postgres_pipeline import ConnectionLost, Pipeline
from treadle.errors import StartupError

logger = structlog.get_logger("treadle.database")

OLDEST_VERSION = 14
CONNECT_SECONDS = 10
PATIENCE_SECONDS = 10.0
FIRST_PAUSE_SECONDS = 0.05
LONGEST_PAUSE_SECONDS = 1.0
SESSION = {"jit": "off", "idle_in_transaction_session_timeout": "30s"}
"""What each connection is set to. A process that stands still in the middle of a transaction
must not keep others from its rows for ever."""

_DEFAULTS = {
    "fallback_application_name": "treadle",
    "connect_timeout": str(CONNECT_SECONDS),
    "tcp_user_timeout": "15000",
    "keepalives_idle": "30",
    "keepalives_interval": "5",
    "keepalives_count": "3",
}
# What a server says that will soon take connections; whatever else it says is final.
_PASSING = re.compile(r"the database system is|too many (clients|connections)|connection slots")


def conninfo(uri: str) -> str:
    """The connection string of a URI. Raises ``StartupError``, which keeps the URI to itself."""
    try:
        given = conninfo_to_dict(uri)
        if "," in str(given.get("host", "")) and "target_session_attrs" not in given:
            given["target_session_attrs"] = "read-write"
        return make_conninfo("", **{**_DEFAULTS, **given})
    except ProgrammingError:
        raise StartupError(
            "DATABASE_URI is no URI that PostgreSQL understands. It has to be like"
            " postgresql://user:password@host:5432/database?sslmode=require, with %XX for special"
            " characters in the user and the password."
        ) from None


def shown(uri: str) -> str:
    """A URI for people: without passwords."""
    given = conninfo_to_dict(uri)
    host, user = given.get("host", ""), given.get("user")
    port, database = given.get("port"), given.get("dbname", "")
    where = f"{host}:{port}" if port and host else host
    return f"postgresql://{f'{user}@' if user else ''}{where}/{database}"


async def connect(info: str, **settings: str) -> AsyncConnection[Any]:
    """A connection, in autocommit mode. Raises ``OperationalError``."""
    connection = await AsyncConnection.connect(info, autocommit=True)
    try:
        for name, value in {**SESSION, **settings}.items():
            await connection.execute("SELECT set_config(%s, %s, false)", (name, value))
    except BaseException:
        await connection.close()
        raise
    return connection


async def plan_each_time(connection: AsyncConnection[Any]) -> None:
    """Let a connection plan for the values at hand: what one filter lets through is a thread,
    what another does is nearly all."""
    await connection.execute("SET plan_cache_mode = force_custom_plan")


async def first_connection(uri: str, wait_seconds: float) -> AsyncConnection[Any]:
    """Connect when the server starts; wait for a database that is not there yet.

    Raises ``StartupError``: at once for what waiting does not mend.
    """
    info = conninfo(uri)
    until = time.monotonic() + wait_seconds
    has_told = False
    while True:
        try:
            connection = await connect(info)
            break
        except OperationalError as error:
            why = str(error).strip().splitlines()[-1]
            if "FATAL" in str(error) and not _PASSING.search(str(error)):
                raise StartupError(f"PostgreSQL at {shown(uri)} refuses: {why}") from None
            if time.monotonic() >= until:
                raise StartupError(
                    f"PostgreSQL at {shown(uri)} did not answer for {wait_seconds:g} s"
                    f" (TREADLE_POSTGRES_WAIT_SECS): {why}"
                ) from None
            if not has_told:
                has_told = True
                logger.warning(
                    "waiting for PostgreSQL", at=shown(uri), seconds=wait_seconds, error=why
                )
        await asyncio.sleep(LONGEST_PAUSE_SECONDS)
    version = connection.info.server_version // 10_000
    if version < OLDEST_VERSION:
        await connection.close()
        raise StartupError(
            f"PostgreSQL at {shown(uri)} has version {version}: Treadle needs {OLDEST_VERSION} or"
            " newer."
        )
    return connection


class Link:
    """A pipeline that is made anew once it was lost."""

    def __init__(self, make: Callable[[], Awaitable[AsyncConnection[Any]]]) -> None:
        self._make = make
        self._pipeline: Pipeline | None = None
        self._attempt: asyncio.Task[Pipeline] | None = None
        self._is_closed = False

    @property
    def load(self) -> int:
        return 0 if self._pipeline is None else self._pipeline.load

    async def get(self) -> Pipeline:
        """The pipeline; ``ConnectionLost`` if none can be had for ``PATIENCE_SECONDS``.

        All who ask while it is made anew wait for the same attempt.
        """
        pipeline = self._pipeline
        if pipeline is not None and not pipeline.is_lost:
            return pipeline
        if self._attempt is None or self._attempt.done():
            if self._is_closed:
                raise ConnectionLost("The database is closed")
            self._attempt = asyncio.create_task(self._renew())
            self._attempt.add_done_callback(asyncio.Task.exception)  # perhaps nobody waits
        return await asyncio.shield(self._attempt)

    async def _renew(self) -> Pipeline:
        if self._pipeline is not None:
            await self._pipeline.close()
            self._pipeline = None
        self._pipeline = await self._connect()
        return self._pipeline

    async def _connect(self) -> Pipeline:
        until = time.monotonic() + PATIENCE_SECONDS
        pause = FIRST_PAUSE_SECONDS
        while True:
            try:
                return Pipeline(await self._make())
            except OperationalError as error:
                if self._is_closed or time.monotonic() >= until:
                    logger.error("the database does not answer", error=str(error).strip())
                    raise ConnectionLost("The database does not answer") from None
            await asyncio.sleep(pause)
            pause = min(pause * 2, LONGEST_PAUSE_SECONDS)

    async def close(self) -> None:
        """Let go of the pipeline; from now on there is none to be had."""
        self._is_closed = True
        if self._attempt is not None and not self._attempt.done():
            await asyncio.wait([self._attempt])
        if self._pipeline is not None:
            await self._pipeline.close()
            self._pipeline = None
