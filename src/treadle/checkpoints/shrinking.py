"""Removing, in small pieces, all of a thread's checkpoints but the latest ones."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

from langgraph.checkpoint.serde.base import SerializerProtocol

from treadle.checkpoints import queries
from treadle.checkpoints.history import Ancestry
from treadle.checkpoints.rows import NewRow, load, version_text, wanted_versions
from treadle.database import Dialect, Params, Row, Transaction
from treadle.database.pieces import PIECE_ROWS, Piece

# Channels that langgraph makes for itself are empty between steps and have no past.
_INTERNAL_PREFIXES = ("__", "branch:to:")

Kept = dict[str, set[tuple[str, str]]]
FetchAll = Callable[[str, Params], Awaitable[Sequence[Row]]]


class Shrinking:
    """Leaves of a thread what the latest checkpoint of each namespace rests on.

    These are the checkpoint itself with its values and pending writes, and the ancestors that
    its delta channels are rebuilt from; after each piece, they are whole. The oldest go first, a
    checkpoint before the values that only it refers to.
    """

    def __init__(self, dialect: Dialect, serde: SerializerProtocol, thread_id: str) -> None:
        self._dialect, self._serde, self._thread_id = dialect, serde, thread_id
        self._namespaces: list[str] = []
        self._latest: tuple[str, str] | None = None
        self._kept: Kept = {}

    async def prepare(self, fetch_all: FetchAll) -> None:
        """Learn which namespaces there are."""
        rows = await fetch_all(queries.NAMESPACES, {"thread_id": self._thread_id})
        self._namespaces = [row["checkpoint_ns"] for row in rows]

    async def remove(self, transaction: Transaction, piece: Piece) -> bool:
        """Remove as much as the piece has time for; whether all is done."""
        left = list(self._namespaces)
        piece.then(lambda: self._go_on_with(left))
        while left:
            if piece.spent or not await self._shrink(transaction, piece, left[-1]):
                return False
            left.pop()
            piece.step()
        return True

    def _go_on_with(self, namespaces: list[str]) -> None:
        self._namespaces = namespaces

    async def _shrink(self, transaction: Transaction, piece: Piece, checkpoint_ns: str) -> bool:
        namespace: NewRow = {"thread_id": self._thread_id, "checkpoint_ns": checkpoint_ns}
        latest = await transaction.fetch_one(queries.LATEST_CHECKPOINT, namespace)
        if latest is None:
            return True
        if self._latest != (checkpoint_ns, latest["checkpoint_id"]):
            self._kept = await self._resting_on(transaction, namespace, latest)
            self._latest = (checkpoint_ns, latest["checkpoint_id"])
        kept = self._kept
        limit = PIECE_ROWS + len(kept)
        rows = await transaction.fetch_all(
            queries.OLDEST_CHECKPOINTS, {**namespace, "limit": limit}
        )
        for row in rows:
            if row["checkpoint_id"] in kept:
                continue
            if piece.spent:
                return False
            gone = {**namespace, "checkpoint_id": row["checkpoint_id"]}
            await transaction.send(queries.DELETE_CHECKPOINT, gone)
            await transaction.send(queries.DELETE_WRITES, gone)
            piece.step()
        if len(rows) == limit:
            return False
        return await self._drop_values(transaction, piece, namespace, set().union(*kept.values()))

    async def _drop_values(
        self,
        transaction: Transaction,
        piece: Piece,
        namespace: NewRow,
        used: set[tuple[str, str]],
    ) -> bool:
        limit = PIECE_ROWS + len(used)
        rows = await transaction.fetch_all(queries.OLDEST_VALUES, {**namespace, "limit": limit})
        for row in rows:
            if (row["version"], row["channel"]) in used:
                continue
            if piece.spent:
                return False
            await transaction.send(queries.DELETE_VALUE, {**namespace, **dict(row)})
            piece.step()
        return len(rows) < limit

    async def _resting_on(self, transaction: Transaction, namespace: NewRow, latest: Row) -> Kept:
        """What stays with the latest checkpoint, each with the values that it refers to."""
        kept = {latest["checkpoint_id"]: self._values(latest)}
        if channels := await self._rebuilt_channels(transaction, latest):
            ancestry = Ancestry(
                transaction.fetch_all,
                self._dialect,
                self._serde,
                self._thread_id,
                namespace["checkpoint_ns"],
                seeds=False,
            )
            pasts = await ancestry.pasts(latest["parent_checkpoint_id"], channels)
            oldest = [ancestry.walked.index(p.oldest) for p in pasts.values() if p.oldest]
            for checkpoint_id in ancestry.walked[: max(oldest, default=-1) + 1]:
                row = await transaction.fetch_one(
                    queries.CHECKPOINT, {**namespace, "checkpoint_id": checkpoint_id}
                )
                if row is not None:
                    kept[checkpoint_id] = self._values(row)
        return kept

    def _values(self, row: Row) -> set[tuple[str, str]]:
        versions: dict[str, str] = load(self._serde, row, "checkpoint")["channel_versions"]
        return {(version_text(version), channel) for channel, version in versions.items()}

    async def _rebuilt_channels(self, transaction: Transaction, row: Row) -> list[str]:
        """The channels of a checkpoint that were written but have no value of their own there."""
        checkpoint = load(self._serde, row, "checkpoint")
        any_version, params = self._dialect.any_of(
            "version", list(wanted_versions(checkpoint)), "version"
        )
        stored = await transaction.fetch_all(
            f"{queries.VERSIONS_OF_NAMESPACE} AND {any_version}",
            {"thread_id": row["thread_id"], "checkpoint_ns": row["checkpoint_ns"], **params},
        )
        there = {(found["version"], found["channel"]) for found in stored}
        return [
            channel
            for channel, version in checkpoint["channel_versions"].items()
            if channel not in checkpoint["channel_values"]
            and (version_text(version), channel) not in there
            and not channel.startswith(_INTERNAL_PREFIXES)
        ]
