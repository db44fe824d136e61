"""The streams of a run and of a thread, in the v1 protocol."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

from treadle.errors import Invalid
from treadle.http.response import Headers
from treadle.runs.outcome import END, EVENT, GONE_KIND, STATE
from treadle.streaming.entries import Entry, id_text, parse_id_text
from treadle.streaming.log import EventHub, Reader
from treadle.streaming.modes import matches
from treadle.streaming.retention import KeptEvents
from treadle.streaming.sse import EventStream, Pick

THREAD_MODES = ("run_modes", "lifecycle", "state_update")


def last_event_id(text: str | None, from_start: tuple[str, ...]) -> int | None:
    """The id after which a client wants to go on; None for only what comes from now on.

    A text of ``from_start`` means everything. Raises ``Invalid`` for what is no id.
    """
    if not text:
        return None
    if text in from_start:
        return 0
    found = parse_id_text(text)
    if found is None:
        raise Invalid(
            f"Invalid last-event-id: {text!r} must be an event's id"
            " ('{milliseconds}-{counter}'), or '-' for everything"
        )
    return found


def run_stream(
    reader: Reader,
    run_id: str,
    *,
    with_ids: bool,
    headers: Headers,
    modes: frozenset[str] = frozenset(),
    past: AsyncIterator[Entry] | None = None,
    seen_until: int | None = None,
    trimmed_until: int = 0,
    ended: bool = False,
    abandoned: Callable[[], Awaitable[Any]] | None = None,
) -> EventStream:
    """The stream of one run, from where ``reader`` stands to the run's end.

    ``modes`` narrows it (errors are always sent); none lets all events through. ``past`` is sent
    first; a comment says so if it should have begun before ``trimmed_until``. Up to ``seen_until``
    the client has seen everything.
    """

    def pick(entry: Entry) -> bytes | None:
        if entry.run_id != run_id:
            return entry.frame if _is_gone(entry, run_id) else None
        if entry.kind not in (EVENT, GONE_KIND):
            return None
        if modes and entry.name != "error" and not matches(entry.name, modes):
            return None
        return entry.frame_with_id if with_ids and entry.kind == EVENT else entry.frame

    def is_last(entry: Entry) -> bool:
        return (entry.kind == END and entry.run_id == run_id) or _is_gone(entry, run_id)

    return EventStream(
        reader,
        _unseen(pick, reader, seen_until),
        is_last,
        headers=headers,
        past=None if past is None else _pages(past, pick, trimmed_until),
        ended=ended,
        abandoned=abandoned,
    )


def _unseen(pick: Pick, reader: Reader, seen_until: int | None) -> Pick:
    """Leave out what the client has seen at another process, from which it comes here later."""
    if seen_until is None or seen_until <= reader.start_id:
        return pick
    until = seen_until
    return lambda entry: None if entry.id <= until and entry.kind != GONE_KIND else pick(entry)


def _is_gone(entry: Entry, run_id: str) -> bool:
    return entry.kind == GONE_KIND and entry.run_id in ("", run_id)


def thread_stream(
    reader: Reader,
    modes: frozenset[str],
    past: AsyncIterator[Entry] | None,
    seen_until: int | None = None,
    trimmed_until: int = 0,
) -> EventStream:
    """The stream of a thread: all its runs, until the thread is deleted.

    ``past``, ``seen_until`` and ``trimmed_until`` are as for ``run_stream``.
    """
    runs, lifecycle, updates = (mode in modes for mode in THREAD_MODES)

    def pick(entry: Entry) -> bytes | None:
        if entry.kind == STATE:
            wanted = updates
        elif entry.kind in (EVENT, END):
            wanted = bool(entry.name) and (runs or (lifecycle and entry.name == "metadata"))
        else:
            wanted = False
        return entry.frame_with_id if wanted else None

    def is_last(entry: Entry) -> bool:
        return entry.kind == GONE_KIND and entry.run_id == ""

    pages = None if past is None else _pages(past, pick, trimmed_until)
    return EventStream(reader, _unseen(pick, reader, seen_until), is_last, past=pages)


async def replay(
    kept: KeptEvents | EventHub, thread_id: str, run_id: str | None, after: int, until: int
) -> AsyncIterator[Entry]:
    """Kept entries of a thread, or of one of its runs: ``after < id <= until``, in order."""
    while after < until:
        page = await kept.replay(thread_id, run_id, after, until)
        for entry in page:
            yield entry
        if not page:
            return
        after = page[-1].id


async def _pages(
    entries: AsyncIterator[Entry], pick: Pick, trimmed_until: int
) -> AsyncIterator[bytes]:
    """Frames in chunks of some size, so that a long replay is few writes and little memory."""
    if trimmed_until:
        yield b": events up to %b are no longer kept\r\n\r\n" % id_text(trimmed_until).encode()
    frames: list[bytes] = []
    size = 0
    async for entry in entries:
        frame = pick(entry)
        if frame is not None:
            frames.append(frame)
            size += len(frame)
            if size > 65536:
                yield b"".join(frames)
                frames, size = [], 0
    if frames:
        yield b"".join(frames)
