"""What travels between processes: pieces of thread's logs, as bytes."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from treadle.streaming.entries import Entry

END, EVENTS, NUMBERED = 1, 2, 4
"""What a process wants of a thread: the ends of runs, their events, those that are numbered."""


class Sent(msgspec.Struct, array_like=True):
    """An entry. ``payload`` is as the runs' room packs it."""

    id: int
    run_id: str
    kind: str
    name: str
    data: bytes
    seq: int | None
    label: str
    params: bytes
    payload: bytes | None


class Chunk(msgspec.Struct, array_like=True):
    """Entries that follow each other on a thread.

    ``after`` is the id of the one before them: who has not heard that has missed something.
    ``kept``: what was missed can be replayed. ``aside``: they have no place in the order of
    events. ``in_flight`` is the beginning of the run that goes on, where it is not kept.
    ``is_end``: the last of a run, which comes another way and may have overtaken the others.
    ``for_executor``: the receiver is to append them to the log, it executes a run there.
    """

    thread_id: str
    after: int
    entries: list[Sent]
    kept: bool = False
    aside: bool = False
    in_flight: Sent | None = None
    for_executor: bool = False
    is_end: bool = False


Batch = list[Chunk]

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Batch).decode


def pack(batch: Batch) -> bytes:
    return _encode(batch)


def unpack(data: bytes) -> Batch:
    return _decode(data)


def wants_of(watches: bool, numbered: bool) -> int:
    return END | (EVENTS if watches else 0) | (NUMBERED if numbered else 0)


def sent(entry: Entry) -> Sent:
    payload = entry.payload
    return Sent(
        entry.id,
        entry.run_id,
        entry.kind,
        entry.name,
        entry.data,
        entry.seq,
        entry.label,
        entry.params,
        None if payload is None else payload.pack(),
    )


def sent_all(entries: Sequence[Entry]) -> list[Sent]:
    return [sent(entry) for entry in entries]
