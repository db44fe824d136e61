"""The clock of all sweeps."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass

import structlog

from treadle.clock import now_us

logger = structlog.get_logger("treadle.sweeper")


@dataclass(frozen=True)
class Sweep:
    """Something to be swept: ``sweep(now)`` removes what is over, and says how much it was."""

    name: str
    every_seconds: float
    sweep: Callable[[int], Awaitable[int]]


class Sweeper:
    """Does each sweep when started and then every so often, until stopped.

    Sweeps don't wait for each other, and one that fails is tried again at its next turn.
    """

    def __init__(self, sweeps: Iterable[Sweep]) -> None:
        self._sweeps = tuple(sweeps)
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        """Begin on the running event loop."""
        self._tasks = [
            asyncio.create_task(_forever(sweep), name=f"sweep {sweep.name}")
            for sweep in self._sweeps
        ]

    async def stop(self) -> None:
        """Stop, also in the middle of a sweep: the next one goes on with what is left."""
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)


async def _forever(sweep: Sweep) -> None:
    task = asyncio.current_task()
    assert task is not None
    while True:
        try:
            if removed := await sweep.sweep(now_us()):
                logger.info(f"swept {sweep.name}", removed=removed)
        except Exception as error:
            logger.error(f"{sweep.name} could not be swept", exc_info=error)
        # In Python 3.11 a sweep may swallow that it is cancelled: asyncio.wait_for does, if what
        # it waits for comes at that moment, and the pool of connections stands on it.
        if task.cancelling():
            return
        await asyncio.sleep(sweep.every_seconds)
