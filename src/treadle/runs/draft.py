"""A run on its way into the queue: what is known of it before its transaction, and its insert."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from treadle.assistants.models import Assistant
from treadle.auth import Caller
from treadle.clock import SECOND_US, now_us
from treadle.database import Row, Transaction
from treadle.errors import NotFound
from treadle.http.run_headers import RUN_HEADERS
from treadle.ids import new_id
from treadle.runs import queries
from treadle.runs.answering import aimed
from treadle.runs.asked import Wanted
from treadle.runs.created import Impulse, run_json
from treadle.runs.displaced import Displaced
from treadle.runs.merging import (
    CHECKPOINT_KEYS,
    NAMES_THREAD,
    ORIGIN,
    given,
    is_temporary,
    run_kwargs,
    run_metadata,
    start_checkpoint,
    thread_config,
    unknown_checkpoint,
)
from treadle.runs.models import CommandRun
from treadle.serialization import dump_text, loads

if TYPE_CHECKING:
    from treadle.runs.service import RunService

NO_THREAD_OR_ASSISTANT = "Thread or assistant not found."
Json = dict[str, Any]


class Draft:
    """A run that has passed every check that needs no transaction.

    ``origin`` names the trace that it belongs to.
    """

    def __init__(
        self,
        wanted: Wanted,
        assistant: Assistant,
        thread_id: str | None,
        impulse: Impulse | None,
        origin: Mapping[str, str] | None = None,
    ) -> None:
        self._wanted = wanted
        self.body, self.run_id, self.visible = wanted.body, wanted.run_id, wanted.visible
        self.assistant = assistant
        self.configurable = RUN_HEADERS.get() or {} if impulse is None else impulse.configurable
        if origin:
            self.configurable = {**self.configurable, ORIGIN: origin}
        self.stateless = thread_id is None
        self.thread_id = thread_id or new_id()
        self.now = now_us()
        delay_us = int(max(0.0, given(self.body.after_seconds) or 0) * SECOND_US)
        self.delayed = delay_us > 0
        self.due_us = self.now + delay_us
        self.seq_before = 0
        self.displaces = given(self.body.multitask_strategy) in ("interrupt", "rollback")

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
            thread_metadata = self._metadata_with_added(row)
            config_before = loads(row["config"])
            metadata = run_metadata(body, assistant, {**thread_metadata, **names})
            await service.make_room(transaction, thread_id, strategy, displaced)
            params = {"thread_id": thread_id, "assistant_id": assistant.assistant_id}
            if row["status"] == "busy" and await transaction.fetch_one(
                queries.ANOTHER_IN_FLIGHT, params
            ):
                # Until this run begins, the thread's state is that of the other's graph.
                self.configurable = {**self.configurable, NAMES_THREAD: True}
            else:
                thread_metadata = {**thread_metadata, **names}
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
        if self.stateless:  # its thread is new: there is nothing to start from
            for key in CHECKPOINT_KEYS:
                kwargs["config"]["configurable"].pop(key, None)
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
            "temporary": int(is_temporary(body)),
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

    def _metadata_with_added(self, row: Row) -> Json:
        """The metadata of the run's thread, with what its command brings."""
        metadata: Json = loads(row["metadata"])
        added = self._wanted.added
        return {**added, **metadata} if self._wanted.guarded else {**metadata, **added}

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
