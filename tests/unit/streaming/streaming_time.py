"""An event loop whose time passes at once: it never waits for a timer."""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


class _Selector(selectors.DefaultSelector):
    skipped_seconds = 0.0

    def select(self, timeout: float | None = None) -> Any:
        """Where the loop would sleep, the clock moves on instead."""
        if timeout is None:
            raise RuntimeError("the loop waits for something that never comes")
        self.skipped_seconds += max(timeout, 0)
        return super().select(0)


class FastLoop(asyncio.SelectorEventLoop):
    """Nothing here may wait for a thread: the loop does not know how long that takes."""

    def __init__(self) -> None:
        self._fast = _Selector()
        super().__init__(self._fast)

    def time(self) -> float:
        return self._fast.skipped_seconds


def run_fast(main: Coroutine[Any, Any, T]) -> T:
    """Run ``main`` to its end in a time of its own."""
    with asyncio.Runner(loop_factory=FastLoop) as runner:
        return runner.run(main)
