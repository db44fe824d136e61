"""How long kept events are kept, and what those are told who come too late for them.

Events go by age, all of a run once it has ended long enough ago; and by size, the oldest of a
thread that has too many, even of a run that goes on. Either way they go from the oldest on, and
``trimmed_events`` says how far, in the same transaction: a replay has no gap that it doesn't
know of.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from treadle.clock import SECOND_US
from treadle.database import Database, Row, Transaction
from treadle.database.pieces import PIECE_ROWS, Piece, in_pieces
from treadle.errors import Gone
from treadle.streaming import queries
from treadle.streaming.entries import COUNTER_BITS, LAST_ID, Entry, id_text
from treadle.streaming.log import EventHub

SHORTEST_SWEEP_SECONDS = 1
LONGEST_SWEEP_SECONDS = 30

ROW_BYTES = 200
"""What an event takes in the database beside its data."""

_ALL_RUNS = ""
_SENT = "event"
"""The kind of the entries that a run's own stream sends; a thread's stream sends others too."""


class EventsTrimmed(Gone):
    """The events that a client wants to go on with are no longer kept."""


class KeptEvents:
    """The kept events of a hub, for readers who must not miss one without knowing."""

    def __init__(self, hub: EventHub) -> None:
        self._hub = hub
        self._database = hub.database

    async def trimmed_until(self, thread_id: str, run_id: str | None) -> int:
        """The id up to which events were removed: of a run, or of a thread if None; or 0."""
        row = await self._database.read_one(
            queries.TRIMMED_UNTIL, {"thread_id": thread_id, "run_id": run_id or _ALL_RUNS}
        )
        return row["until_id"] if row else 0

    async def check(self, thread_id: str, run_id: str | None, after: int) -> int:
        """What ``trimmed_until`` says; ``EventsTrimmed`` if events after ``after`` are missing.

        With ``after`` 0, a reader wants whatever is there.
        """
        until = await self.trimmed_until(thread_id, run_id)
        if 0 < after < until:
            path = f"/threads/{thread_id}"
            whole = f"the thread's state: GET {path}/state"
            if run_id is not None:
                whole = f"the run's output: GET {path}/runs/{run_id}/join"
            raise EventsTrimmed(
                f"The events after {id_text(after)} are no longer all kept: they were removed up"
                f" to {id_text(until)}. Go on from there (Last-Event-ID: {id_text(until)}), or get"
                f" {whole}"
            )
        return until

    async def replay(
        self, thread_id: str, run_id: str | None, after: int, until: int
    ) -> Sequence[Entry]:
        """A page of entries with ``after < id <= until``, as the hub gives it.

        Raises ``EventsTrimmed`` if some of them were removed before they could be read.
        """
        page = await self._hub.replay(thread_id, run_id, after, until)
        await self.check(thread_id, run_id, after)
        return page


class Retention:
    """Removes kept events: ``ttl_seconds`` after a run's end, and beyond ``max_bytes`` a thread."""

    def __init__(self, database: Database, ttl_seconds: float, max_bytes: int) -> None:
        self._database = database
        self._ttl_us = ttl_seconds * SECOND_US
        self._max_bytes = max_bytes
        self.sweep_seconds = min(
            max(ttl_seconds / 4, SHORTEST_SWEEP_SECONDS), LONGEST_SWEEP_SECONDS
        )
        """How often to sweep."""

    async def sweep(self, now: int) -> int:
        """Remove what is over at ``now``; how many events that were."""
        return await self._sweep_old(now) + await self._sweep_large()

    async def _sweep_old(self, now: int) -> int:
        ended = int(max(now - self._ttl_us, 0))
        until = ended // 1000 << COUNTER_BITS
        swept = 0
        for run in await self._database.scan(queries.OVER, {"ended": ended, "until": until}):
            # What a run appends last is a little younger than its end: all of it goes.
            last = LAST_ID if run["is_known"] else until
            params = {"run_id": run["run_id"], "thread_id": run["thread_id"], "until": last}
            swept += await self._remove(queries.OLDEST_OF_RUN, params)
        return swept

    async def _sweep_large(self) -> int:
        limits = {"row_bytes": ROW_BYTES, "max_bytes": self._max_bytes}
        swept = 0
        for thread in await self._database.scan(queries.TOO_LARGE, limits):
            params = {"thread_id": thread["thread_id"]}
            (cut,) = await self._database.scan(queries.CUT, {**params, **limits})
            params["until"] = cut["id"] or 0
            swept += await self._remove(queries.OLDEST_OF_THREAD, params)
        return swept

    async def _remove(self, oldest: str, params: dict[str, Any]) -> int:
        """Remove what ``oldest`` selects, in pieces; how many events that were."""

        async def remove(transaction: Transaction, piece: Piece) -> bool:
            rows = await transaction.fetch_all(oldest, {**params, "limit": PIECE_ROWS})
            removed: list[Row] = []
            for row in rows:
                if piece.spent:
                    break
                await transaction.send(
                    queries.DELETE_EVENT, {"thread_id": row["thread_id"], "id": row["id"]}
                )
                piece.step()
                removed.append(row)
            await _mark_trimmed(transaction, removed)
            return len(removed) == len(rows) < PIECE_ROWS

        return await in_pieces(self._database, remove)


async def _mark_trimmed(transaction: Transaction, removed: Sequence[Row]) -> None:
    """Write down how far events were removed, of their threads and of their runs."""
    until: dict[tuple[str, str], tuple[int, int]] = {}
    for row in removed:
        place = row["thread_id"], _ALL_RUNS
        until[place] = row["id"], max(row["seq"], until.get(place, (0, 0))[1])
        if row["kind"] == _SENT:
            until[row["thread_id"], row["run_id"]] = row["id"], 0
    marks = [
        {"thread_id": thread_id, "run_id": run_id, "until_id": id, "until_seq": seq}
        for (thread_id, run_id), (id, seq) in until.items()
    ]
    await transaction.execute_many(queries.MARK_TRIMMED, marks)
