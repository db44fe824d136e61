"""The clock of all sweeps, in a time that passes at once."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "streaming"))  # for streaming_time.py

from streaming_time import run_fast

from treadle.clock import now_us
from treadle.sweeping import Sweep, Sweeper


class Swept:
    """A sweep that notes when it was done, in seconds of the loop's time."""

    def __init__(self, every_seconds: float = 60, error: Exception | None = None) -> None:
        self.at: list[float] = []
        self.nows: list[int] = []
        self.sweep = Sweep("things", every_seconds, self._sweep)
        self._error = error

    async def _sweep(self, now: int) -> int:
        self.at.append(asyncio.get_running_loop().time())
        self.nows.append(now)
        if self._error is not None:
            raise self._error
        return len(self.at)


def swept_for(seconds: float, *sweeps: Swept) -> None:
    async def main() -> None:
        sweeper = Sweeper([swept.sweep for swept in sweeps])
        sweeper.start()
        await asyncio.sleep(seconds)
        await sweeper.stop()
        await asyncio.sleep(1000)

    run_fast(main())


def test_it_sweeps_at_once_and_then_by_the_clock():
    often, seldom = Swept(60), Swept(100)
    before = now_us()
    swept_for(190, often, seldom)
    assert often.at == pytest.approx([0, 60, 120, 180])
    assert seldom.at == pytest.approx([0, 100])
    assert before <= often.nows[0] <= now_us()


def test_a_sweep_that_fails_is_tried_again_and_stops_no_other():
    failing, other = Swept(60, RuntimeError("no")), Swept(60)
    swept_for(70, failing, other)
    assert len(failing.at) == len(other.at) == 2


def test_it_stops_in_the_middle_of_a_sweep():
    async def never(now: int) -> int:
        return await asyncio.get_running_loop().create_future()

    async def main() -> Any:
        sweeper = Sweeper([Sweep("things", 60, never)])
        sweeper.start()
        await asyncio.sleep(1)
        await sweeper.stop()

    run_fast(main())


def test_stopping_without_a_start_is_harmless():
    run_fast(Sweeper([]).stop())


async def test_it_stops_though_a_sweep_swallows_that_it_is_cancelled():
    begun = asyncio.Event()

    async def sweep(now: int) -> int:
        begun.set()
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.Event().wait()
        return 0

    sweeper = Sweeper([Sweep("things", 1000, sweep)])
    sweeper.start()
    await begun.wait()
    async with asyncio.timeout(5):
        await sweeper.stop()
