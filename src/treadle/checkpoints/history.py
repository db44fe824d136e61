"""What delta channels are rebuilt from: their writes along the chain of a checkpoint's parents.

A delta channel keeps its value only now and then (a snapshot); in between, its value is the last
snapshot with the writes since then applied.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Sequence
from dataclasses import dataclass, field
from typing import Any

from langgraph.checkpoint.base import DeltaChannelHistory, PendingWrite
from langgraph.checkpoint.serde.base import SerializerProtocol

from treadle.checkpoints import queries
from treadle.checkpoints.rows import NewRow, load, version_text
from treadle.database import Dialect, Row

ANCESTORS_AT_ONCE = 64

FetchAll = Callable[[str, NewRow], Awaitable[Sequence[Row]]]


@dataclass
class ChannelPast:
    """What one channel needs of the ancestors: from the newest to its seed."""

    writes: list[tuple[str, Row]] = field(default_factory=list[tuple[str, Row]])
    """The id of a checkpoint and a write to it, newest first."""
    seed: Any = None
    seeded_by: str | None = None
    """The checkpoint that holds ``seed``; None if no ancestor has a value of the channel."""

    @property
    def oldest(self) -> str | None:
        """The oldest checkpoint that the channel's value rests on."""
        return self.seeded_by or (self.writes[-1][0] if self.writes else None)


class Ancestry:
    """The ancestors of a checkpoint, nearest first, read a few at a time.

    Without ``seeds``, only where values lie is found out, and no value is read.
    """

    def __init__(
        self,
        fetch_all: FetchAll,
        dialect: Dialect,
        serde: SerializerProtocol,
        thread_id: str,
        checkpoint_ns: str,
        *,
        seeds: bool = True,
    ) -> None:
        self._fetch_all = fetch_all
        self._seeds = seeds
        self._dialect = dialect
        self._serde = serde
        self._namespace: NewRow = {"thread_id": thread_id, "checkpoint_ns": checkpoint_ns}
        self.walked: list[str] = []
        """The ids of the ancestors that were visited."""

    async def pasts(
        self, parent_id: str | None, channels: Collection[str]
    ) -> dict[str, ChannelPast]:
        """The past of each channel, for a checkpoint whose parent is ``parent_id``."""
        pasts = {channel: ChannelPast() for channel in channels}
        missing = set(channels)
        seen: set[str] = set()
        while parent_id is not None and missing:
            rows = await self._fetch_all(
                queries.ANCESTORS,
                {**self._namespace, "checkpoint_id": parent_id, "most": ANCESTORS_AT_ONCE},
            )
            fresh: list[Row] = []
            for row in rows:
                if row["checkpoint_id"] in seen:
                    break
                seen.add(row["checkpoint_id"])
                fresh.append(row)
            await self._visit(fresh, pasts, missing)
            parent_id = (
                rows[-1]["parent_checkpoint_id"] if rows and len(fresh) == len(rows) else None
            )
        return pasts

    async def _visit(
        self, rows: Sequence[Row], pasts: dict[str, ChannelPast], missing: set[str]
    ) -> None:
        """Go through some ancestors; the channels that find their seed leave ``missing``."""
        if not rows:
            return
        checkpoints = [load(self._serde, row, "checkpoint") for row in rows]
        stored = await self._stored(checkpoints, missing)
        writes = await self._writes([row["checkpoint_id"] for row in rows], missing)
        for row, checkpoint in zip(rows, checkpoints, strict=True):
            if not missing:
                return
            checkpoint_id = row["checkpoint_id"]
            self.walked.append(checkpoint_id)
            for write in reversed(writes.get(checkpoint_id, [])):
                if write["channel"] in missing:
                    pasts[write["channel"]].writes.append((checkpoint_id, write))
            inline = checkpoint["channel_values"]
            for channel in tuple(missing):
                version = checkpoint["channel_versions"].get(channel)
                if channel in inline:
                    pasts[channel].seed = inline[channel]
                elif version is not None and (key := (version_text(version), channel)) in stored:
                    if self._seeds:
                        pasts[channel].seed = await self._value(*key)
                else:
                    continue
                pasts[channel].seeded_by = checkpoint_id
                missing.discard(channel)

    async def _stored(
        self, checkpoints: Sequence[Any], channels: Collection[str]
    ) -> set[tuple[str, str]]:
        """Which versions of the channels have a stored value."""
        versions = {
            version_text(checkpoint["channel_versions"][channel])
            for checkpoint in checkpoints
            for channel in channels
            if channel in checkpoint["channel_versions"]
        }
        if not versions:
            return set()
        any_version, version_params = self._dialect.any_of("version", list(versions), "version")
        any_channel, channel_params = self._dialect.any_of("channel", list(channels), "channel")
        sql = queries.STORED_VERSIONS.format(any_version=any_version, any_channel=any_channel)
        rows = await self._fetch_all(sql, {**self._namespace, **version_params, **channel_params})
        return {(row["version"], row["channel"]) for row in rows}

    async def _value(self, version: str, channel: str) -> Any:
        rows = await self._fetch_all(
            queries.VALUE, {**self._namespace, "version": version, "channel": channel}
        )
        return load(self._serde, rows[0], "value")

    async def _writes(
        self, checkpoint_ids: Sequence[str], channels: Collection[str]
    ) -> dict[str, list[Row]]:
        """The writes to the channels, by checkpoint, in the order in which they apply."""
        any_id, id_params = self._dialect.any_of("checkpoint_id", checkpoint_ids, "id")
        any_channel, channel_params = self._dialect.any_of("channel", list(channels), "channel")
        sql = queries.WRITES_TO_CHANNELS.format(any_checkpoint=any_id, any_channel=any_channel)
        rows = await self._fetch_all(sql, {**self._namespace, **id_params, **channel_params})
        found: dict[str, list[Row]] = {}
        for row in rows:
            found.setdefault(row["checkpoint_id"], []).append(row)
        return found


def delta_history(serde: SerializerProtocol, past: ChannelPast) -> DeltaChannelHistory:
    """A channel's past as langgraph wants it: writes oldest first, and the seed if there is one."""
    writes: list[PendingWrite] = [
        (row["task_id"], row["channel"], load(serde, row, "value"))
        for _, row in reversed(past.writes)
    ]
    if past.seeded_by is None:
        return {"writes": writes}
    return {"writes": writes, "seed": past.seed}
