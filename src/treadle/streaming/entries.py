"""What the event log is made of: entries, and their ids."""

from __future__ import annotations

from typing import Any

COUNTER_BITS = 20
ASIDE_BIT = 1 << (COUNTER_BITS - 1)
"""Set in the ids of what has no place in the order of events; see ``Exchange.aside_id``."""
LAST_ID = 2**63 - 1
ENTRY_BYTES = 400
"""What an entry takes beside its data and the frame that is made of it."""


class Entry:
    """One event of a thread.

    ``seq`` is its number: 0 until it is given, None if it gets none. ``params`` is JSON that
    stands beside ``data``. ``payload`` is for readers in this process, and never kept;
    ``encoded`` is for what readers make of the entry, once for all of them.
    """

    __slots__ = ("_frame", "_frame_with_id", "data", "encoded", "id", "kind", "label", "name",
                 "params", "payload", "run_id", "seq")  # fmt: skip

    def __init__(
        self,
        id: int,
        run_id: str,
        kind: str,
        name: str,
        data: bytes,
        payload: Any = None,
        seq: int | None = None,
        label: str = "",
        params: bytes = b"",
    ) -> None:
        self.id, self.run_id, self.kind, self.name, self.data = id, run_id, kind, name, data
        self.payload = payload
        self.seq, self.label, self.params = seq, label, params
        self.encoded: Any = None
        self._frame: bytes | None = None
        self._frame_with_id: bytes | None = None

    @property
    def size_bytes(self) -> int:
        """What it takes in memory while somebody still has to read it."""
        return ENTRY_BYTES + 2 * len(self.data)

    @property
    def frame(self) -> bytes:
        """The entry as a server-sent event without an id."""
        if self._frame is None:
            self._frame = b"event: %b\r\ndata: %b\r\n\r\n" % (self.name.encode(), self.data)
        return self._frame

    @property
    def frame_with_id(self) -> bytes:
        """The entry as a server-sent event with its id."""
        if self._frame_with_id is None:
            self._frame_with_id = b"event: %b\r\ndata: %b\r\nid: %b\r\n\r\n" % (
                self.name.encode(),
                self.data,
                id_text(self.id).encode(),
            )
        return self._frame_with_id


def id_text(id: int) -> str:
    """An event id as clients see it: ``{unix milliseconds}-{counter}``."""
    return f"{id >> COUNTER_BITS}-{id & ((1 << COUNTER_BITS) - 1)}"


def parse_id_text(text: str) -> int | None:
    """The inverse of ``id_text``; None if ``text`` is no id. The counter may be left out."""
    milliseconds, dash, counter = text.partition("-")
    if not (milliseconds.isascii() and milliseconds.isdigit()) or len(milliseconds) > 13:
        return None
    if dash and not (counter.isascii() and counter.isdigit() and len(counter) <= 7):
        return None
    return (int(milliseconds) << COUNTER_BITS) + min(int(counter or 0), (1 << COUNTER_BITS) - 1)
