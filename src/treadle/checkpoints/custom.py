"""A user's own checkpointer (``checkpointer.path``) in the place of Treadle's.

It takes no part in Treadle's transactions. So what is written to it comes before or after the
row of the run or thread that it belongs to: a crash in between may leave one without the other.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping, Sequence
from typing import Any, Self

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import (
    BaseCheckpointSaver,
    ChannelVersions,
    Checkpoint,
    CheckpointMetadata,
    CheckpointTuple,
    DeltaChannelHistory,
)

from treadle.checkpoints.kept import NOTHING_KEPT, Kept
from treadle.checkpoints.rows import address, checkpoint_id_of
from treadle.checkpoints.saver import Saver, on_its_loop
from treadle.checkpoints.storage import Storage
from treadle.database import Database
from treadle.errors import StartupError, Unsupported

NEEDED = ("aget_tuple", "alist", "aput", "aput_writes", "adelete_thread")


class CustomSaver(Saver):
    """A ``Saver`` over a user's own, on whose event loop all of its work is done.

    Raises ``StartupError`` if that lacks a method that no thread can do without. What else it
    lacks is ``Unsupported`` where it is needed.
    """

    in_database = False

    def __init__(self, database: Database, inner: BaseCheckpointSaver[Any]) -> None:
        if missing := [method for method in NEEDED if not _has(inner, method)]:
            raise StartupError(
                f"checkpointer.path: {type(inner).__name__} has no {', '.join(missing)}. A"
                f" checkpointer needs {', '.join(NEEDED)}."
            )
        super().__init__(database, inner.serde)
        self._inner = inner

    def require(self, method: str, what: str) -> None:
        if not _has(self._inner, method):
            raise Unsupported(
                f"The checkpointer of checkpointer.path, {type(self._inner).__name__}, cannot"
                f" {what}: it has no {method}"
            )

    # -- putting and getting ---------------------------------------------------------------

    @on_its_loop
    async def aput(
        self,
        config: RunnableConfig,
        checkpoint: Checkpoint,
        metadata: CheckpointMetadata,
        new_versions: ChannelVersions,
    ) -> RunnableConfig:
        return await self._inner.aput(config, checkpoint, metadata, new_versions)

    @on_its_loop
    async def aput_writes(
        self,
        config: RunnableConfig,
        writes: Sequence[tuple[str, Any]],
        task_id: str,
        task_path: str = "",
    ) -> None:
        await self._inner.aput_writes(config, writes, task_id, task_path)

    def get_next_version(self, current: Any, channel: None) -> Any:
        return self._inner.get_next_version(current, channel)

    @on_its_loop
    async def aget_tuple(self, config: RunnableConfig) -> CheckpointTuple | None:
        return await self._inner.aget_tuple(config)

    async def alist(
        self,
        config: RunnableConfig | None,
        *,
        filter: dict[str, Any] | None = None,
        before: RunnableConfig | None = None,
        limit: int | None = None,
    ) -> AsyncIterator[CheckpointTuple]:
        for found in await self._list(config, filter, before, limit):
            yield found

    @on_its_loop
    async def _list(
        self,
        config: RunnableConfig | None,
        filter: dict[str, Any] | None,
        before: RunnableConfig | None,
        limit: int | None,
    ) -> list[CheckpointTuple]:
        found = self._inner.alist(config, filter=filter, before=before, limit=limit)
        return [one async for one in found]

    @on_its_loop
    async def aget_delta_channel_history(
        self, *, config: RunnableConfig, channels: Sequence[str]
    ) -> Mapping[str, DeltaChannelHistory]:
        return await self._inner.aget_delta_channel_history(config=config, channels=channels)

    def with_allowlist(self, extra_allowlist: Collection[tuple[str, ...]]) -> Self:
        self._inner = self._inner.with_allowlist(extra_allowlist)
        self.serde = self._inner.serde
        return self

    # -- upkeep ----------------------------------------------------------------------------

    @on_its_loop
    async def adelete_thread(self, thread_id: str) -> None:
        await self._inner.adelete_thread(thread_id)

    @on_its_loop
    async def adelete_for_runs(self, run_ids: Sequence[str]) -> None:
        self.require("adelete_for_runs", "remove what a run has kept")
        await self._inner.adelete_for_runs(run_ids)

    @on_its_loop
    async def aprune(self, thread_ids: Sequence[str], *, strategy: str = "keep_latest") -> None:
        self.require("aprune", "remove all states but the latest")
        await self._inner.aprune(thread_ids, strategy=strategy)

    @on_its_loop
    async def acopy_thread(self, source_thread_id: str, target_thread_id: str) -> None:
        """Copy all checkpoints, with their ids: by the user's own method, or one by one."""
        if _has(self._inner, "acopy_thread"):
            await self._inner.acopy_thread(source_thread_id, target_thread_id)
            return
        source: RunnableConfig = {"configurable": {"thread_id": source_thread_id}}
        for found in reversed([one async for one in self._inner.alist(source)]):
            await self._copy(found, target_thread_id)

    async def _copy(self, found: CheckpointTuple, target: str) -> None:
        _, checkpoint_ns = address(found.config)
        place: dict[str, Any] = {"thread_id": target, "checkpoint_ns": checkpoint_ns}
        if found.parent_config is not None:
            place["checkpoint_id"] = checkpoint_id_of(found.parent_config)
        versions = found.checkpoint["channel_versions"]
        config: RunnableConfig = {"configurable": place}
        config = await self._inner.aput(config, found.checkpoint, found.metadata, versions)
        writes: dict[str, list[tuple[str, Any]]] = {}
        for task_id, channel, value in found.pending_writes or ():
            writes.setdefault(task_id, []).append((channel, value))
        for task_id, written in writes.items():
            await self._inner.aput_writes(config, written, task_id)

    async def storage(self, thread_id: str) -> Storage:
        raise Unsupported("How much room states take is not known of a custom checkpointer")


