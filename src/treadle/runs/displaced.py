"""What a newcomer, a cancel or a delete ends on the threads that it is about."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Self

from treadle.runs.models import CancelAction
from treadle.runs.outcome import Outcome
from treadle.streaming.entries import Entry
from treadle.streaming.log import EventHub, ThreadLog


class Displaced:
    """Runs that a transaction ends, to be told of after its commit.

    Within its context the logs of their threads are held. ``begun`` are the runs that an
    execution ends, ``pending`` those that never began (``never_began`` are their graphs),
    ``ends`` the last events of runs that no execution tells of, ``deleted`` the runs that are
    no more.
    """

    def __init__(self, events: EventHub, thread_ids: Iterable[str]) -> None:
        self.begun: list[tuple[str, CancelAction]] = []
        self.pending: list[tuple[str, str, Outcome]] = []
        self.ends: list[tuple[str, Entry]] = []
        self.deleted: list[str] = []
        self.never_began: list[str] = []
        self.logs: dict[str, ThreadLog] = {}
        self._events, self._thread_ids = events, thread_ids

    def __enter__(self) -> Self:
        for thread_id in self._thread_ids:
            log = self.logs[thread_id] = self._events.log(thread_id)
            log.hold()
        return self

    def __exit__(self, *_: object) -> None:
        for log in self.logs.values():
            log.release()

    def forget(self) -> None:
        """The transaction begins, perhaps again."""
        self.begun.clear()
        self.pending.clear()
        self.ends.clear()
        self.deleted.clear()
        self.never_began.clear()
