"""Is the server well, what is it, and what is it doing?"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from importlib.metadata import version

import structlog

from treadle import __version__
from treadle.clock import SECOND_US, now_us
from treadle.database import Database
from treadle.http.metrics import RequestMetrics
from treadle.runs.figures import RunFigures
from treadle.system import prometheus, queries
from treadle.system.models import HostInfo, Info, QueueFigures, WorkerFigures

logger = structlog.get_logger("treadle.system")

CHECK_SECONDS = 5.0
Check = Callable[[], Awaitable[bool]]


class SystemService:
    """Health, versions and figures. ``workers`` tells how busy this process is.

    ``checks`` has a check for each service that the server uses beside the database.
    """

    def __init__(
        self,
        database: Database,
        requests: RequestMetrics,
        runs: RunFigures,
        workers: Callable[[], WorkerFigures],
    ) -> None:
        self._database = database
        self._requests, self._runs = requests, runs
        self._workers = workers
        self.checks: dict[str, Check] = {}

    async def services(self) -> dict[str, bool]:
        """What this server stands on, and whether it answers."""
        found = {"database": await self._is_well("database", self._read)}
        for name, check in self.checks.items():
            found[name] = await self._is_well(name, check)
        return found

    async def _read(self) -> bool:
        await self._database.read_one(queries.CHECK)
        return True

    async def _is_well(self, name: str, check: Check) -> bool:
        try:
            async with asyncio.timeout(CHECK_SECONDS):
                return await check()
        except Exception as error:
            logger.error("health check", service=name, error=repr(error))
            return False

    def info(self, tags: set[str]) -> Info:
        """What runs here; ``tags`` are those of the endpoints that are served."""
        flags = {
            "assistants": "Assistants" in tags,
            "crons": "Crons" in tags,
            "langsmith": False,
            "langsmith_tracing_replicas": True,
            "langsmith_tracing_session_on_runs": True,
            "strict_resume": True,
        }
        return Info(__version__, version("langgraph"), flags, HostInfo())

    async def figures(self) -> dict[str, object]:
        """All figures, as JSON has them."""
        workers = self._workers()
        return {
            "queue": await self._queue(),
            "api": {
                "http_requests_total": [
                    {"method": method, "path": path, "status": status, "count": count}
                    for (method, path, status), count in list(self._requests.requests.items())
                ]
            },
            "workers": {
                "max": workers.max,
                "active": workers.active,
                "available": max(0, workers.max - workers.active),
            },
        }

    async def prometheus(self) -> bytes:
        """All figures in Prometheus' text format."""
        return prometheus.render(self._requests, self._runs, self._workers(), await self._queue())

    async def _queue(self) -> QueueFigures:
        scan, now = self._database.scan, now_us()
        counts = {row["status"]: row["n"] for row in await scan(queries.IN_FLIGHT)}
        [waiting] = await scan(queries.WAITING, {"now": now})
        middle = None
        if waiting["n"]:
            rows = await scan(queries.NTH_WAITING, {"now": now, "offset": waiting["n"] // 2})
            middle = rows[0]["created_at"] if rows else None
        [unblocked] = await scan(queries.OLDEST_UNBLOCKED, {"now": now})

        def seconds(since: int | None) -> float | None:
            return None if since is None else round((now - since) / SECOND_US, 6)

        return QueueFigures(
            n_pending=counts.get("pending", 0),
            n_running=counts.get("running", 0),
            pending_runs_wait_time_max_secs=seconds(waiting["oldest"]),
            pending_runs_wait_time_med_secs=seconds(middle),
            pending_unblocked_runs_wait_time_max_secs=seconds(unblocked["oldest"]),
        )