class CustomRunSaver(CustomSaver):
    """A ``CustomSaver`` for one execution of one run on ``thread_id``.

    ``check`` is awaited before each write; if it raises, nothing is written. What is put is
    durable, as far as the user's saver makes it so, when the call returns.
    """

    last_checkpoint = None
    needs_replay = True

    def __init__(
        self, saver: CustomSaver, thread_id: str, check: Callable[[], Awaitable[None]]
    ) -> None:
        # Not CustomSaver.__init__: the user's saver has been looked at already.
        self.database, self.serde, self.blobs = saver.database, saver.serde, None
        self.thread_id = thread_id
        self.last_metadata: CheckpointMetadata | None = None
        self.last_checkpoint_id: str | None = None
        self._inner, self._loop = saver._inner, saver._loop
        self._check = check

    @property
    def channel_values(self) -> dict[str, Any]:
        raise RuntimeError("only the user's saver knows the values")

    async def aget_tuple(self, config: RunnableConfig) -> CheckpointTuple | None:
        found = await super().aget_tuple(config)
        is_latest = "checkpoint_id" not in config.get("configurable", {})
        if found is not None and is_latest and address(config) == (self.thread_id, ""):
            self.last_checkpoint_id = found.checkpoint["id"]
        return found

    @on_its_loop
    async def aput(
        self,
        config: RunnableConfig,
        checkpoint: Checkpoint,
        metadata: CheckpointMetadata,
        new_versions: ChannelVersions,
    ) -> RunnableConfig:
        await self._check()
        if address(config) == (self.thread_id, ""):
            self.last_metadata = metadata.copy()
            self.last_checkpoint_id = checkpoint["id"]
        return await self._inner.aput(config, checkpoint, metadata, new_versions)

    @on_its_loop
    async def aput_writes(
        self,
        config: RunnableConfig,
        writes: Sequence[tuple[str, Any]],
        task_id: str,
        task_path: str = "",
    ) -> None:
        await self._check()
        await self._inner.aput_writes(config, writes, task_id, task_path)

    def watch_answer(self, checkpoint_id: str, run_id: str, answer: Any, *, at_exit: bool) -> None:
        """See ``RunSaver.watch_answer``: whose an answer is, the user's saver does not say."""

    async def kept(self, checkpoint_id: str, run_id: str) -> Kept:
        """See ``RunSaver.kept``: whose writes are whose, the user's saver does not say."""
        return NOTHING_KEPT

    async def settle(self) -> None:
        """See ``RunSaver.settle``: nothing waits to be written."""


def _has(saver: BaseCheckpointSaver[Any], method: str) -> bool:
    """Whether a user's saver has a method of its own, and not just the interface's refusal."""
    return getattr(type(saver), method) is not getattr(BaseCheckpointSaver, method)
