"""The checkpointer of one run's execution."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Collection, Sequence
from typing import Any, NamedTuple, Self, cast

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import (
    WRITES_IDX_MAP,
    ChannelVersions,
    Checkpoint,
    CheckpointMetadata,
    CheckpointTuple,
)
from langgraph.checkpoint.serde.types import (
    ERROR,
    INTERRUPT,
    RESUME,
    _DeltaSnapshot,  # pyright: ignore[reportPrivateUsage]
)
from langgraph.types import Interrupt

from treadle.auth.users import User
from treadle.checkpoints import queries
from treadle.checkpoints.blobs import Sealer
from treadle.checkpoints.custom import CustomRunSaver, CustomSaver
from treadle.checkpoints.kept import Kept
from treadle.checkpoints.rows import (
    NewRow,
    address,
    checkpoint_id_of,
    checkpoint_rows,
    insert,
    make_config,
    run_id_of,
    write_rows,
)
from treadle.checkpoints.saver import Saver, on_its_loop
from treadle.database import Transaction

BACKLOG_BYTES = 8 * 2**20

_NULL_TASK_ID = "00000000-0000-0000-0000-000000000000"
# Writes that tell what became of a task; any other is output, and ends it.
_CONTROL = frozenset((ERROR, "__error_source_node__", INTERRUPT, RESUME))

Guard = Callable[[Transaction], Awaitable[None]]


class RunSaver(Saver):
    """A ``Saver`` for one execution of one run on ``thread_id``; cheap to make.

    With ``sync``, what is put is durable when the call returns. Without, the call returns at
    once, and the rows are committed soon, together, in order; what this saver reads includes
    them. A commit that fails is raised by every call that follows and by ``settle``. Values are
    serialized during the call, so they may change after it.

    ``guard`` is awaited first in each transaction; if it raises, nothing of it is written.
    ``user`` is on whose behalf handlers encrypt.

    The saver keeps the thread's latest root checkpoint in mind, the one that the run found or
    the last that it put, and what was written to it. So at the run's end it knows the thread's
    ``channel_values`` and ``interrupts`` without a read. Another saver sees what this one has
    put after ``settle``: nothing may start on the thread before.
    """

    def __init__(
        self,
        saver: Saver,
        thread_id: str,
        *,
        sync: bool,
        guard: Guard | None = None,
        user: User | None = None,
    ) -> None:
        # Not BaseCheckpointSaver.__init__: the serializer has been looked at already.
        self.database, self.serde, self.blobs = saver.database, saver.serde, saver.blobs
        self.thread_id = thread_id
        self._sealer = self.blobs and self.blobs.sealer(self.serde, user)
        self._last_sealed: asyncio.Task[None] | None = None
        self.last_checkpoint: Checkpoint | None = None
        self.last_metadata: CheckpointMetadata | None = None
        self._loop = saver._loop
        self._sync = sync
        self._guard = guard
        self._failure: Exception | None = None
        self._batch: _Batch | None = None
        self._unflushed: dict[str, _Batch] = {}
        self._backlog_bytes = 0
        self._made: set[str] = set()
        self._tasks: dict[str, _Tasks] = {}
        self._answer: _Answer | None = None

    # -- what the run has come to ----------------------------------------------------------

    @property
    def last_checkpoint_id(self) -> str | None:
        """The id of the thread's latest root checkpoint; None if there is none."""
        return None if self.last_checkpoint is None else self.last_checkpoint["id"]

    @property
    def needs_replay(self) -> bool:
        """Whether ``channel_values`` lacks delta channels: only ``aget_state`` knows them."""
        return "counters_since_delta_snapshot" in (self.last_metadata or {})

    @property
    def channel_values(self) -> dict[str, Any]:
        """The values of the thread's latest root checkpoint."""
        if self.last_checkpoint is None:
            return {}
        return {
            channel: value.value if isinstance(value, _DeltaSnapshot) else value
            for channel, value in self.last_checkpoint["channel_values"].items()
        }

    @property
    def pending_writes(self) -> dict[str, list[tuple[str, Any]]]:
        """What tasks have written to the thread's latest root checkpoint, by task id."""
        tasks = self._tasks.get(self.last_checkpoint_id or "", {})
        return {
            task_id: tasks[task_id].writes
            for task_id in sorted(tasks, key=lambda task_id: (tasks[task_id].path, task_id))
        }

    @property
    def is_updated(self) -> bool:
        """Whether a command has written to the latest root checkpoint, beside any task."""
        writes = self.pending_writes.get(_NULL_TASK_ID, ())
        return any(channel not in _CONTROL for channel, _ in writes)

    @property
    def interrupts(self) -> dict[str, list[Interrupt]]:
        """The questions that wait for an answer, by the id of the task that asks."""
        found: dict[str, list[Interrupt]] = {}
        for task_id, writes in self.pending_writes.items():
            asked = dict(writes).get(INTERRUPT)
            is_finished = any(channel not in _CONTROL for channel, _ in writes)
            if asked and not is_finished and task_id != _NULL_TASK_ID:
                found[task_id] = list(asked) if isinstance(asked, list | tuple) else [asked]
        return found

    # -- putting ---------------------------------------------------------------------------

    @on_its_loop
    async def aput(
        self,
        config: RunnableConfig,
        checkpoint: Checkpoint,
        metadata: CheckpointMetadata,
        new_versions: ChannelVersions,
    ) -> RunnableConfig:
        self._raise_failure()
        row, values = checkpoint_rows(self.serde, config, checkpoint, metadata, new_versions)
        thread_id, checkpoint_ns = row["thread_id"], row["checkpoint_ns"]
        checkpoint_id = row["checkpoint_id"]
        if row["run_id"] is not None:
            self._made.add(checkpoint_id)
        is_root = checkpoint_ns == "" and thread_id == self.thread_id
        if is_root and checkpoint_id >= (self.last_checkpoint_id or ""):
            self._keep(checkpoint, metadata)
            # Writes to the next checkpoint may come before it: what is newer stays.
            self._tasks = {i: w for i, w in self._tasks.items() if i >= checkpoint_id}
        crossed_out: list[NewRow] = []
        if self._answer is not None and self._answer.at_exit and checkpoint_ns:
            crossed_out = self._cross_out(self._answer)
        await self._put(checkpoint_ns, (row,), values, crossed_out)
        return make_config(thread_id, checkpoint_ns, checkpoint_id)

    @on_its_loop
    async def aput_writes(
        self,
        config: RunnableConfig,
        writes: Sequence[tuple[str, Any]],
        task_id: str,
        task_path: str = "",
    ) -> None:
        self._raise_failure()
        thread_id, checkpoint_ns = address(config)
        checkpoint_id = checkpoint_id_of(config) or ""
        run_id = None if checkpoint_id in self._made else run_id_of(config)
        rows = write_rows(self.serde, config, writes, task_id, task_path, run_id)
        if checkpoint_ns == "" and thread_id == self.thread_id:
            tasks = self._tasks.setdefault(checkpoint_id, {})
            tasks.setdefault(task_id, _Task(task_path)).add(writes)
        if self._answer is not None and self._answer.is_taken_by(task_id, writes):
            rows += self._cross_out(self._answer)
        await self._put(checkpoint_ns, (), (), rows)

    def watch_answer(self, checkpoint_id: str, run_id: str, answer: Any, *, at_exit: bool) -> None:
        """Note that a command answers the next question of a checkpoint.

        langgraph keeps the answer there when a task has taken it, too: who goes on from there
        would answer the task's next question with it. So it is crossed out together with the
        task's writes. ``at_exit`` (durability "exit"), a subgraph that has gone on since puts
        its last checkpoint alone.
        """
        self._answer = _Answer(checkpoint_id, run_id, answer, at_exit)

    def _cross_out(self, answer: _Answer) -> list[NewRow]:
        """The row that has the answer's place: langgraph takes None for no answer."""
        self._answer = None
        config = make_config(self.thread_id, "", answer.checkpoint_id)
        return write_rows(self.serde, config, [(RESUME, None)], _NULL_TASK_ID, "", answer.run_id)

    def _keep(self, checkpoint: Checkpoint, metadata: CheckpointMetadata) -> None:
        """Keep a checkpoint in mind; langgraph goes on changing what it gave us."""
        values = checkpoint["channel_values"].copy()
        self.last_checkpoint = cast("Checkpoint", {**checkpoint, "channel_values": values})
        self.last_metadata = cast("CheckpointMetadata", {**metadata})

    async def _put(
        self,
        checkpoint_ns: str,
        checkpoints: Sequence[NewRow],
        values: Sequence[NewRow],
        writes: Sequence[NewRow],
    ) -> None:
        """Write rows, in the order of the calls; handlers encrypt them first, if there are any."""
        if self._sealer is None:
            await self._write(checkpoint_ns, checkpoints, values, writes)
            return
        task = asyncio.create_task(
            self._put_sealed(
                self._sealer, self._last_sealed, checkpoint_ns, checkpoints, values, writes
            )
        )
        task.add_done_callback(lambda done: done.cancelled() or done.exception())
        self._last_sealed = task
        await asyncio.shield(task)  # a run that is stopped has put what it has put

    async def _write(
        self,
        checkpoint_ns: str,
        checkpoints: Sequence[NewRow],
        values: Sequence[NewRow],
        writes: Sequence[NewRow],
    ) -> None:
        """Write rows: now, or with the batch that is waiting."""
        batch = self._batch
        if batch is None or self._sync or not batch.add(checkpoints, values, writes):
            batch = _Batch(self._guard)
            batch.add(checkpoints, values, writes)
            if self._sync:
                await self.database.write(batch.commit, self.thread_id)
                return
            self._batch = batch
            self.database.write_soon(batch.commit, self._failed, thread_id=self.thread_id)
        self._unflushed[checkpoint_ns] = batch
        self._backlog_bytes += sum(len(row["checkpoint"]) for row in checkpoints)
        self._backlog_bytes += sum(len(row["value"]) for row in (*values, *writes))
        if self._backlog_bytes > BACKLOG_BYTES:
            await self._flush()

    async def _put_sealed(
        self,
        sealer: Sealer,
        before: asyncio.Task[None] | None,
        checkpoint_ns: str,
        checkpoints: Sequence[NewRow],
        values: Sequence[NewRow],
        writes: Sequence[NewRow],
    ) -> None:
        """Write rows once the handlers have encrypted them, after what was put ``before``."""
        if before is not None:
            await asyncio.wait((before,))
        try:
            self._raise_failure()
            await sealer.seal((*values, *writes), checkpoints[0] if checkpoints else None)
        except Exception as error:
            self._failed(error)
            raise
        await self._write(checkpoint_ns, checkpoints, values, writes)

    def _failed(self, error: Exception) -> None:
        self._failure = self._failure or error

    def _raise_failure(self) -> None:
        if self._failure is not None:
            raise self._failure

    # -- getting ---------------------------------------------------------------------------

    @on_its_loop
    async def aget_tuple(self, config: RunnableConfig) -> CheckpointTuple | None:
        found = await super().aget_tuple(config)
        if (
            found is not None
            and self.last_checkpoint is None
            and checkpoint_id_of(config) is None
            and address(config) == (self.thread_id, "")
        ):
            self._keep(found.checkpoint, found.metadata)
            tasks = self._tasks.setdefault(found.checkpoint["id"], {})
            for task_id, channel, value in found.pending_writes or ():
                tasks.setdefault(task_id, _Task("")).writes.append((channel, value))
        return found

    async def kept(self, checkpoint_id: str, run_id: str) -> Kept:
        """What a run's command has left on the checkpoint that it started from."""
        rows = await self.database.read_all(
            queries.WRITES_OF_COMMAND,
            {"thread_id": self.thread_id, "checkpoint_id": checkpoint_id, "run_id": run_id},
        )
        answers = sum(row["channel"] == RESUME for row in rows)
        return Kept(writes=len(rows) > answers, answer=answers > 0)

    async def catch_up(self, checkpoint_ns: str | None) -> None:
        if self._last_sealed is not None:
            await asyncio.wait((self._last_sealed,))
        if self._unflushed if checkpoint_ns is None else checkpoint_ns in self._unflushed:
            await self._flush()
        self._raise_failure()

    @on_its_loop
    async def settle(self) -> None:
        """Return once all that was put is durable; raise what kept it from being so."""
        if self._last_sealed is not None:
            await asyncio.wait((self._last_sealed,))
        if self._unflushed:
            await self._flush()
        self._raise_failure()

    async def _flush(self) -> None:
        waiting = self._unflushed.copy()
        self._backlog_bytes = 0
        await self.database.flush()
        for checkpoint_ns, batch in waiting.items():
            if self._unflushed.get(checkpoint_ns) is batch:
                del self._unflushed[checkpoint_ns]
        self._raise_failure()

    def with_allowlist(self, extra_allowlist: Collection[tuple[str, ...]]) -> Self:
        """Itself with a wider serializer: a copy would not tell us what the run has come to."""
        self.serde = super().with_allowlist(extra_allowlist).serde
        return self


