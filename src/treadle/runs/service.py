"""The rules of runs: creating, cancelling, deleting. No HTTP, no dialect of SQL."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, Literal, Protocol, cast

from treadle.assistants.models import Assistant
from treadle.auth import Caller, Filter, authorize, condition
from treadle.clock import now_us
from treadle.cluster.run_rows import is_kept, process_of
from treadle.database import Row, Transaction
from treadle.errors import Conflict, NotFound, RequestError
from treadle.idempotency import IdempotencyKey, made_before
from treadle.runs import asked, queries
from treadle.runs.created import Created, Impulse, started_run_json
from treadle.runs.displaced import Displaced
from treadle.runs.draft import NO_THREAD_OR_ASSISTANT, Draft
from treadle.runs.langsmith import langsmith_tracing
from treadle.runs.merging import (
    check_command,
    check_context,
    check_nodes,
    given,
    named_checkpoint,
    start_checkpoint,
    unknown_checkpoint,
)
from treadle.runs.models import CancelAction, RunCreate, StatelessRunCreate
from treadle.runs.outcome import END, GONE, GONE_KIND, Outcome
from treadle.runs.reading import RunReading
from treadle.runs.rooms import Rooms
from treadle.runs.streams import replay
from treadle.runs.worker import Worker
from treadle.serialization import dumps, loads
from treadle.streaming import queries as event_queries
from treadle.streaming.entries import COUNTER_BITS, Entry
from treadle.streaming.log import Reader
from treadle.streaming.protocol.envelope import lifecycle
from treadle.threads.access import not_found, restricted

if TYPE_CHECKING:
    from treadle.streaming.relay.exchange import Exchange

BUSY = (
    "Thread is already running a task. Wait for it to finish or choose a different multitask"
    " strategy."
)
ROLLBACK_NEEDS = "adelete_for_runs", "take back what a run has kept"
Json = dict[str, Any]
Watch = Literal["nothing", "end", "events"]


class Assistants(Protocol):
    def id_of(self, named: object) -> str: ...

    async def runnable(self, assistant_id: str, caller: Caller) -> Assistant: ...


CreateThread = Callable[[Transaction, str, Json], Awaitable[bool]]


class RunService(RunReading):
    """Runs over the rooms. ``create_thread`` makes a thread within a transaction."""

    def __init__(
        self, rooms: Rooms, worker: Worker, assistants: Assistants, create_thread: CreateThread
    ) -> None:
        super().__init__(rooms)
        self._worker, self._assistants = worker, assistants
        self._create_thread = create_thread

    # -- creating --------------------------------------------------------------------------

    async def create(
        self,
        caller: Caller,
        request_id: str,
        thread_id: str | None,
        body: RunCreate,
        watch: Watch = "nothing",
        key: IdempotencyKey | None = None,
        *,
        impulse: Impulse | None = None,
    ) -> Created:
        """Accept a run: on a thread, or on one of its own if ``thread_id`` is None."""
        [created] = await self.create_many(
            caller, request_id, thread_id, [body], watch, key, impulse=impulse
        )
        return created

    async def create_many(
        self,
        caller: Caller,
        request_id: str,
        thread_id: str | None,
        bodies: Sequence[RunCreate],
        watch: Watch = "nothing",
        key: IdempotencyKey | None = None,
        *,
        impulse: Impulse | None = None,
    ) -> list[Created]:
        """Accept several runs, all or none."""
        named = [(body, await self._checked(body, impulse)) for body in bodies]
        drafts = [await self._draft(caller, thread_id, *one, impulse) for one in named]
        readers = [self._reader(draft.thread_id, watch) for draft in drafts]
        displaced = Displaced(
            self._rooms.events, {draft.thread_id for draft in drafts if draft.displaces}
        )
        relay, events = self._rooms.events.relay, watch == "events"
        expecting = [
            reader.log
            for reader in readers
            if relay is not None and reader is not None and relay.expect(reader.log, events)
        ]
        places = [[draft.thread_id, draft.run_id] for draft in drafts]
        made: list[Json] = []

        async def insert(transaction: Transaction) -> list[Any] | None:
            displaced.forget()
            if impulse is not None:
                await impulse.claim(transaction)
            before = await made_before(transaction, key, places)
            if before is None:
                made[:] = [
                    await draft.insert(transaction, self, caller, request_id, displaced)
                    for draft in drafts
                ]
                for log in expecting:
                    await cast("Exchange", relay).watch_in(transaction, log.thread_id, events)
            return before

        only = _only({draft.thread_id for draft in drafts}) if impulse is None else None
        try:
            with displaced:
                before = await self._database.write(insert, only)
                if before is None:
                    await self._tell(displaced)
        except BaseException:
            _close(readers)
            raise
        if before is not None:
            _close(readers)
            return [
                await self._repeat(ids[0], ids[1], draft, watch)
                for ids, draft in zip(before, drafts, strict=True)
            ]
        for log in expecting:
            cast("Exchange", relay).created(log, events)
        for draft in drafts:
            self._rooms.figures.count_created(draft.assistant.graph_id)
            self._worker.wake_at(draft.due_us) if draft.delayed else self._worker.wake()
        return [
            Created(
                json,
                draft.stateless,
                bool(given(draft.body.stream_resumable)),
                reader,
                seq_before=draft.seq_before,
            )
            for json, draft, reader in zip(made, drafts, readers, strict=True)
        ]

    def _reader(self, thread_id: str, watch: Watch) -> Reader | None:
        if watch == "nothing":
            return None
        return self._rooms.events.log(thread_id).read(watches=watch == "events")

    async def _repeat(self, thread_id: str, run_id: str, draft: Draft, watch: Watch) -> Created:
        """The run that an earlier request with the same key made, for the same draft."""
        visible = None if draft.stateless else draft.visible
        try:
            joined = await self.join_visible(thread_id, run_id, visible, events=watch == "events")
        except NotFound:
            raise Conflict(
                f"The run {run_id} that this Idempotency-Key made has ended, and was not kept"
            ) from None
        reader, row, ended = joined
        if watch == "nothing" or ended:
            reader.close()
        return Created(
            started_run_json(row, self._rooms.url),
            draft.stateless,
            is_kept(row["kwargs"]),
            reader,
            repeated=True,
            ended=row if ended else None,
        )

    async def _checked(self, body: RunCreate, impulse: Impulse | None) -> str:
        """The id of the assistant that a run names, if the request is valid by itself."""
        check_context(body)
        check_command(body.command, stateless=isinstance(body, StatelessRunCreate))
        langsmith_tracing(given(body.langsmith_tracer))
        assistant_id = self._assistants.id_of(body.assistant_id)
        if impulse is None and (webhook := given(body.webhook)):
            await self._rooms.webhooks.check(webhook)
        return assistant_id

    async def _draft(
        self,
        caller: Caller,
        thread_id: str | None,
        body: RunCreate,
        assistant_id: str,
        impulse: Impulse | None,
    ) -> Draft:
        """A run that the caller may make, with all that can be known before its transaction."""
        wanted = await asked.permitted(caller, thread_id, assistant_id, body)
        assistant = await self._assistants.runnable(assistant_id, caller)
        graph = self._rooms.registry.static(assistant.graph_id)
        telemetry = self._rooms.telemetry
        origin = None if telemetry is None else telemetry.origin()
        draft = Draft(wanted, assistant, thread_id, impulse, origin)
        await self._check_saver(draft)
        if graph is not None:
            kwargs = {
                "interrupt_before": given(body.interrupt_before),
                "interrupt_after": given(body.interrupt_after),
                "command": body.command,
            }
            check_nodes(graph, kwargs)
        return draft

    async def _check_saver(self, draft: Draft) -> None:
        """Check what a saver outside the database has to be asked before the transaction."""
        if draft.body.multitask_strategy == "rollback":
            self._rooms.saver.require(*ROLLBACK_NEEDS)
        if self._rooms.saver.in_database:
            return
        start = start_checkpoint(draft.thread_id, named_checkpoint(draft.body))
        if start is None or draft.stateless:
            return
        if draft.visible is not None and not await self.is_visible(draft.thread_id, draft.visible):
            raise NotFound(NO_THREAD_OR_ASSISTANT)
        if await self._rooms.saver.aget_tuple({"configurable": start}) is None:
            raise unknown_checkpoint(start)

    async def thread_row(
        self, transaction: Transaction, thread_id: str, visible: Filter | None
    ) -> Row | None:
        """The thread, locked: its runs are about to change."""
        dialect = self._database.dialect
        sql, params = restricted(dialect, queries.THREAD_FOR_RUN, thread_id, visible)
        return await transaction.fetch_one(f"{sql} {queries.LOCK}", params)

    async def has_checkpoint(self, transaction: Transaction, start: dict[str, str]) -> bool:
        """Whether a checkpoint is there; one outside the database has been looked for before."""
        if not self._rooms.saver.in_database:
            return True
        return await transaction.fetch_one(queries.CHECKPOINT, start) is not None

    async def last_seq(self, transaction: Transaction, thread_id: str) -> int:
        """The number of the thread's last event."""
        row = await transaction.fetch_one(event_queries.LAST_SEQ, {"thread_id": thread_id})
        return row["last_seq"] if row else 0

    async def create_thread(self, transaction: Transaction, thread_id: str, metadata: Json) -> bool:
        return await self._create_thread(transaction, thread_id, metadata)

    async def make_room(
        self,
        transaction: Transaction,
        thread_id: str,
        strategy: str,
        displaced: Displaced,
    ) -> None:
        """Apply a newcomer's multitask strategy to what is in flight on its thread."""
        if strategy == "enqueue":
            return
        in_flight = await transaction.fetch_all(queries.IN_FLIGHT, {"thread_id": thread_id})
        if strategy == "reject":
            if in_flight:
                raise Conflict(BUSY)
            return
        action: CancelAction = "rollback" if strategy == "rollback" else "interrupt"
        for run in in_flight:
            await self._end_one(transaction, thread_id, run, action, displaced, newcomer=True)

    async def _end_one(
        self,
        transaction: Transaction,
        thread_id: str,
        run: Row,
        action: CancelAction,
        displaced: Displaced,
        *,
        newcomer: bool = False,
    ) -> None:
        """End a run in flight: one that never began right here, another after the commit.

        Who waits to go on (its worker was lost, or drained) leaves its thread a state that only
        its graph can tell of, unless all of it goes. A temporary run leaves its thread to a
        ``newcomer``.
        """
        run_id = run["run_id"]
        leaves_state = run["attempt"] > 0 and action == "interrupt" and not run["temporary"]
        if run["status"] == "running" or leaves_state:
            stop = {"run_id": run_id, "stop": action}
            await transaction.send(queries.STOP_BEGUN, stop)
            displaced.begun.append((run_id, action))
            self._tell_owner(transaction, run, action)
            return
        if run["temporary"] and not newcomer:
            await self._rooms.delete_temporary(transaction, thread_id, run_id)
        elif run["temporary"] or action == "rollback":
            await self._rooms.delete_run(transaction, thread_id, run_id)
            displaced.deleted.append(run_id)
        else:
            await transaction.send(queries.END_PENDING, {"run_id": run_id, "now": now_us()})
        row = await transaction.fetch_one(queries.THREAD_OUTCOME, {"thread_id": thread_id})
        values = loads(row["state_values"]) if row and row["state_values"] else None
        outcome = Outcome("interrupted", values)
        displaced.pending.append((thread_id, run_id, outcome))
        displaced.never_began.append(run["graph_id"])
        if (relay := self._rooms.events.relay) is not None:
            await relay.tell_in(transaction, thread_id, Entry(0, run_id, END, "", b"", outcome))
        if row is not None:  # the thread is still there
            await self._end_here(transaction, thread_id, run, displaced)

    def _tell_owner(self, transaction: Transaction, run: Row, how: str) -> None:
        """Let the process that executes a run stop it."""
        owner = process_of(run["owner"])
        if run["status"] == "pending":
            self._rooms.tell(transaction, "stopped")
        elif run["status"] == "running" and owner != self._rooms.me:
            self._rooms.tell(transaction, "stop", run["run_id"], how, to=owner)

    async def _end_here(
        self, transaction: Transaction, thread_id: str, run: Row, displaced: Displaced
    ) -> None:
        """The end of a run that no execution tells of, for the readers of protocol v2."""
        log, relay = displaced.logs[thread_id], self._rooms.events.relay
        keep = is_kept(run["kwargs"])
        if (
            keep
            or log.numbered_watched
            or (relay is not None and await relay.is_watched_in(transaction, thread_id))
        ):
            end = lifecycle("interrupted", run["graph_id"])
            entry = log.entry(
                run["run_id"], end.kind, end.name, end.data, numbered=True, label=end.label
            )
            if relay is not None:
                entry.id = relay.aside_id()
            await self._rooms.events.keep_in(transaction, thread_id, [entry], keep=keep)
            displaced.ends.append((thread_id, entry))
            if relay is not None:
                await relay.tell_in(transaction, thread_id, entry)

    async def _tell(self, displaced: Displaced) -> None:
        """Tell of what was displaced, now that it is durable."""
        await self._rooms.forget_runs(displaced.deleted)
        for graph_id in displaced.never_began:
            self._rooms.figures.count_ended(graph_id, "interrupted", None)
        for thread_id, entry in displaced.ends:
            if self._rooms.events.relay is None:
                displaced.logs[thread_id].publish(entry, last=True)
            else:
                displaced.logs[thread_id].publish_aside(entry)
        for thread_id, run_id, outcome in displaced.pending:
            # A run that never began has no place in a thread's stream: only its waiters hear.
            log = displaced.logs[thread_id]
            log.publish_aside(Entry(log.told_id, run_id, END, "", b"", outcome))
        for run_id, action in displaced.begun:
            execution = self._worker.execution(run_id)
            if execution is not None:
                execution.stop(action)
            else:
                self._worker.wake_for_stopped()

    def past_of(self, created: Created) -> AsyncIterator[Entry] | None:
        """What a repeated request's stream begins with: all that was kept of its run."""
        if not created.repeated or not created.resumable or created.reader is None:
            return None
        until = created.reader.start_id
        return replay(self._rooms.events, created.thread_id, created.run_id, 0, until)

    # -- ending ----------------------------------------------------------------------------

    async def cancel(
        self, caller: Caller, thread_id: str, run_id: str, action: CancelAction
    ) -> None:
        """Cancel a run in flight."""
        value = asked.cancellation(thread_id, action, [run_id])
        visible = await authorize(caller, "threads", "update", value)
        _check_cancelled(await self._cancel([(thread_id, run_id)], action, visible), [run_id])

    async def cancel_watched(
        self, caller: Caller, thread_id: str, run_id: str, action: CancelAction
    ) -> Reader:
        """Cancel a run in flight; a reader that will find its end."""
        reader = await self._rooms.events.open_reader(thread_id, watches=False)
        try:
            await self.cancel(caller, thread_id, run_id, action)
        except BaseException:
            reader.close()
            raise
        return reader

    async def hung_up(self, caller: Caller, thread_id: str, run_id: str) -> None:
        """Cancel a run because its client left, if it has not ended and the client may."""
        with contextlib.suppress(RequestError):
            await self.cancel(caller, thread_id, run_id, "interrupt")

    async def cancel_many(
        self, caller: Caller, thread_id: str, run_ids: Sequence[str], action: CancelAction
    ) -> None:
        """Cancel those of ``run_ids`` that are in flight on a thread."""
        value = asked.cancellation(thread_id, action, run_ids)
        visible = await authorize(caller, "threads", "update", value)
        places = [(thread_id, run_id) for run_id in run_ids]
        _check_cancelled(await self._cancel(places, action, visible), run_ids)

    async def cancel_by_status(
        self, caller: Caller, status: Literal["pending", "running", "all"], action: CancelAction
    ) -> None:
        """Cancel all runs in flight that the caller may see."""
        value = asked.cancellation(None, action, None, status)
        visible = await authorize(caller, "threads", "update", value)
        one, other = ("pending", "running") if status == "all" else (status, status)
        sql, params = queries.RUNS_BY_STATUS, {"one": one, "other": other}
        if visible is not None:
            within, more = condition(self._database.dialect, "threads.metadata", visible)
            sql, params = queries.VISIBLE_RUNS_BY_STATUS.format(visible=within), params | more
        rows = await self._database.scan(sql, params)
        places = [(row["thread_id"], row["run_id"]) for row in rows]
        if not places or await self._cancel(places, action, visible, only=(one, other)) <= 0:
            raise NotFound("No runs found to cancel.")

    async def _cancel(
        self,
        places: Sequence[tuple[str, str]],
        action: CancelAction,
        visible: Filter | None,
        *,
        only: tuple[str, ...] = ("pending", "running"),
    ) -> int:
        """How many runs were cancelled; -1 if there are some, but none in flight."""
        if action == "rollback":
            self._rooms.saver.require(*ROLLBACK_NEEDS)
        displaced = Displaced(self._rooms.events, {thread_id for thread_id, _ in places})

        async def end(transaction: Transaction) -> int:
            displaced.forget()
            found, ended = 0, 0
            for thread_id, run_id in places:
                if await self.thread_row(transaction, thread_id, visible) is None:
                    continue
                run = await transaction.fetch_one(
                    queries.RUN_TO_CHANGE, {"thread_id": thread_id, "run_id": run_id}
                )
                if run is None:
                    continue
                ended += 1
                if run["status"] not in only:
                    continue
                found += 1
                await self._end_one(transaction, thread_id, run, action, displaced)
                await transaction.send(
                    queries.SETTLE_THREAD,
                    {"thread_id": thread_id, "now": now_us()},
                )
                self._call_workers(transaction)
            return found or -ended

        with displaced:
            found = await self._database.write(end, _only({thread_id for thread_id, _ in places}))
            await self._tell(displaced)
        self._worker.wake()
        return max(found, -1)

    async def delete(self, caller: Caller, thread_id: str, run_id: str) -> None:
        """Remove a run, its checkpoints and events; one in flight is stopped first."""
        value = {"thread_id": thread_id, "run_id": run_id}
        visible = await authorize(caller, "threads", "delete", value)
        self._rooms.saver.require(*ROLLBACK_NEEDS)
        now = now_us()
        displaced = Displaced(self._rooms.events, [thread_id])

        async def remove(transaction: Transaction) -> None:
            params = {"thread_id": thread_id, "run_id": run_id}
            if await self.thread_row(transaction, thread_id, visible) is None:
                raise not_found(thread_id)
            # The others too: what they checkpoint now may rest on values that this one has stored.
            await transaction.send(queries.IN_FLIGHT, params)
            run = await transaction.fetch_one(queries.RUN_TO_CHANGE, params)
            if run is None:
                raise NotFound("Run not found")
            if run["status"] == "running" and self._rooms.events.relay is not None:
                leaves = {"thread_id": thread_id, "owner": run["owner"]}
                await transaction.send(queries.LEAVES, leaves)
            if run["temporary"]:
                await self._rooms.delete_temporary(transaction, thread_id, run_id)
            else:
                await self._rooms.delete_run(transaction, thread_id, run_id)
                if run["status"] in ("pending", "running"):
                    await self._end_here(transaction, thread_id, run, displaced)
            await transaction.send(queries.SETTLE_THREAD, {"thread_id": thread_id, "now": now})
            self._tell_owner(transaction, run, "delete")
            self._call_workers(transaction)
            await self._tell_gone_in(transaction, thread_id, run_id)

        with displaced:
            await self._database.write(remove, thread_id)
            displaced.deleted.append(run_id)
            await self._tell(displaced)
        execution = self._worker.execution(run_id)
        if execution is not None:
            execution.stop("delete")
        self._tell_gone(thread_id, run_id)
        self._worker.wake()

    async def thread_deleted(self, thread_id: str) -> None:
        """End what goes on on a thread that was deleted, and tell its readers."""
        self._worker.stop_thread(thread_id)
        await self._rooms.forget_thread(thread_id)
        self._tell_gone(thread_id, "")

    async def thread_deleted_in(self, transaction: Transaction, thread_id: str) -> None:
        """Tell other processes that the transaction deletes a thread."""
        self._rooms.tell(transaction, "deleted", thread_id)
        await self._tell_gone_in(transaction, thread_id, "")

    async def _tell_gone_in(self, transaction: Transaction, thread_id: str, run_id: str) -> None:
        if (relay := self._rooms.events.relay) is not None:
            gone = Entry(_now_id(), run_id, GONE_KIND, "error", dumps(GONE))
            await relay.tell_in(transaction, thread_id, gone)

    def stop_thread(self, thread_id: str) -> None:
        """Another process has deleted a thread. Readers hear of it by the relay."""
        self._worker.stop_thread(thread_id)

    def _tell_gone(self, thread_id: str, run_id: str) -> None:
        """Tell the readers of a deleted run, or with no run id those of a deleted thread."""
        if (log := self._rooms.events.current(thread_id)) is not None:
            log.publish_aside(Entry(_now_id(), run_id, GONE_KIND, "error", dumps(GONE)))

    def _call_workers(self, transaction: Transaction) -> None:
        """Let other processes look for runs, if this one may not take them all."""
        if self._worker.wants_help:
            self._rooms.tell(transaction, "runs")

    def announce(self, transaction: Transaction, graph_id: str, later_us: int | None) -> None:
        """Let the workers of other processes know of a run, if they are needed for it."""
        if later_us is not None:
            self._rooms.tell(transaction, "due", str(later_us))
        elif self._worker.wants_help or not self._worker.serves(graph_id):
            self._rooms.tell(transaction, "runs")


def _check_cancelled(found: int, run_ids: Sequence[str]) -> None:
    """Raise ``NotFound`` unless some runs were cancelled; see ``RunService._cancel``."""
    if found == 0:
        raise NotFound("No runs found to cancel.")
    if found < 0:
        raise NotFound(
            "No matching runs to cancel. Please verify the thread ID and run IDs are correct,"
            f" and that the runs have not ended: {', '.join(run_ids)}"
        )


def _only(threads: set[str]) -> str | None:
    """The thread that a transaction is about, if it is about one alone."""
    return threads.pop() if len(threads) == 1 else None


def _now_id() -> int:
    return now_us() // 1000 << COUNTER_BITS


def _close(readers: Iterable[Reader | None]) -> None:
    for reader in readers:
        if reader is not None:
            reader.close()
