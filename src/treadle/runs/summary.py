"""What a run leaves on its thread's row."""

from __future__ import annotations

from typing import NamedTuple

from langgraph.types import StateSnapshot

from treadle.serialization import dump_text
from treadle.threads.snapshots import snapshot_summary

NO_INTERRUPTS = "{}"


class Summary(NamedTuple):
    """A thread's status, and its values and interrupts as JSON text."""

    status: str
    values: str | None
    interrupts: str

    @property
    def asks(self) -> bool:
        return self.interrupts != NO_INTERRUPTS


def summary_of(snapshot: StateSnapshot) -> Summary:
    """The summary of a thread whose latest state is ``snapshot``."""
    status, values, interrupts = snapshot_summary(snapshot)
    text = None if snapshot.metadata is None else dump_text(values)
    return Summary(status, text, dump_text(interrupts))
