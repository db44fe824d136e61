"""Event loops apart from the server's, for graphs that block theirs (BG_JOB_ISOLATED_LOOPS)."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from typing import Any, TypeVar

T = TypeVar("T")


class LoopPool:
    """Threads with an event loop each. A loop serves one run at a time, and is used again."""

    def __init__(self, loop_factory: Callable[[], asyncio.AbstractEventLoop] | None) -> None:
        self._loop_factory = loop_factory or asyncio.new_event_loop
        self._idle: list[asyncio.AbstractEventLoop] = []
        self._threads: dict[asyncio.AbstractEventLoop, threading.Thread] = {}

    def run(self, work: Coroutine[Any, Any, T]) -> Future[T]:
        """Run a coroutine on a loop of its own."""
        loop = self._idle.pop() if self._idle else self._start()
        future = asyncio.run_coroutine_threadsafe(work, loop)
        future.add_done_callback(lambda _: self._idle.append(loop))
        return future

    def _start(self) -> asyncio.AbstractEventLoop:
        loop = self._loop_factory()
        thread = threading.Thread(target=_serve, args=(loop,), name="treadle-graph", daemon=True)
        self._threads[loop] = thread
        thread.start()
        return loop

    def close(self) -> None:
        """End the idle loops; one that is blocked ends with the process."""
        while self._idle:
            loop = self._idle.pop()
            loop.call_soon_threadsafe(loop.stop)
            self._threads.pop(loop).join()


def _serve(loop: asyncio.AbstractEventLoop) -> None:
    try:
        loop.run_forever()
    finally:
        loop.close()


def loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """What makes event loops: uvloop where it is installed; None for asyncio's own."""
    try:
        import uvloop
    except ImportError:
        return None
    return uvloop.new_event_loop
