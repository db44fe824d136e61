"""How entries get into the database and out of it: in batches, fenced, with their numbers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import structlog

from treadle.database import Row, Transaction
from treadle.streaming import queries
from treadle.streaming.entries import Entry

if TYPE_CHECKING:
    from treadle.streaming.log import EventHub, ThreadLog

logger = structlog.get_logger("treadle.streaming")


class Unsaved:
    """An entry on its way into the database. With ``waits``, readers hear of it afterwards."""

    __slots__ = ("attempt", "entry", "keep", "log", "refused", "waits")

    def __init__(
        self, log: ThreadLog, entry: Entry, keep: bool, attempt: int, *, waits: bool
    ) -> None:
        self.log, self.entry, self.keep, self.attempt = log, entry, keep, attempt
        self.waits, self.refused = waits, False


class Save:
    """One group commit of unsaved entries: takes all there are when its turn comes."""

    def __init__(self, hub: EventHub) -> None:
        self._hub = hub
        self._taken: list[Unsaved] = []

    async def commit(self, transaction: Transaction) -> None:
        self._taken += self._hub.take_unsaved()
        taken = self._taken
        await _refuse_outdated(transaction, taken)
        kept: list[Unsaved] = []
        by_thread: dict[str, list[Entry]] = {}
        for one in taken:
            if not one.refused:
                if one.entry.seq is not None:
                    by_thread.setdefault(one.log.thread_id, []).append(one.entry)
                if one.keep:
                    kept.append(one)
        for thread_id, entries in by_thread.items():
            await number(transaction, thread_id, entries)
        await transaction.execute_many(
            queries.INSERT_EVENT, [row_of(one.log.thread_id, one.entry) for one in kept]
        )

    def committed(self) -> None:
        for one in self._taken:
            if one.waits:
                one.log.settle(None if one.refused else one.entry)

    def failed(self, error: Exception) -> None:
        logger.error("events could not be saved", events=len(self._taken), error=repr(error))
        for one in self._taken:
            if one.waits:  # what has no number cannot be told
                one.log.settle(one.entry if one.entry.seq is None else None)


async def _refuse_outdated(transaction: Transaction, unsaved: Sequence[Unsaved]) -> None:
    """Mark what runs have sent that have moved on from the attempt that they were in."""
    current: dict[tuple[str, int], bool] = {}
    for one in unsaved:
        if one.attempt:
            key = one.entry.run_id, one.attempt
            if key not in current:
                params = {"run_id": key[0], "attempt": key[1]}
                row = await transaction.fetch_one(queries.IS_ATTEMPT, params)
                current[key] = row is not None
            one.refused = not current[key]


async def number(transaction: Transaction, thread_id: str, entries: Sequence[Entry]) -> None:
    """Give the next numbers of a thread to ``entries``."""
    params = {"thread_id": thread_id, "count": len(entries)}
    row = await transaction.fetch_one(queries.COUNT_ON, params)
    assert row is not None
    for seq, entry in enumerate(entries, row["last_seq"] - len(entries) + 1):
        entry.seq = seq


def entry_of(row: Row) -> Entry:
    return Entry(
        row["id"],
        row["run_id"],
        row["kind"],
        row["name"],
        bytes(row["data"]),
        None,
        row["seq"],
        row["label"],
        bytes(row["params"]),
    )


def row_of(thread_id: str, entry: Entry) -> dict[str, Any]:
    return {
        "thread_id": thread_id,
        "id": entry.id,
        "run_id": entry.run_id,
        "kind": entry.kind,
        "name": entry.name,
        "data": entry.data,
        "seq": entry.seq,
        "label": entry.label,
        "params": entry.params,
    }
