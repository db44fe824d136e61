"""Deleting, copying and pruning checkpoints, each inside a transaction of the caller's."""

from __future__ import annotations

from collections.abc import Sequence

from langgraph.checkpoint.serde.base import SerializerProtocol

from treadle.checkpoints import queries
from treadle.checkpoints.rows import NewRow, load, version_text
from treadle.checkpoints.shrinking import Shrinking
from treadle.database import Dialect, Transaction
from treadle.database.pieces import Piece


async def delete_thread(transaction: Transaction, thread_id: str) -> None:
    """Remove all that is kept under a thread's id."""
    for sql in queries.DELETE_THREAD:
        await transaction.send(sql, {"thread_id": thread_id})


async def delete_runs(
    transaction: Transaction,
    dialect: Dialect,
    serde: SerializerProtocol,
    run_ids: Sequence[str],
) -> None:
    """Remove the checkpoints of runs, what was written to them, and what only they refer to.

    What the runs wrote to checkpoints of other runs (answers to questions, say) goes as well.
    """
    any_run, params = dialect.any_of("run_id", run_ids, "run")
    deleted = await transaction.fetch_all(
        queries.DELETE_CHECKPOINTS_OF_RUNS.format(any_run=any_run), params
    )
    await transaction.send(queries.DELETE_WRITES_OF_RUNS.format(any_run=any_run), params)
    if deleted:
        await transaction.execute_many(queries.DELETE_WRITES, [dict(row) for row in deleted])
    for thread_id, checkpoint_ns in {(r["thread_id"], r["checkpoint_ns"]) for r in deleted}:
        await _drop_unused_values(transaction, serde, thread_id, checkpoint_ns)


async def copy_thread(transaction: Transaction, source: str, target: str) -> None:
    """Copy all checkpoints, with their ids. The copies belong to no run."""
    for sql in queries.COPY_THREAD:
        await transaction.send(sql, {"source": source, "target": target})


async def keep_latest(
    transaction: Transaction, dialect: Dialect, serde: SerializerProtocol, thread_id: str
) -> None:
    """Remove all but the latest checkpoint of each namespace of a thread.

    The ancestors that a delta channel of the latest one is rebuilt from stay too.
    """
    shrinking = Shrinking(dialect, serde, thread_id)
    await shrinking.prepare(transaction.fetch_all)
    is_done = False
    while not is_done:
        piece = Piece()
        is_done = await shrinking.remove(transaction, piece)
        piece.settle()


async def _drop_unused_values(
    transaction: Transaction, serde: SerializerProtocol, thread_id: str, checkpoint_ns: str
) -> None:
    """Remove the stored values of a namespace that none of its checkpoints refers to."""
    namespace: NewRow = {"thread_id": thread_id, "checkpoint_ns": checkpoint_ns}
    used = {
        (version_text(version), channel)
        for row in await transaction.fetch_all(queries.CHECKPOINTS_OF_NAMESPACE, namespace)
        for channel, version in load(serde, row, "checkpoint")["channel_versions"].items()
    }
    stored = await transaction.fetch_all(queries.VERSIONS_OF_NAMESPACE, namespace)
    unused = [
        {**namespace, "version": row["version"], "channel": row["channel"]}
        for row in stored
        if (row["version"], row["channel"]) not in used
    ]
    if unused:
        await transaction.execute_many(queries.DELETE_VALUE, unused)
