"""What the row of a run tells every process: whose the run is, and whether its events are kept."""

from __future__ import annotations

import os
import socket

from treadle.serialization import loads


def owner_of(process: str, number: int) -> str:
    """What this process goes by in the rows of its runs, under its lease of this number."""
    return f"{socket.gethostname()}:{os.getpid()}:{process}.{number}"


def process_of(owner: str | None) -> str | None:
    """The name of the process that goes by ``owner``."""
    return None if owner is None else owner.rpartition(":")[2].partition(".")[0]


def is_kept(kwargs: str) -> bool:
    """Whether the events of a run with these ``kwargs`` (JSON text) are kept."""
    return loads(kwargs)["resumable"]
