"""Checkpoints and writes as rows of the database, and back."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, cast

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import (
    WRITES_IDX_MAP,
    ChannelVersions,
    Checkpoint,
    CheckpointMetadata,
    CheckpointTuple,
    get_checkpoint_metadata,
)
from langgraph.checkpoint.serde.base import SerializerProtocol

from treadle.checkpoints import queries
from treadle.database import Row, Transaction
from treadle.serialization import dump_text, loads

NewRow = dict[str, Any]

INLINE_CHARACTERS = 100


def is_inline(value: Any) -> bool:
    """Whether a channel's value is so small that it is kept inside each checkpoint."""
    kind = type(value)
    return (
        value is None
        or kind is bool
        or kind is int
        or kind is float
        or (kind is str and len(value) <= INLINE_CHARACTERS)
    )


def make_config(thread_id: str, checkpoint_ns: str, checkpoint_id: str) -> RunnableConfig:
    return {
        "configurable": {
            "thread_id": thread_id,
            "checkpoint_ns": checkpoint_ns,
            "checkpoint_id": checkpoint_id,
        }
    }


def address(config: RunnableConfig) -> tuple[str, str]:
    """The thread and the namespace that a config names."""
    configurable: dict[str, Any] = config["configurable"]  # pyright: ignore[reportTypedDictNotRequiredAccess]
    return str(configurable["thread_id"]), configurable.get("checkpoint_ns", "")


def checkpoint_id_of(config: RunnableConfig) -> str | None:
    return config.get("configurable", {}).get("checkpoint_id") or None


def run_id_of(config: RunnableConfig) -> str | None:
    """The run that a config names, looked for as the metadata of a checkpoint has it."""
    for there in (config.get("metadata"), config.get("configurable")):
        if there and isinstance(found := there.get("run_id"), str):
            return found
    return None


def version_text(version: str | int | float) -> str:
    return version if type(version) is str else str(version)


# -- to rows ----------------------------------------------------------------------------------


def checkpoint_rows(
    serde: SerializerProtocol,
    config: RunnableConfig,
    checkpoint: Checkpoint,
    metadata: CheckpointMetadata,
    new_versions: ChannelVersions,
) -> tuple[NewRow, list[NewRow]]:
    """The row of a checkpoint, and those of the channel values that are new with it."""
    thread_id, checkpoint_ns = address(config)
    versions = checkpoint["channel_versions"]
    inline: dict[str, Any] = {}
    values: list[NewRow] = []
    for channel, value in checkpoint["channel_values"].items():
        if is_inline(value):
            if channel in versions:
                inline[channel] = value
        elif channel in new_versions:
            kind, data = serde.dumps_typed(value)
            values.append(
                {
                    "thread_id": thread_id,
                    "checkpoint_ns": checkpoint_ns,
                    "version": version_text(new_versions[channel]),
                    "channel": channel,
                    "type": kind,
                    "value": data,
                }
            )
    kind, data = serde.dumps_typed({**checkpoint, "channel_values": inline})
    full_metadata = cast("dict[str, Any]", get_checkpoint_metadata(config, metadata))
    run_id = full_metadata.get("run_id")
    row: NewRow = {
        "thread_id": thread_id,
        "checkpoint_ns": checkpoint_ns,
        "checkpoint_id": checkpoint["id"],
        "parent_checkpoint_id": checkpoint_id_of(config),
        "run_id": run_id if isinstance(run_id, str) else None,
        "metadata": dump_text(full_metadata),
        "type": kind,
        "checkpoint": data,
    }
    return row, values


def write_rows(
    serde: SerializerProtocol,
    config: RunnableConfig,
    writes: Iterable[tuple[str, Any]],
    task_id: str,
    task_path: str,
    run_id: str | None,
) -> list[NewRow]:
    """The rows of what a task wrote."""
    thread_id, checkpoint_ns = address(config)
    checkpoint_id = checkpoint_id_of(config)
    rows: list[NewRow] = []
    for index, (channel, value) in enumerate(writes):
        kind, data = serde.dumps_typed(value)
        rows.append(
            {
                "thread_id": thread_id,
                "checkpoint_ns": checkpoint_ns,
                "checkpoint_id": checkpoint_id,
                "task_id": task_id,
                "idx": WRITES_IDX_MAP.get(channel, index),
                "run_id": run_id,
                "task_path": task_path,
                "channel": channel,
                "type": kind,
                "value": data,
            }
        )
    return rows


async def insert(
    transaction: Transaction,
    checkpoints: Sequence[NewRow],
    values: Sequence[NewRow],
    writes: Sequence[NewRow],
) -> None:
    """Put rows into their tables, with as few statements as there are tables."""
    if checkpoints:
        await transaction.execute_many(queries.PUT_CHECKPOINT, checkpoints)
    if values:
        await transaction.execute_many(queries.PUT_VALUE, values)
    if writes:
        await transaction.execute_many(queries.PUT_WRITE, writes)


# -- from rows --------------------------------------------------------------------------------


def load(serde: SerializerProtocol, row: Row, column: str) -> Any:
    """The object in ``column``, whose kind is in the column ``type``."""
    return serde.loads_typed((row["type"], bytes(row[column])))


def wanted_versions(checkpoint: Checkpoint) -> set[str]:
    """The versions under which values of a checkpoint may be stored outside it."""
    inline = checkpoint["channel_values"]
    return {
        version_text(version)
        for channel, version in checkpoint["channel_versions"].items()
        if channel not in inline
    }


def checkpoint_tuple(
    serde: SerializerProtocol,
    row: Row,
    checkpoint: Checkpoint,
    values: Mapping[tuple[str, str], Row],
    writes: Sequence[Row],
) -> CheckpointTuple:
    """A checkpoint put together; ``values`` are rows by version and channel."""
    inline = checkpoint["channel_values"]
    channel_values: dict[str, Any] = {}
    for channel, version in checkpoint["channel_versions"].items():
        if channel in inline:
            channel_values[channel] = inline[channel]
        elif (found := values.get((version_text(version), channel))) is not None:
            channel_values[channel] = load(serde, found, "value")
    checkpoint["channel_values"] = channel_values
    thread_id, checkpoint_ns = row["thread_id"], row["checkpoint_ns"]
    parent = row["parent_checkpoint_id"]
    return CheckpointTuple(
        config=make_config(thread_id, checkpoint_ns, row["checkpoint_id"]),
        checkpoint=checkpoint,
        metadata=loads(row["metadata"]),
        parent_config=make_config(thread_id, checkpoint_ns, parent) if parent else None,
        pending_writes=[(w["task_id"], w["channel"], load(serde, w, "value")) for w in writes],
    )
