"""The numbered events of a thread for one connection: what was kept, then what comes."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence

from treadle.errors import Gone
from treadle.serialization import loads
from treadle.streaming import queries
from treadle.streaming.entries import Entry
from treadle.streaming.log import EventHub, Reader
from treadle.streaming.protocol.envelope import ENDS, lifecycle
from treadle.threads.access import not_found

GONE_KIND = "gone"

MaySee = Callable[[], Awaitable[bool]]


class Feed:
    """A place among the numbered events of a thread. Close it when done.

    ``position`` is the number of the last event that ``next`` has passed. ``past`` and ``next``
    fit together: past up to the position, then next, is every event once. ``restarts`` counts
    how often the thread was deleted meanwhile.
    """

    def __init__(
        self,
        hub: EventHub,
        thread_id: str,
        reader: Reader,
        position: int,
        may_see: MaySee | None,
    ) -> None:
        self.position = position
        self.restarts = 0
        self._hub, self._thread_id, self._reader = hub, thread_id, reader
        self._may_see, self._is_seen = may_see, may_see is None or position > 0
        self._begun: Entry | None = None
        self._current = hub.log(thread_id).in_flight

    @classmethod
    async def open(
        cls,
        hub: EventHub,
        thread_id: str,
        may_see: MaySee | None = None,
    ) -> Feed:
        """A feed from now on. What is before its position is durable.

        ``may_see`` says whether the thread that is there now may be seen: it is asked about what
        there is, and about a thread that comes to be later. Raises ``NotFound``.
        """
        reader = await hub.open_reader(thread_id, watches=False, numbered=True)
        try:
            position = await hub.last_seq(thread_id)
            if may_see is not None and position and not await may_see():
                raise not_found(thread_id)
        except BaseException:
            reader.close()
            raise
        return cls(hub, thread_id, reader, position, may_see)

    @property
    def cut_off(self) -> bool:
        return self._reader.cut_off

    def wake(self) -> None:
        self._reader.wake()

    def close(self) -> None:
        self._reader.close()

    # -- what was --------------------------------------------------------------------------

    async def check(self, since: int) -> None:
        """Raise ``Gone`` if events after ``since`` are no longer kept; 0 wants what is there."""
        params = {"thread_id": self._thread_id, "run_id": ""}
        row = await self._hub.database.read_one(queries.TRIMMED_UNTIL, params)
        if row is not None and 0 < since < row["until_seq"]:
            raise Gone(
                f"The events after seq {since} are no longer all kept: they were removed up to"
                f" {row['until_seq']}. Go on from there (since: {row['until_seq']}), or get the"
                f" thread's state: GET /threads/{self._thread_id}/state"
            )

    async def past(self, since: int, until: int) -> AsyncIterator[Sequence[Entry]]:
        """Pages of the kept events with ``since < seq <= until``.

        The beginning of a run that goes on is among them, kept or not.
        """
        current = self._current
        if current is not None and not (current.seq and since < current.seq <= until):
            current = None
        after = since
        while after < until:
            page = await self._hub.replay_numbered(self._thread_id, after, until)
            if not page:
                break
            after = page[-1].seq or until
            if current is not None and (current.seq or 0) < after:
                page = sorted([*page, current], key=lambda entry: entry.seq or 0)
                current = None
            self._follow(page)
            yield page
        if current is not None:
            yield [current]

    # -- what comes ------------------------------------------------------------------------

    async def next(self, timeout: float) -> Sequence[Entry] | None:
        """Events since the last call, as ``Reader.next`` gives them."""
        entries = await self._reader.next(timeout)
        if entries is None:
            return None
        taken: list[Entry] = []
        is_seen = self._is_seen
        for entry in entries:
            if entry.seq is not None:
                if entry.seq > self.position:
                    self.position = entry.seq
                    taken.append(entry)
                    is_seen = is_seen and self._is_seen
            elif entry.kind == GONE_KIND and not entry.run_id:
                taken += self._thread_gone(entry)
        if taken and not is_seen:
            if self._may_see is not None and not await self._may_see():
                return None
            self._is_seen = True
        self._follow(taken)
        return taken

    def _follow(self, entries: Sequence[Entry]) -> None:
        """Keep in mind which run goes on."""
        for entry in entries:
            if entry.name == "lifecycle":
                self._begun = None if entry.label in ENDS else entry

    def _thread_gone(self, entry: Entry) -> list[Entry]:
        """The thread was deleted, and counts from 1 when it is made anew.

        A run that went on there has its end; nothing of it is kept.
        """
        seq, self.position = self.position + 1, 0
        self.restarts += 1
        self._is_seen = False
        if self._begun is None:
            return []
        end = lifecycle("interrupted", loads(self._begun.data)["graph_name"])
        run_id = self._begun.run_id
        return [Entry(entry.id, run_id, end.kind, end.name, end.data, None, seq, end.label)]
