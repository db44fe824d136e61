"""The event stream of a thread over server-sent events."""

from __future__ import annotations

from collections.abc import AsyncIterator

from treadle.streaming.entries import Entry
from treadle.streaming.protocol.channels import Filter
from treadle.streaming.protocol.feed import Feed
from treadle.streaming.sse import EventStream

CHUNK_BYTES = 65_536


def event_stream(feed: Feed, wanted: Filter, since: int) -> EventStream:
    """What ``wanted`` picks of a thread, after ``since``. It ends when the client leaves."""

    def is_last(entry: Entry) -> bool:
        return False

    past = _past(feed, wanted, since)

    def pick(entry: Entry) -> bytes | None:
        is_known = entry.seq is not None and entry.seq <= since and not feed.restarts
        return None if is_known else wanted.frame(entry)

    return EventStream(feed, pick, is_last, past=past)


async def _past(feed: Feed, wanted: Filter, since: int) -> AsyncIterator[bytes]:
    frames: list[bytes] = []
    size = 0
    async for page in feed.past(since, feed.position):
        for entry in page:
            if (frame := wanted.frame(entry)) is not None:
                frames.append(frame)
                size += len(frame)
                if size > CHUNK_BYTES:
                    yield b"".join(frames)
                    frames, size = [], 0
    if frames:
        yield b"".join(frames)
