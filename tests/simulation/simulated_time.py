"""A clock that a test moves, and event loops that a test turns: each stands for one process."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import heapq
import itertools
from collections import deque
from collections.abc import Callable
from typing import Any

FIRST_US = 1_700_000_000_000_000


class Clock:
    """The time of all processes. It has what code takes from the module ``time``."""

    def __init__(self) -> None:
        self.us = FIRST_US

    def time_ns(self) -> int:
        return self.us * 1000

    monotonic_ns = time_ns


class Handle:
    """A callback that waits for its turn or its time."""

    __slots__ = ("args", "callback", "context", "is_cancelled")

    def __init__(
        self,
        callback: Callable[..., Any],
        args: tuple[Any, ...],
        context: contextvars.Context | None,
    ) -> None:
        self.callback, self.args = callback, args
        self.context = contextvars.copy_context() if context is None else context
        self.is_cancelled = False

    def cancel(self) -> None:
        self.is_cancelled = True


class TurnedLoop(asyncio.AbstractEventLoop):
    """An event loop that does nothing by itself; what a thread would do, it does at once.

    ``errors`` are the exceptions that nobody has taken.
    """

    def __init__(self, clock: Clock) -> None:
        self.errors: list[BaseException] = []
        self._tasks: set[asyncio.Task[Any]] = set()
        self._clock = clock
        self._ready: deque[Handle] = deque()
        self._timers: list[tuple[float, int, Handle]] = []
        self._numbers = itertools.count()

    def turn(self, turns: int = 1) -> bool:
        """Run what is ready, ``turns`` times; False once nothing is."""
        ready, timers = self._ready, self._timers
        asyncio._set_running_loop(self)
        try:
            for _ in range(turns):
                now = self.time()
                while timers and timers[0][0] <= now:
                    ready.append(heapq.heappop(timers)[2])
                if not ready:
                    return False
                for _ in range(len(ready)):
                    handle = ready.popleft()
                    if not handle.is_cancelled:
                        handle.context.run(handle.callback, *handle.args)
        finally:
            asyncio._set_running_loop(None)
        return True

    def call_now(self, callback: Callable[..., Any], *args: Any) -> Any:
        """Call ``callback`` as if from a callback of this loop."""
        asyncio._set_running_loop(self)
        try:
            return callback(*args)
        finally:
            asyncio._set_running_loop(None)

    def end(self) -> None:
        """Put an end to all tasks, however they cling to life. What they do now is no matter."""
        while self._tasks:
            for task in list(self._tasks):
                task.cancel()
            with contextlib.suppress(Exception):
                self.turn()

    # -- what asyncio asks of a loop -------------------------------------------------------

    def time(self) -> float:
        return self._clock.us / 1_000_000

    def call_soon(self, callback: Any, *args: Any, context: Any = None) -> Any:
        handle = Handle(callback, args, context)
        self._ready.append(handle)
        return handle

    call_soon_threadsafe = call_soon

    def call_later(self, delay: float, callback: Any, *args: Any, context: Any = None) -> Any:
        return self.call_at(self.time() + delay, callback, *args, context=context)

    def call_at(self, when: float, callback: Any, *args: Any, context: Any = None) -> Any:
        handle = Handle(callback, args, context)
        heapq.heappush(self._timers, (when, next(self._numbers), handle))
        return handle

    def create_future(self) -> asyncio.Future[Any]:
        return asyncio.Future(loop=self)

    def create_task(self, coro: Any, **options: Any) -> asyncio.Task[Any]:
        task = asyncio.Task(coro, loop=self, **options)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def run_in_executor(self, executor: Any, func: Any, *args: Any) -> asyncio.Future[Any]:
        future = self.create_future()
        future.set_result(func(*args))
        return future

    def get_debug(self) -> bool:
        return False

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        self.errors.append(context.get("exception") or RuntimeError(context["message"]))