def run_saver(
    saver: Saver, thread_id: str, *, sync: bool, guard: Guard, user: User | None
) -> RunSaver | CustomRunSaver:
    """The saver of one execution of one run of a user's, over the saver of all threads."""
    if isinstance(saver, CustomSaver):
        return CustomRunSaver(saver, thread_id, lambda: saver.database.write(guard))
    return RunSaver(saver, thread_id, sync=sync, guard=guard, user=user)


class _Batch:
    """Rows that one transaction writes; more may be added until it begins."""

    __slots__ = ("_checkpoints", "_guard", "_has_begun", "_lock", "_values", "_writes")

    def __init__(self, guard: Guard | None) -> None:
        self._guard = guard
        self._checkpoints: list[NewRow] = []
        self._values: list[NewRow] = []
        self._writes: list[NewRow] = []
        self._has_begun = False
        self._lock = threading.Lock()  # a transaction may begin on the writer's thread

    def add(
        self,
        checkpoints: Sequence[NewRow],
        values: Sequence[NewRow],
        writes: Sequence[NewRow],
    ) -> bool:
        """Add rows; False if it is too late."""
        with self._lock:
            if self._has_begun:
                return False
            self._checkpoints += checkpoints
            self._values += values
            self._writes += writes
            return True

    async def commit(self, transaction: Transaction) -> None:
        with self._lock:
            self._has_begun = True
        if self._guard is not None:
            await self._guard(transaction)
        await insert(transaction, self._checkpoints, self._values, self._writes)


class _Answer(NamedTuple):
    """A command's answer that no task has taken yet."""

    checkpoint_id: str
    run_id: str
    value: Any
    at_exit: bool

    def is_taken_by(self, task_id: str, writes: Sequence[tuple[str, Any]]) -> bool:
        """Whether it is the last that a task says it was answered."""
        answers = [value for channel, value in writes if channel == RESUME]
        return task_id != _NULL_TASK_ID and bool(answers) and answers[-1][-1] == self.value


class _Task:
    """What one task has written, as the database keeps it."""

    __slots__ = ("path", "writes")

    def __init__(self, path: str) -> None:
        self.path = path
        self.writes: list[tuple[str, Any]] = []

    def add(self, writes: Sequence[tuple[str, Any]]) -> None:
        """The first of ordinary writes at a place stays, the last of each special kind."""
        known = sum(channel not in WRITES_IDX_MAP for channel, _ in self.writes)
        place = 0
        for channel, value in writes:
            if channel in WRITES_IDX_MAP:
                self.writes = [write for write in self.writes if write[0] != channel]
            else:
                place += 1
                if place <= known:
                    continue
            self.writes.append((channel, value))


_Tasks = dict[str, _Task]
