"""How a run ended, as those who wait for it are told."""

from __future__ import annotations

from typing import Any

import msgspec

from treadle.serialization import dumps

GONE = {"error": "HTTPException", "message": "404: Run not found"}
"""What the waiters and streams of a deleted run are told."""

EVENT, END, GONE_KIND, STATE = "event", "end", "gone", "state"
"""Kinds of entries: an event of a run; its end; a run or thread deleted; a state update."""


class Outcome:
    """The end of a run: its status, and its output or its error.

    ``output`` is the last value that the run streamed; None if it had none.
    """

    __slots__ = ("_json", "error", "output", "status")

    def __init__(
        self, status: str, output: Any = None, error: dict[str, str] | None = None
    ) -> None:
        self.status, self.output, self.error = status, output, error
        self._json: bytes | None = None

    def pack(self) -> bytes:
        """The outcome for another process, which ``unpack``s it."""
        return msgspec.msgpack.encode((self.status, self.json(), self.error))

    @classmethod
    def unpack(cls, data: bytes) -> Outcome:
        status, json, error = msgspec.msgpack.decode(data)
        return cls.told(status, json, error)

    @classmethod
    def told(cls, status: str, json: bytes, error: dict[str, str] | None = None) -> Outcome:
        """An outcome of which only the JSON is known."""
        outcome = cls(status, None, error)
        outcome._json = json
        return outcome

    def json(self) -> bytes:
        """The body of ``wait`` and ``join``: the output, or ``{"__error__": ...}``."""
        if self._json is None:
            failed = self.error is not None and self.status == "error"
            shown = {"__error__": self.error} if failed else self.output
            self._json = dumps({} if shown is None else shown)
        return self._json


def output_json(outcome: Outcome | None) -> bytes:
    """The body of ``wait`` and ``join``; None is the outcome of a run that was deleted."""
    return dumps({"__error__": GONE}) if outcome is None else outcome.json()
