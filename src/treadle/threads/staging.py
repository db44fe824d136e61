"""A saver for one state update: what is put into it is kept back until all of it can be written."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Any, cast

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import (
    BaseCheckpointSaver,
    ChannelVersions,
    Checkpoint,
    CheckpointMetadata,
    CheckpointTuple,
    PendingWrite,
)

from treadle.auth.users import User
from treadle.checkpoints.queries import IS_THERE
from treadle.checkpoints.rows import (
    NewRow,
    address,
    checkpoint_id_of,
    checkpoint_rows,
    insert,
    make_config,
    write_rows,
)
from treadle.checkpoints.saver import Saver
from treadle.database import Transaction
from treadle.serialization import loads


class StagingSaver(BaseCheckpointSaver[Any]):
    """Reads through to ``saver``, keeps back what is put, and writes it on ``write_in``.

    What is put names the checkpoint ``fork_of`` in its metadata, if there is one.

    All is serialized where it is put, and encrypted on behalf of ``user``: what cannot be written
    fails there, and what is read again is as it will be once it is written.
    """

    def __init__(self, saver: Saver, user: User | None = None, fork_of: str | None = None) -> None:
        super().__init__(serde=saver.serde)
        self._saver = saver
        self._fork_of = fork_of
        self._sealer = saver.blobs and saver.blobs.sealer(self.serde, user)
        self._basis: dict[tuple[str, str], dict[str, str]] = {}
        self._latest: dict[str, str] = {}
        self._read: dict[tuple[str, str], tuple[NewRow, tuple[str, bytes]]] = {}
        self._pending: dict[tuple[str, str], list[PendingWrite]] = {}
        self._checkpoints: list[NewRow] = []
        self._values: list[NewRow] = []
        self._writes: list[NewRow] = []
        self._puts: list[Callable[[], Awaitable[object]]] = []

    async def has_basis(self, transaction: Transaction) -> bool:
        """Whether the checkpoints that were read are still there."""
        for basis in self._basis.values():
            if await transaction.fetch_one(IS_THERE, basis) is None:
                return False
        return True

    async def write_in(self, transaction: Transaction) -> None:
        """Write what was kept back, if the saver is the database's."""
        if self._saver.in_database:
            await insert(transaction, self._checkpoints, self._values, self._writes)

    async def write_outside(self) -> None:
        """Put what was kept back into a saver that takes no part in transactions."""
        if not self._saver.in_database:
            for put in self._puts:
                await put()

    def get_next_version(self, current: Any, channel: None) -> Any:
        return self._saver.get_next_version(current, channel)

    async def aget_tuple(self, config: RunnableConfig) -> CheckpointTuple | None:
        _, ns = address(config)
        checkpoint_id = checkpoint_id_of(config) or self._latest.get(ns, "")
        if (staged := self._read.get((ns, checkpoint_id))) is not None:
            found = self._tuple(*staged)
        else:
            found = await self._saver.aget_tuple(config)
            if found is not None and self._saver.in_database:
                self._note_basis(found)
        if found is None:
            return None
        added = self._pending.get((ns, found.checkpoint["id"]), [])
        return found._replace(pending_writes=[*(found.pending_writes or []), *added])

    def _note_basis(self, found: CheckpointTuple) -> None:
        thread_id, checkpoint_ns = address(found.config)
        checkpoint_id = found.checkpoint["id"]
        self._basis[checkpoint_ns, checkpoint_id] = {
            "thread_id": thread_id,
            "checkpoint_ns": checkpoint_ns,
            "checkpoint_id": checkpoint_id,
        }

    def _tuple(self, row: NewRow, dumped: tuple[str, bytes]) -> CheckpointTuple:
        thread_id, ns, parent = row["thread_id"], row["checkpoint_ns"], row["parent_checkpoint_id"]
        return CheckpointTuple(
            config=make_config(thread_id, ns, row["checkpoint_id"]),
            checkpoint=self.serde.loads_typed(dumped),
            metadata=loads(row["metadata"]),
            parent_config=make_config(thread_id, ns, parent) if parent else None,
            pending_writes=[],
        )

    async def aput(
        self,
        config: RunnableConfig,
        checkpoint: Checkpoint,
        metadata: CheckpointMetadata,
        new_versions: ChannelVersions,
    ) -> RunnableConfig:
        if self._fork_of is not None:
            metadata = cast("CheckpointMetadata", {**metadata, "checkpoint_id": self._fork_of})
        row, values = checkpoint_rows(self.serde, config, checkpoint, metadata, new_versions)
        if self._sealer is not None:
            await self._sealer.seal(values, row)
        self._checkpoints.append(row)
        self._values.extend(values)
        thread_id, ns = address(config)
        self._latest[ns] = checkpoint["id"]
        dumped = self.serde.dumps_typed(checkpoint)
        self._read[ns, checkpoint["id"]] = row, dumped
        loaded = self.serde.loads_typed(dumped)
        self._puts.append(partial(self._saver.aput, config, loaded, metadata, new_versions))
        return make_config(thread_id, ns, checkpoint["id"])

    async def aput_writes(
        self,
        config: RunnableConfig,
        writes: Sequence[tuple[str, Any]],
        task_id: str,
        task_path: str = "",
    ) -> None:
        rows = write_rows(self.serde, config, writes, task_id, task_path, None)
        staged = [(task_id, row["channel"], (row["type"], row["value"])) for row in rows]
        if self._sealer is not None:
            await self._sealer.seal(rows)
        self._writes.extend(rows)
        self._puts.append(
            partial(self._saver.aput_writes, config, list(writes), task_id, task_path)
        )
        _, ns = address(config)
        self._pending.setdefault((ns, checkpoint_id_of(config) or ""), []).extend(
            (task_id, channel, self.serde.loads_typed(dumped))
            for task_id, channel, dumped in staged
        )
