"""A lookout looks when started, when woken, and when it said that it would."""

from __future__ import annotations

import asyncio

from structlog.testing import capture_logs

from treadle.lookout import Lookout


class Looker:
    """Something to be looked through; ``waits`` are what the looks say."""

    def __init__(self, *waits: float | None) -> None:
        self.looks: asyncio.Queue[int] = asyncio.Queue()
        self._waits = list(waits)

    async def look(self) -> float | None:
        self.looks.put_nowait(1)
        wait = self._waits.pop(0) if self._waits else None
        if wait == -1:
            raise OSError("no database")
        return wait

    async def looked(self) -> None:
        async with asyncio.timeout(5):
            await self.looks.get()


async def test_it_looks_when_woken_and_when_it_said():
    looker = Looker(None, 0.001)
    lookout = Lookout("things", looker.look, 60)
    lookout.start()
    await looker.looked()
    lookout.wake()
    await looker.looked()
    await looker.looked()
    await lookout.stop()
    await lookout.stop()
    assert looker.looks.empty()


async def test_a_wake_during_a_look_counts():
    looker = Looker()
    lookout = Lookout("things", looker.look, 60)
    lookout.start()
    await looker.looked()
    for _ in range(3):
        lookout.wake()
    await looker.looked()
    await lookout.stop()


async def test_a_look_that_fails_is_repeated():
    looker = Looker(-1, None)
    lookout = Lookout("things", looker.look, 0.001)
    with capture_logs() as logged:
        lookout.start()
        await looker.looked()
        await looker.looked()
        await lookout.stop()
    assert logged[0]["event"] == "things could not be read"
