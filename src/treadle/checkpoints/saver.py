"""The checkpointer over Treadle's database."""

from __future__ import annotations

import asyncio
import random
from collections.abc import (
    AsyncIterator,
    Awaitable,
    Callable,
    Coroutine,
    Iterator,
    Mapping,
    Sequence,
)
from contextlib import suppress
from functools import wraps
from types import CoroutineType
from typing import Any, Concatenate, ParamSpec, TypeVar, cast

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import (
    BaseCheckpointSaver,
    ChannelVersions,
    Checkpoint,
    CheckpointMetadata,
    CheckpointTuple,
    DeltaChannelHistory,
)
from langgraph.checkpoint.serde.base import SerializerProtocol

from treadle.checkpoints import queries, upkeep
from treadle.checkpoints.blobs import BlobHandlers
from treadle.checkpoints.history import Ancestry, delta_history
from treadle.checkpoints.listing import Listing
from treadle.checkpoints.rows import (
    NewRow,
    address,
    checkpoint_id_of,
    checkpoint_rows,
    checkpoint_tuple,
    insert,
    load,
    make_config,
    run_id_of,
    wanted_versions,
    write_rows,
)
from treadle.checkpoints.serde import state_serializer
from treadle.checkpoints.storage import Storage, measure
from treadle.database import Database, Row, Transaction

P = ParamSpec("P")
T = TypeVar("T")
S = TypeVar("S", bound="Saver")

PAGE_ROWS = 50
SYNC_ON_THE_LOOP = (
    "A graph was called synchronously on the server's event loop, which that would block. Use the"
    " async methods there (ainvoke, astream, aget_state, ...), or make the node a plain function:"
    " it gets a thread of its own, where the synchronous methods work."
)


def on_its_loop(
    method: Callable[Concatenate[S, P], CoroutineType[Any, Any, T]],
) -> Callable[Concatenate[S, P], CoroutineType[Any, Any, T]]:
    """Let a method be awaited on any event loop: its work is done on the saver's own."""

    @wraps(method)
    def call(self: S, *args: P.args, **kwargs: P.kwargs) -> CoroutineType[Any, Any, T]:
        if self.is_at_home():
            return method(self, *args, **kwargs)
        return self.from_elsewhere(method(self, *args, **kwargs))

    return call


