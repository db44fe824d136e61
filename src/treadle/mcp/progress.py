"""The answer to a call that wants to hear how it goes: server-sent events."""

from __future__ import annotations

from collections.abc import Callable
from itertools import count
from typing import Any

from treadle.mcp.messages import notification_bytes
from treadle.runs.outcome import END, EVENT, GONE_KIND, Outcome
from treadle.serialization import dump_text, loads
from treadle.streaming.entries import Entry
from treadle.streaming.log import Reader
from treadle.streaming.sse import EventStream

LONGEST_MESSAGE = 1000


def progress_stream(
    reader: Reader, run_id: str, token: str | int, finish: Callable[[Outcome | None], bytes]
) -> EventStream:
    """A notification for each step that begins and for all that the graph tells; then the answer.

    Steps are the nodes of the graph; ``finish`` makes the answer from the outcome.
    """
    numbers = count(1)

    def pick(entry: Entry) -> bytes | None:
        if is_last(entry):
            return _frame(finish(entry.payload if entry.kind == END else None))
        message = _told(entry) if entry.run_id == run_id and entry.kind == EVENT else None
        if message is None:
            return None
        told = {"progressToken": token, "progress": next(numbers), "message": message}
        return _frame(notification_bytes("notifications/progress", told))

    def is_last(entry: Entry) -> bool:
        if entry.kind == GONE_KIND:
            return entry.run_id in ("", run_id)
        return entry.kind == END and entry.run_id == run_id

    return EventStream(reader, pick, is_last)


def _told(entry: Entry) -> str | None:
    """The name of a node that begins, or what the graph has written; None for the rest."""
    if entry.name not in ("tasks", "custom"):
        return None
    data: Any = loads(entry.data)
    if entry.name == "tasks":
        return data["name"] if "input" in data else None
    return (data if isinstance(data, str) else dump_text(data))[:LONGEST_MESSAGE]


def _frame(data: bytes) -> bytes:
    return b"event: message\r\ndata: %b\r\n\r\n" % data
