"""How much room the checkpoints of a thread take."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import msgspec
import ormsgpack
from langgraph.checkpoint.serde.base import SerializerProtocol

from treadle.checkpoints import queries
from treadle.checkpoints.rows import load, version_text
from treadle.database import Database, Row


class Tally(msgspec.Struct, frozen=True):
    count: int = 0
    bytes: int = 0


class ChannelTally(msgspec.Struct, frozen=True):
    versions: int = 0
    bytes: int = 0


class ValuesTally(msgspec.Struct, frozen=True):
    count: int = 0
    bytes: int = 0
    by_channel: dict[str, ChannelTally] = {}


class Storage(msgspec.Struct, frozen=True):
    """The bytes that are stored for a thread, every one counted once.

    A small value that is kept inside its checkpoints counts for its channel, as often as it is
    kept; ``versions`` are different versions all the same.
    """

    total_bytes: int
    checkpoints: Tally
    channel_values: ValuesTally
    pending_writes: Tally


async def measure(database: Database, serde: SerializerProtocol, thread_id: str) -> Storage:
    """The figures of one thread, all namespaces counted."""
    of_thread = {"thread_id": thread_id}
    checkpoints = await database.scan(queries.CHECKPOINTS_OF_THREAD, of_thread)
    values = await database.scan(queries.SIZE_OF_VALUES, of_thread)
    (writes,) = await database.scan(queries.SIZE_OF_WRITES, of_thread)
    by_channel = {row["channel"]: ChannelTally(row["versions"], row["bytes"]) for row in values}
    inline = await asyncio.to_thread(_inline_values, serde, checkpoints)
    for channel, tally in inline.items():
        stored = by_channel.get(channel, ChannelTally())
        by_channel[channel] = ChannelTally(
            stored.versions + tally.versions, stored.bytes + tally.bytes
        )
    whole = sum(len(row["checkpoint"]) + len(row["metadata"].encode()) for row in checkpoints)
    parts = (
        Tally(len(checkpoints), whole - sum(tally.bytes for tally in inline.values())),
        ValuesTally(
            sum(tally.versions for tally in by_channel.values()),
            sum(tally.bytes for tally in by_channel.values()),
            by_channel,
        ),
        Tally(writes["count"], writes["bytes"]),
    )
    return Storage(sum(part.bytes for part in parts), *parts)


def _inline_values(
    serde: SerializerProtocol, checkpoints: Sequence[Row]
) -> dict[str, ChannelTally]:
    """What the checkpoints keep inside themselves, by channel."""
    versions: dict[str, set[tuple[str, str]]] = {}
    sizes: dict[str, int] = {}
    for row in checkpoints:
        checkpoint = load(serde, row, "checkpoint")
        for channel, value in checkpoint["channel_values"].items():
            version = version_text(checkpoint["channel_versions"][channel])
            versions.setdefault(channel, set()).add((row["checkpoint_ns"], version))
            sizes[channel] = sizes.get(channel, 0) + len(ormsgpack.packb(value))
    return {channel: ChannelTally(len(versions[channel]), sizes[channel]) for channel in sizes}