class Saver(BaseCheckpointSaver[str]):
    """Keeps the checkpoints of graphs in ``database``.

    A checkpoint's channel values are stored once for each version. What a coroutine here has
    put is durable when it returns. The methods without an ``a`` are for code that runs on other
    threads (a graph that a node invokes synchronously); they wait for the event loop on which
    the saver was made, and refuse to be called on it.
    """

    in_database = True
    """Whether ``upkeep`` in a transaction does all there is to do for its checkpoints."""

    def __init__(
        self,
        database: Database,
        serde: SerializerProtocol | None = None,
        blobs: BlobHandlers | None = None,
    ) -> None:
        super().__init__(serde=serde or state_serializer())
        self.database = database
        self.blobs = blobs
        """Encrypts and decrypts values apart from the serializer."""
        self._loop: asyncio.AbstractEventLoop | None = None
        with suppress(RuntimeError):  # made before the loop runs: its first coroutine tells
            self._loop = asyncio.get_running_loop()

    def require(self, method: str, what: str) -> None:
        """Raise ``Unsupported`` if the saver lacks a method; ``what`` is what it is needed for."""

    # -- which loop ------------------------------------------------------------------------

    def is_at_home(self) -> bool:
        """Whether this is called on the event loop of the database."""
        loop = asyncio.get_running_loop()
        if self._loop is None:
            self._loop = loop
        return loop is self._loop

    async def from_elsewhere(self, work: Coroutine[Any, Any, T]) -> T:
        """Await ``work``, which belongs to the saver's loop, on another one."""
        assert self._loop is not None
        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(work, self._loop))

    def _wait_for(self, call: Callable[[], Awaitable[T]]) -> T:
        """The result of a coroutine, for a thread that runs no event loop of ours."""
        try:
            running: asyncio.AbstractEventLoop | None = asyncio.get_running_loop()
        except RuntimeError:
            running = None
        if self._loop is None or running is self._loop:
            raise RuntimeError(SYNC_ON_THE_LOOP)

        async def work() -> T:
            return await call()

        return asyncio.run_coroutine_threadsafe(work(), self._loop).result()

    # -- putting ---------------------------------------------------------------------------

    @on_its_loop
    async def aput(
        self,
        config: RunnableConfig,
        checkpoint: Checkpoint,
        metadata: CheckpointMetadata,
        new_versions: ChannelVersions,
    ) -> RunnableConfig:
        row, values = checkpoint_rows(self.serde, config, checkpoint, metadata, new_versions)
        if self.blobs is not None:
            await self.blobs.sealer(self.serde).seal(values, row)

        async def body(transaction: Transaction) -> None:
            await insert(transaction, (row,), values, ())

        await self.database.write(body)
        return make_config(row["thread_id"], row["checkpoint_ns"], row["checkpoint_id"])

    @on_its_loop
    async def aput_writes(
        self,
        config: RunnableConfig,
        writes: Sequence[tuple[str, Any]],
        task_id: str,
        task_path: str = "",
    ) -> None:
        rows = write_rows(self.serde, config, writes, task_id, task_path, run_id_of(config))
        if self.blobs is not None:
            await self.blobs.sealer(self.serde).seal(rows)

        async def body(transaction: Transaction) -> None:
            await insert(transaction, (), (), rows)

        await self.database.write(body)

    def get_next_version(self, current: str | int | None, channel: None) -> str:
        """The next version: a count, and a random part that keeps branches apart.

        Versions of equal length compare as their counts do. Each checkpoint holds many, so they
        are shorter than the library's own.
        """
        if current is None:
            count = 0
        elif isinstance(current, int):
            count = current
        else:
            count = int(current.partition(".")[0])
        return f"{count + 1:010}.{random.getrandbits(40):010x}"

    # -- getting ---------------------------------------------------------------------------

    @on_its_loop
    async def aget_tuple(self, config: RunnableConfig) -> CheckpointTuple | None:
        row = await self._row(config)
        if row is None:
            return None
        (found,) = await self._tuples([row])
        return found

    async def _row(self, config: RunnableConfig) -> Row | None:
        """The row of the checkpoint that a config names, or of the latest of its namespace."""
        thread_id, checkpoint_ns = address(config)
        params: NewRow = {"thread_id": thread_id, "checkpoint_ns": checkpoint_ns}
        await self.catch_up(checkpoint_ns)
        if checkpoint_id := checkpoint_id_of(config):
            params["checkpoint_id"] = checkpoint_id
            return await self.database.read_one(queries.CHECKPOINT, params)
        return await self.database.read_one(queries.LATEST_CHECKPOINT, params)

    async def alist(
        self,
        config: RunnableConfig | None,
        *,
        filter: dict[str, Any] | None = None,
        before: RunnableConfig | None = None,
        limit: int | None = None,
    ) -> AsyncIterator[CheckpointTuple]:
        """Checkpoints, the newest first; of all namespaces unless ``config`` names one.

        ``filter`` gives top-level keys of the metadata and what they have to equal.
        """
        listing = Listing(self.database, config, filter, before)
        left = limit
        while not listing.is_over and (left is None or left > 0):
            size = PAGE_ROWS if left is None else min(left, PAGE_ROWS)
            found = await self._turn(listing, size)
            for one in found:
                yield one
            if left is not None:
                left -= len(found)

    @on_its_loop
    async def _turn(self, listing: Listing, size: int) -> list[CheckpointTuple]:
        """What matches among the next rows of a listing."""
        await self.catch_up(listing.checkpoint_ns)
        return await self._tuples(await listing.turn(size))

    async def _tuples(self, rows: Sequence[Row]) -> list[CheckpointTuple]:
        """Whole checkpoints for rows, in the order of the rows."""
        if self.blobs is not None:
            rows = await self.blobs.opened(self.serde, rows)
        parsed = [(row, load(self.serde, row, "checkpoint")) for row in rows]
        places: dict[tuple[str, str], list[tuple[Row, Checkpoint]]] = {}
        for row, checkpoint in parsed:
            place = row["thread_id"], row["checkpoint_ns"]
            places.setdefault(place, []).append((row, checkpoint))
        values: dict[tuple[str, str], dict[tuple[str, str], Row]] = {}
        writes: dict[tuple[str, str, str], list[Row]] = {}
        for (thread_id, checkpoint_ns), here in places.items():
            values[thread_id, checkpoint_ns] = await self._values_of(thread_id, checkpoint_ns, here)
            for write in await self._writes_of(thread_id, checkpoint_ns, here):
                key = thread_id, checkpoint_ns, write["checkpoint_id"]
                writes.setdefault(key, []).append(write)
        return [
            checkpoint_tuple(
                self.serde,
                row,
                checkpoint,
                values[row["thread_id"], row["checkpoint_ns"]],
                writes.get((row["thread_id"], row["checkpoint_ns"], row["checkpoint_id"]), ()),
            )
            for row, checkpoint in parsed
        ]

    async def _values_of(
        self, thread_id: str, checkpoint_ns: str, here: Sequence[tuple[Row, Checkpoint]]
    ) -> dict[tuple[str, str], Row]:
        """The stored values of some checkpoints of a namespace, by version and channel."""
        versions: set[str] = set()
        for _, checkpoint in here:
            versions |= wanted_versions(checkpoint)
        if not versions:
            return {}
        any_version, params = self.database.dialect.any_of("version", list(versions), "version")
        rows = await self._read_all(
            queries.VALUES.format(any_version=any_version),
            {"thread_id": thread_id, "checkpoint_ns": checkpoint_ns, **params},
        )
        return {(row["version"], row["channel"]): row for row in rows}

    async def _writes_of(
        self, thread_id: str, checkpoint_ns: str, here: Sequence[tuple[Row, Checkpoint]]
    ) -> Sequence[Row]:
        """What was written to some checkpoints of a namespace, in order."""
        params: NewRow = {"thread_id": thread_id, "checkpoint_ns": checkpoint_ns}
        if len(here) == 1:
            params["checkpoint_id"] = here[0][0]["checkpoint_id"]
            return await self._read_all(queries.WRITES_OF_CHECKPOINT, params)
        ids = [row["checkpoint_id"] for row, _ in here]
        any_checkpoint, more = self.database.dialect.any_of("checkpoint_id", ids, "id")
        sql = queries.WRITES.format(any_checkpoint=any_checkpoint)
        return await self._read_all(sql, {**params, **more})

    async def _read_all(self, sql: str, params: NewRow) -> Sequence[Row]:
        """Rows, with values as the serializer reads them."""
        rows = await self.database.read_all(sql, params)
        return rows if self.blobs is None else await self.blobs.opened(self.serde, rows)

    @on_its_loop
    async def aget_delta_channel_history(
        self, *, config: RunnableConfig, channels: Sequence[str]
    ) -> Mapping[str, DeltaChannelHistory]:
        if not channels:
            return {}
        row = await self._row(config)
        ancestry = Ancestry(self._read_all, self.database.dialect, self.serde, *address(config))
        parent_id = row["parent_checkpoint_id"] if row is not None else None
        pasts = await ancestry.pasts(parent_id, channels)
        return {channel: delta_history(self.serde, past) for channel, past in pasts.items()}

    async def catch_up(self, checkpoint_ns: str | None) -> None:
        """Make sure that what follows reads all that was put; None is every namespace."""

    # -- upkeep ----------------------------------------------------------------------------

    async def adelete_thread(self, thread_id: str) -> None:
        await self._upkeep(lambda transaction: upkeep.delete_thread(transaction, thread_id))

    async def adelete_for_runs(self, run_ids: Sequence[str]) -> None:
        """Remove what runs have kept; see ``upkeep.delete_runs``."""
        dialect = self.database.dialect
        await self._upkeep(
            lambda transaction: upkeep.delete_runs(transaction, dialect, self.serde, run_ids)
        )

    async def acopy_thread(self, source_thread_id: str, target_thread_id: str) -> None:
        await self._upkeep(
            lambda transaction: upkeep.copy_thread(transaction, source_thread_id, target_thread_id)
        )

    async def aprune(self, thread_ids: Sequence[str], *, strategy: str = "keep_latest") -> None:
        """Remove all checkpoints of threads (``delete``), or all but the latest of each
        namespace and what its delta channels are rebuilt from (``keep_latest``)."""
        if strategy not in ("keep_latest", "delete"):
            raise ValueError(f"strategy is {strategy!r}; it must be 'keep_latest' or 'delete'")
        dialect = self.database.dialect

        async def body(transaction: Transaction) -> None:
            for thread_id in thread_ids:
                if strategy == "delete":
                    await upkeep.delete_thread(transaction, thread_id)
                else:
                    await upkeep.keep_latest(transaction, dialect, self.serde, thread_id)

        await self._upkeep(body)

    @on_its_loop
    async def _upkeep(self, body: Callable[[Transaction], Awaitable[None]]) -> None:
        await self.database.write(body)

    @on_its_loop
    async def storage(self, thread_id: str) -> Storage:
        """How much room the checkpoints of a thread take."""
        return await measure(self.database, self.serde, thread_id)

    # -- for other threads -----------------------------------------------------------------

    def put(
        self,
        config: RunnableConfig,
        checkpoint: Checkpoint,
        metadata: CheckpointMetadata,
        new_versions: ChannelVersions,
    ) -> RunnableConfig:
        return self._wait_for(lambda: self.aput(config, checkpoint, metadata, new_versions))

    def put_writes(
        self,
        config: RunnableConfig,
        writes: Sequence[tuple[str, Any]],
        task_id: str,
        task_path: str = "",
    ) -> None:
        self._wait_for(lambda: self.aput_writes(config, writes, task_id, task_path))

    def get_tuple(self, config: RunnableConfig) -> CheckpointTuple | None:
        return self._wait_for(lambda: self.aget_tuple(config))

    def list(
        self,
        config: RunnableConfig | None,
        *,
        filter: dict[str, Any] | None = None,
        before: RunnableConfig | None = None,
        limit: int | None = None,
    ) -> Iterator[CheckpointTuple]:
        listing = self.alist(config, filter=filter, before=before, limit=limit)
        end = object()
        while (one := self._wait_for(lambda: anext(listing, end))) is not end:
            yield cast("CheckpointTuple", one)

    def get_delta_channel_history(
        self, *, config: RunnableConfig, channels: Sequence[str]
    ) -> Mapping[str, DeltaChannelHistory]:
        return self._wait_for(
            lambda: self.aget_delta_channel_history(config=config, channels=channels)
        )

    def delete_thread(self, thread_id: str) -> None:
        self._wait_for(lambda: self.adelete_thread(thread_id))

    def delete_for_runs(self, run_ids: Sequence[str]) -> None:
        self._wait_for(lambda: self.adelete_for_runs(run_ids))

    def copy_thread(self, source_thread_id: str, target_thread_id: str) -> None:
        self._wait_for(lambda: self.acopy_thread(source_thread_id, target_thread_id))

    def prune(self, thread_ids: Sequence[str], *, strategy: str = "keep_latest") -> None:
        self._wait_for(lambda: self.aprune(thread_ids, strategy=strategy))
