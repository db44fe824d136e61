"""What runs stand on: the other rooms, put together once by the server."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import structlog
from langgraph.store.base import BaseStore

from treadle.checkpoints import upkeep
from treadle.checkpoints.saver import Saver
from treadle.cluster.signals import Signals
from treadle.database import Database, Transaction
from treadle.graphs.registry import GraphRegistry
from treadle.runs import queries
from treadle.runs.figures import RunFigures
from treadle.settings import Settings
from treadle.streaming.log import EventHub

if TYPE_CHECKING:
    from treadle.auth import Policy
    from treadle.runs.driving import Claim
    from treadle.runs.loops import LoopPool
    from treadle.telemetry.telemetry import Telemetry
    from treadle.webhooks.outbox import Webhooks

logger = structlog.get_logger("treadle.runs")


@dataclass
class Rooms:
    """The rooms that runs use. ``url`` is where this server answers; ``loops`` are where graphs
    run, if not on the server's own; ``signals`` reach the other processes; ``telemetry`` makes
    spans."""

    database: Database
    registry: GraphRegistry
    saver: Saver
    store: BaseStore
    events: EventHub
    settings: Settings
    webhooks: Webhooks
    url: str | None = None
    loops: LoopPool | None = None
    figures: RunFigures = field(default_factory=RunFigures)
    signals: Signals | None = None
    tell_end_in: Callable[[Transaction, str, str], Awaitable[bool]] | None = None
    """Called with the thread and the run, in the transaction that ends a run that an agent's
    message began; whether it has put something into the outbox."""
    telemetry: Telemetry | None = None
    policy: Policy | None = None

    @property
    def me(self) -> str:
        """The name of this process among those that share the database."""
        return "" if self.signals is None else self.signals.me

    def tell(self, transaction: Transaction, kind: str, *about: str, to: str | None = None) -> None:
        """Let other processes hear a signal once the transaction is committed."""
        if self.signals is not None:
            self.signals.tell(transaction, kind, *about, to=to)

    async def delete_run(self, transaction: Transaction, thread_id: str, run_id: str) -> None:
        """Remove a run with its checkpoints and kept events."""
        params = {"run_id": run_id, "thread_id": thread_id}
        await transaction.send(queries.DELETE_RUN, params)
        await transaction.send(queries.DELETE_RUN_EVENTS, params)
        await self.delete_checkpoints(transaction, run_id)

    async def forget_runs(self, run_ids: Sequence[str]) -> None:
        """Remove, after the transaction, the checkpoints of runs that it could not remove."""
        if run_ids and not self.saver.in_database:
            await self.saver.adelete_for_runs(run_ids)

    async def forget_thread(self, thread_id: str) -> None:
        """The same for a thread, which is gone whether that succeeds or not."""
        if self.saver.in_database:
            return
        try:
            await self.saver.adelete_thread(thread_id)
        except Exception as error:
            logger.error("checkpoints stay behind", thread_id=thread_id, exc_info=error)

    async def delete_checkpoints(self, transaction: Transaction, run_id: str) -> None:
        """Remove the checkpoints of a run."""
        await upkeep.delete_runs(transaction, self.database.dialect, self.saver.serde, [run_id])

    async def delete_temporary(self, transaction: Transaction, thread_id: str, run_id: str) -> bool:
        """Remove a temporary run, and its thread unless another run is in flight there.

        Whether the thread went too.
        """
        await self.delete_run(transaction, thread_id, run_id)
        if await transaction.fetch_one(queries.IN_FLIGHT, {"thread_id": thread_id}) is not None:
            return False
        await self.delete_thread(transaction, thread_id)
        return True

    async def delete_thread(self, transaction: Transaction, thread_id: str) -> None:
        """Remove a thread with everything on it."""
        params = {"thread_id": thread_id}
        for statement in queries.DELETE_THREAD:
            await transaction.send(statement, params)
        await upkeep.delete_thread(transaction, thread_id)

    def log_failure(self, claim: Claim, failure: BaseException) -> None:
        logger.warning(
            "run failed",
            run_id=claim.run_id,
            thread_id=claim.thread_id,
            graph_id=claim.graph_id,
            attempt=claim.attempt,
            exc_info=failure,
        )
