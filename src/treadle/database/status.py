"""What ``treadle db status`` shows of a database."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from treadle.clock import SECOND_US, now_us
from treadle.database.maintenance import Maintenance, newest, pending_names, require_treadle

_QUEUE = """
SELECT sum(CASE WHEN status = 'running' THEN 1 ELSE 0 END),
       sum(CASE WHEN status = 'pending' AND created_at <= ? THEN 1 ELSE 0 END),
       sum(CASE WHEN status = 'pending' AND created_at > ? THEN 1 ELSE 0 END),
       min(CASE WHEN status = 'pending' AND created_at <= ? THEN created_at END)
FROM runs WHERE status IN ('pending', 'running')
"""

_WORKERS = "SELECT owner, lease_until FROM workers WHERE lease_until > ? ORDER BY owner"


class Status(NamedTuple):
    """A database at one moment. Times in seconds."""

    version: str
    shown: str
    size_bytes: int
    newest: str
    pending: list[str]
    rows: dict[str, int]
    running: int
    due: int
    later: int
    oldest_due: float | None
    workers: dict[str, float]
    """How long the lease of each goes on."""

    @staticmethod
    def of(place: Maintenance) -> Status:
        """Look at ``place``. Raises ``StartupError`` if it is not a database of this Treadle's."""
        pending = pending_names(place, require_treadle(place))
        tables = place.tables()
        rows = {name: place.ask(f"SELECT count(*) FROM {name}")[0][0] for name in sorted(tables)}
        now = now_us()
        [(running, due, later, oldest)] = (
            place.ask(_QUEUE, [now] * 3) if "runs" in tables else [(0, 0, 0, None)]
        )
        workers = place.ask(_WORKERS, [now]) if "workers" in tables else []
        return Status(
            version=place.version(),
            shown=place.shown,
            size_bytes=place.size_bytes(),
            newest=newest(place.engine),
            pending=pending,
            rows=rows,
            running=int(running or 0),
            due=int(due or 0),
            later=int(later or 0),
            oldest_due=None if oldest is None else (now - oldest) / SECOND_US,
            workers={owner: (until - now) / SECOND_US for owner, until in workers},
        )

    def lines(self) -> Iterator[tuple[str, str]]:
        """Names and values, for people."""
        yield "Engine", self.version
        yield "Place", self.shown
        yield "Size", in_words(self.size_bytes)
        if self.pending:
            yield "Schema", f"to be upgraded (treadle db upgrade): {', '.join(self.pending)}"
        else:
            yield "Schema", f"up to date, at {self.newest}"
        age = "" if self.oldest_due is None else f" (the oldest for {self.oldest_due:.0f} s)"
        yield "Queue", f"{self.due} due{age}, {self.later} for later, {self.running} running"
        alive = [f"{owner} ({seconds:.0f} s)" for owner, seconds in self.workers.items()]
        yield "Workers", f"{len(alive)} alive{': ' if alive else ''}{', '.join(alive)}"
        for number, (name, rows) in enumerate(self.rows.items()):
            yield "" if number else "Rows", f"{name:<20} {rows:>10}"


def in_words(size_bytes: float) -> str:
    """A size for people: 1.5 MiB."""
    for unit in ("bytes", "KiB", "MiB", "GiB"):
        if size_bytes < 1024:
            return f"{size_bytes:.0f} {unit}" if unit == "bytes" else f"{size_bytes:.1f} {unit}"
        size_bytes /= 1024
    return f"{size_bytes:.1f} TiB"
