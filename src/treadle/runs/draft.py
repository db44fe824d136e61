"""A run on its way into the queue: what is known of it before its transaction, and its insert."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from treadle.assistants.models import Assistant
from treadle.auth import Caller, Filter
from treadle.clock import SECOND_US, now_us
from treadle.database import Row, Transaction
from treadle.errors import NotFound
from treadle.ids import new_id
from treadle.runs import queries
from treadle.runs.answering import aimed
from treadle.runs.created import Impulse, run_json
from treadle.runs.displaced import Displaced
from treadle.runs.merging import (
    given,
    run_kwargs,
    run_metadata,
    start_checkpoint,
    thread_config,
    unknown_checkpoint,
)
from treadle.runs.models import CommandRun, RunCreate, StatelessRunCreate
from treadle.serialization import dump_text, loads

if TYPE_CHECKING:
    from treadle.runs.service import RunService

NO_THREAD_OR_ASSISTANT = "Thread or assistant not found."
Json = dict[str, Any]


class Draft:
    """A run that has passed every check that needs no transaction."""

    def __init__(
        self,
        body: RunCreate,
        assistant: Assistant,
        thread_id: str | None,
        visible: Filter | None,
        impulse: Impulse | None,
    ) -> None:
        self.body, self.assistant, self.visible = body, assistant, visible
        self.configurable = {} if impulse is None else impulse.configurable
        self.stateless = thread_id is None
        self.thread_id = thread_id or new_id()
        self.run_id = new_id()
        self.now = now_us()
        delay_us = int(max(0.0, given(body.after_seconds) or 0) * SECOND_US)
        self.delayed = delay_us > 0
        self.due_us = self.now + delay_us
        self.seq_before = 0
        self.displaces = given(body.multitask_strategy) in ("interrupt", "rollback")

    async def insert(
        self,
        transaction: Transaction,
        service: RunService,
        caller: Caller,
        request_id: str,
        displaced: Displaced,
    ) -> Json:
        """Insert the run, in the transaction that also marks its thread busy."""
        body, assistant, thread_id = self.body, self.assistant, self.thread_id
        names = {"graph_id": assistant.graph_id, "assistant_id": assistant.assistant_id}
        strategy = given(body.multitask_strategy) or "enqueue"
        row = await self._thread(transaction, service, names)
        if isinstance(body, CommandRun):
            body = await aimed(transaction, body, row)
            self.seq_before = await service.last_seq(transaction, thread_id)
        if row is None:
            metadata = run_metadata(body, assistant, names)
            thread_metadata = {**(given(body.metadata) or {}), **names}
            config_before: Json = {}
        else:
            given_metadata = given(body.metadata) if isinstance(body, CommandRun) else None
            thread_metadata = {**loads(row["metadata"]), **(given_metadata or {}), **names}
            config_before = loads(row["config"])
            metadata = run_metadata(body, assistant, thread_metadata)
            await service.make_room(transaction, thread_id, strategy, displaced)
        kwargs = run_kwargs(
            body,
            assistant,
            metadata,
            run_id=self.run_id,
            thread_id=thread_id,
            caller=caller,
            request_id=request_id,
            configurable=self.configurable,
        )
        start = start_checkpoint(thread_id, kwargs["config"]["configurable"])
        if start is not None and not await service.has_checkpoint(transaction, start):
            raise unknown_checkpoint(start)
        values = {
            "run_id": self.run_id,
            "thread_id": thread_id,
            "assistant_id": assistant.assistant_id,
            "graph_id": assistant.graph_id,
            "status": "pending",
            "created_at": self.due_us,
            "updated_at": self.now,
            "metadata": dump_text(metadata),
            "kwargs": dump_text(kwargs),
            "multitask_strategy": strategy,
            "temporary": int(
                isinstance(body, StatelessRunCreate) and given(body.on_completion) != "keep"
            ),
        }
        await transaction.send(queries.INSERT_RUN, values)
        later_us = self.due_us if self.delayed else None
        service.announce(transaction, assistant.graph_id, later_us)
        await transaction.send(
            queries.THREAD_TAKES_RUN,
            {
                "thread_id": thread_id,
                "metadata": dump_text(thread_metadata),
                "config": dump_text(thread_config(config_before, assistant, body)),
                "now": self.now,
            },
        )
        return run_json(values)

    async def _thread(
        self, transaction: Transaction, service: RunService, names: Json
    ) -> Row | None:
        """The row of the run's thread; None if the thread was made just now."""
        if not self.stateless:
            row = await service.thread_row(transaction, self.thread_id, self.visible)
            if row is not None:
                return row
            if given(self.body.if_not_exists) != "create":
                raise NotFound(NO_THREAD_OR_ASSISTANT)
        metadata = {**(given(self.body.metadata) or {}), **names}
        if await service.create_thread(transaction, self.thread_id, metadata):
            return None
        # It is there: for others than this caller, or since this moment.
        row = await service.thread_row(transaction, self.thread_id, self.visible)
        if row is None:
            raise NotFound(NO_THREAD_OR_ASSISTANT)
        return row
