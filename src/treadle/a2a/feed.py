"""The events of a task, made of those of its run."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any

from treadle.a2a.errors import RpcError
from treadle.a2a.messages import message_json, role_of, text_in
from treadle.clock import iso, now_us
from treadle.runs.outcome import END, EVENT, GONE_KIND
from treadle.serialization import loads
from treadle.streaming.entries import Entry
from treadle.streaming.sse import EventStream, Source

Json = dict[str, Any]
Last = Callable[[], Awaitable[Sequence[Json]]]
Say = Callable[[Json], bytes]
Deny = Callable[[RpcError], bytes]


class Speech:
    """What the agent has said so far: each message by its id, as its tokens come."""

    def __init__(self, run_id: str, task_id: str, context_id: str) -> None:
        self.run_id, self.task_id, self.context_id = run_id, task_id, context_id
        self._said: dict[str, str] = {}

    def hear(self, entry: Entry) -> Json | None:
        """The status update that an event of a run comes to, if it is something said."""
        if entry.run_id != self.run_id or entry.kind != EVENT:
            return None
        if entry.name.partition("|")[0] != "messages":
            return None
        message: Json = loads(entry.data)[0]
        text = text_in(message)
        if role_of(message) != "agent" or not text:
            return None
        message_id = str(message.get("id") or self.run_id)
        if message["type"] == "AIMessageChunk":
            text = self._said.get(message_id, "") + text
        self._said[message_id] = text
        return self._update(message_id, text)

    def _update(self, message_id: str, text: str) -> Json:
        parts = [{"kind": "text", "text": text}]
        said = message_json("agent", parts, message_id, self.task_id, self.context_id)
        return {
            "kind": "status-update",
            "taskId": self.task_id,
            "contextId": self.context_id,
            "status": {"state": "working", "message": said, "timestamp": iso(now_us())},
            "final": False,
        }


class TaskFeed:
    """Reads a run's events as those of its task: a ``Source`` too.

    ``last`` gives the task's last events, once all of it is settled.
    """

    def __init__(self, reader: Source, speech: Speech, say: Say, deny: Deny, last: Last) -> None:
        self._reader, self._run_id, self._speech = reader, speech.run_id, speech
        self._say, self._deny, self._last = say, deny, last

    @property
    def cut_off(self) -> bool:
        return self._reader.cut_off

    def wake(self) -> None:
        self._reader.wake()

    def close(self) -> None:
        self._reader.close()

    async def next(self, timeout: float) -> Sequence[Entry] | None:
        entries = await self._reader.next(timeout)
        if entries is None:
            return None
        told: list[Entry] = []
        for entry in entries:
            if (update := self._speech.hear(entry)) is not None:
                told.append(self._entry(self._say(update)))
            elif self._is_end(entry):
                return [*told, *await self._end()]
        return told

    def _is_end(self, entry: Entry) -> bool:
        if entry.kind == GONE_KIND:
            return entry.run_id in ("", self._run_id)
        return entry.kind == END and entry.run_id == self._run_id

    async def _end(self) -> list[Entry]:
        try:
            told = [self._entry(self._say(event)) for event in await self._last()]
        except RpcError as error:
            told = [self._entry(self._deny(error))]
        return [*told, Entry(0, self._run_id, END, "", b"")]

    def _entry(self, data: bytes) -> Entry:
        return Entry(0, self._run_id, EVENT, "message", data)


def task_stream(feed: TaskFeed, first: Sequence[bytes], ended: bool = False) -> EventStream:
    """A stream that begins with ``first``, and goes on with ``feed`` unless it has ``ended``."""

    async def past() -> AsyncIterator[bytes]:
        yield b"".join(Entry(0, "", EVENT, "message", data).frame for data in first)

    return EventStream(
        feed,
        lambda entry: entry.frame if entry.kind == EVENT else None,
        lambda entry: entry.kind == END,
        past=past(),
        ended=ended,
    )
