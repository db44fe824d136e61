"""What an earlier attempt of a run has kept of the run's command."""

from __future__ import annotations

from typing import NamedTuple


class Kept(NamedTuple):
    """``writes``: its updates, and where to go. ``answer``: its answer, or that it was taken."""

    writes: bool
    answer: bool


NOTHING_KEPT = Kept(False, False)
