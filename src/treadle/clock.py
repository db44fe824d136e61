"""Time as Treadle stores it: whole microseconds since the epoch, UTC."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from functools import lru_cache

SECOND_US = 1_000_000
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_start_ns = 0
"""When the monotonic clock was at 0, by the wall clock; the latest time that this seemed so."""


def now_us() -> int:
    """The wall clock in microseconds since the epoch.

    In one process it never goes back: where the wall clock is set back, it goes on from where
    it was, so that what is accepted first stays first and what is due soon stays so.
    """
    global _start_ns
    wall_ns, monotonic_ns = time.time_ns(), time.monotonic_ns()
    if wall_ns - monotonic_ns > _start_ns:
        _start_ns = wall_ns - monotonic_ns
    return (_start_ns + monotonic_ns) // 1000


def iso(us: int) -> str:
    """ISO 8601 with six decimals and ``+00:00``, as every answer shows times."""
    seconds, fraction = divmod(us, SECOND_US)
    return f"{_second(seconds)}.{fraction:06}+00:00"


@lru_cache(maxsize=4096)
def _second(seconds: int) -> str:
    return (_EPOCH + timedelta(seconds=seconds)).strftime("%Y-%m-%dT%H:%M:%S")
