"""Looking for what is due without polling: asleep until then, or until woken."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable

import structlog

logger = structlog.get_logger("treadle.lookout")


class Lookout:
    """Calls ``look`` when started, when woken, and when as much time has passed as it said.

    ``look`` begins what is due, and returns in how many seconds more will be; None if only a wake
    tells. One that fails is repeated after ``stumble_seconds``.
    """

    def __init__(
        self, name: str, look: Callable[[], Awaitable[float | None]], stumble_seconds: float
    ) -> None:
        self._name, self._look, self._stumble_seconds = name, look, stumble_seconds
        self._woken = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin on the running event loop."""
        self._task = asyncio.create_task(self._watch(), name=self._name)

    async def stop(self) -> None:
        """Look no more. Harmless when repeated."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
            self._task = None

    def wake(self) -> None:
        """Look now, once more if it is just being done."""
        self._woken.set()

    async def _watch(self) -> None:
        while True:
            self._woken.clear()
            try:
                seconds = await self._look()
            except Exception as error:
                logger.error(f"{self._name} could not be read", exc_info=error)
                seconds = self._stumble_seconds
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await self._woken.wait()
