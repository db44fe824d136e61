"""Is the server well, what is it, and what is it doing?"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable, Iterable, Sequence
from importlib.metadata import version
from time import monotonic, perf_counter
from typing import TYPE_CHECKING

import structlog

from treadle import __version__
from treadle.clock import SECOND_US, now_us
from treadle.database import Database
from treadle.figures import Figure
from treadle.http.metrics import RequestMetrics
from treadle.runs.figures import RunFigures
from treadle.system import queries, waiting
from treadle.system.models import (
    BacklogFigures,
    Health,
    HostInfo,
    Info,
    QueueFigures,
    ServiceState,
    WorkerFigures,
    WorkerState,
)

if TYPE_CHECKING:
    from prometheus_client import Metric

logger = structlog.get_logger("treadle.system")

CHECK_SECONDS = 5.0
KEPT_EVENTS_SECONDS = 60.0
"""How often kept events are counted at most: each of them is looked at."""
Check = Callable[[], Awaitable[bool]]


class SystemService:
    """Health, versions and figures. ``workers`` tells how busy this process is.

    ``checks`` has a check for each service that the server uses beside the database, ``sources``
    tell further figures of this process. Without ``has_meta`` there is nothing but ``/ok``, which
    checks nothing (``http.disable_meta``).
    """

    def __init__(
        self,
        database: Database,
        requests: RequestMetrics,
        runs: RunFigures,
        workers: Callable[[], WorkerFigures],
        *,
        has_meta: bool = True,
    ) -> None:
        self._database = database
        self._requests, self._runs = requests, runs
        self._workers = workers
        self.has_meta = has_meta
        self.checks: dict[str, Check] = {}
        self.sources: list[Callable[[], Iterable[Figure]]] = []
        self._kept = 0, 0
        self._kept_at = float("-inf")

    async def health(self) -> Health:
        """What this server stands on, and what waits for it. Without Redis all goes on, slower."""
        names = ["database", *self.checks]
        states = await asyncio.gather(
            self._state("database", self._read),
            *(self._state(name, check) for name, check in self.checks.items()),
        )
        services = dict(zip(names, states, strict=True))
        if not services["database"].ok:
            return Health(False, services)
        queue = await self._queue()
        age = queue.pending_unblocked_runs_wait_time_max_secs
        return Health(True, services, self._worker_state(), age)

    async def _read(self) -> bool:
        await self._database.read_one(queries.CHECK)
        return True

    async def _state(self, name: str, check: Check) -> ServiceState:
        begun = perf_counter()
        try:
            async with asyncio.timeout(CHECK_SECONDS):
                ok = await check()
        except TimeoutError:
            problem = f"no answer within {CHECK_SECONDS:g} s"
        except Exception as error:
            problem = type(error).__name__
            logger.error("health check", service=name, error=repr(error))
        else:
            latency_ms = round((perf_counter() - begun) * 1000, 3)
            return ServiceState(ok, latency_ms, None if ok else "no answer")
        return ServiceState(False, error=problem)

    def _worker_state(self) -> WorkerState:
        workers = self._workers()
        return WorkerState(workers.max, workers.active, max(0, workers.max - workers.active))

    def info(self, tags: set[str]) -> Info:
        """What runs here; ``tags`` are those of the endpoints that are served."""
        flags = {
            "assistants": "Assistants" in tags,
            "crons": "Crons" in tags,
            "langsmith": _traces_to_langsmith(),
            "langsmith_tracing_replicas": True,
            "langsmith_tracing_session_on_runs": True,
            "strict_resume": True,
        }
        return Info(__version__, version("langgraph"), flags, HostInfo())

    async def figures(self) -> dict[str, object]:
        """All figures, as JSON has them: ``queue`` and ``backlog`` are of all processes."""
        return {
            "queue": await self._queue(),
            "api": {
                "http_requests_total": [
                    {"method": method, "path": path, "status": status, "count": count}
                    for (method, path, status), count in list(self._requests.requests.items())
                ]
            },
            "workers": self._worker_state(),
            "runs": {
                "created": [
                    {"graph_id": graph_id, "count": count}
                    for graph_id, count in list(self._runs.created.items())
                ],
                "ended": [
                    {"graph_id": graph_id, "status": status, "count": count}
                    for (graph_id, status), count in list(self._runs.ended.items())
                ],
                "taken_up": self._runs.taken_up,
            },
            "backlog": await self._backlog(),
        }

    async def prometheus(self) -> bytes:
        """All figures in Prometheus' text format."""
        from treadle.system import prometheus  # a tenth of a second, for those who want it

        return prometheus.page(await self._all())

    async def families(self) -> Sequence[Metric]:
        """The same figures, as the Prometheus client has them."""
        from treadle.system import prometheus

        return prometheus.families(await self._all())

    async def _all(self) -> list[Figure]:
        queue, backlog = await self._queue(), await self._backlog()
        shared = [*waiting.worker_figures(self._worker_state()), *waiting.figures(queue, backlog)]
        sources = (self._requests.figures, self._runs.figures, self._database.figures)
        return [*shared, *(figure for told in (*sources, *self.sources) for figure in told())]

    async def _backlog(self) -> BacklogFigures:
        scan, now = self._database.scan, now_us()
        [webhooks] = await scan(queries.WEBHOOKS)
        [cron] = await scan(queries.OVERDUE_CRON, {"now": now})
        if monotonic() - self._kept_at > KEPT_EVENTS_SECONDS:
            self._kept_at = monotonic()
            [kept] = await scan(queries.KEPT_EVENTS)
            self._kept = kept["n"], int(kept["bytes"] or 0)

        def late(due: int | None) -> float:
            return 0.0 if due is None else max(0.0, round((now - due) / SECOND_US, 6))

        return BacklogFigures(webhooks["n"], late(webhooks["due"]), late(cron["due"]), *self._kept)

    async def _queue(self) -> QueueFigures:
        scan, now = self._database.scan, now_us()
        counts = {row["status"]: row["n"] for row in await scan(queries.IN_FLIGHT)}
        [due] = await scan(queries.WAITING, {"now": now})
        middle = None
        if due["n"]:
            rows = await scan(queries.NTH_WAITING, {"now": now, "offset": due["n"] // 2})
            middle = rows[0]["created_at"] if rows else None
        [unblocked] = await scan(queries.OLDEST_UNBLOCKED, {"now": now})

        def seconds(since: int | None) -> float | None:
            return None if since is None else round((now - since) / SECOND_US, 6)

        return QueueFigures(
            n_pending=counts.get("pending", 0),
            n_running=counts.get("running", 0),
            pending_runs_wait_time_max_secs=seconds(due["oldest"]),
            pending_runs_wait_time_med_secs=seconds(middle),
            pending_unblocked_runs_wait_time_max_secs=seconds(unblocked["oldest"]),
        )


def _traces_to_langsmith() -> bool:
    """Whether langchain sends the traces of runs to LangSmith."""
    from langsmith.utils import tracing_is_enabled

    has_key = any(os.environ.get(f"{name}_API_KEY") for name in ("LANGSMITH", "LANGCHAIN"))
    return has_key and bool(tracing_is_enabled())
