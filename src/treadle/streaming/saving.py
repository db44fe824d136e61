"""How entries get into the database and out of it: in batches, fenced, with their numbers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import structlog

from treadle.database import Row, Transaction
from treadle.errors import Unavailable
from treadle.streaming import queries
from treadle.streaming.entries import Entry

if TYPE_CHECKING:
    from treadle.streaming.log import EventHub, ThreadLog

logger = structlog.get_logger("treadle.streaming")

SAVE_TRIES = 5


class Unsaved:
    """An entry on its way into the database. With ``waits``, readers hear of it afterwards.

    ``failures`` counts the commits of it of which nobody knows what became of them.
    """

    __slots__ = ("attempt", "entry", "failures", "keep", "log", "refused", "waits")

    def __init__(
        self, log: ThreadLog, entry: Entry, keep: bool, attempt: int, *, waits: bool
    ) -> None:
        self.log, self.entry, self.keep, self.attempt = log, entry, keep, attempt
        self.waits, self.refused, self.failures = waits, False, 0


class Save:
    """One group commit of unsaved entries: takes all there are when its turn comes.

    It does not come if the database cannot be reached: then another one takes them.
    """

    def __init__(self, hub: EventHub) -> None:
        self._hub = hub
        self._taken: list[Unsaved] = []
        self._has_begun = False

    async def commit(self, transaction: Transaction) -> None:
        self._has_begun = True
        self._taken += self._hub.take_unsaved()
        there = await _those_there(transaction, self._taken)
        taken = [one for one in self._taken if one not in there]
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
        if not self._has_begun:
            self._hub.save_again()
            return
        lost = self._taken
        if isinstance(error, Unavailable):
            for one in self._taken:
                one.failures += 1
            lost = [one for one in self._taken if one.failures >= SAVE_TRIES]
            self._hub.take_back([one for one in self._taken if one.failures < SAVE_TRIES])
        if lost:
            logger.error("events could not be saved", events=len(lost), error=repr(error))
        for one in lost:
            if one.waits:  # what has no number cannot be told
                one.log.settle(one.entry if one.entry.seq is None else None)


async def _those_there(transaction: Transaction, unsaved: Sequence[Unsaved]) -> set[Unsaved]:
    """Those that an unclear commit has kept, with the numbers that it has given them."""
    there: set[Unsaved] = set()
    for one in unsaved:
        if one.failures and one.keep:
            params = {"thread_id": one.log.thread_id, "id": one.entry.id}
            row = await transaction.fetch_one(queries.KEPT, params)
            if row is not None:
                one.entry.seq = row["seq"]
                there.add(one)
    return there


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
