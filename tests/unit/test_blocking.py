"""The watch over the event loop."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
from structlog.testing import capture_logs

from treadle import blocking
from treadle.blocking import LoopWatch


@pytest.fixture
def logged(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Any]]:
    monkeypatch.setattr(blocking, "PATIENCE_SECONDS", 0.1)
    monkeypatch.setattr(blocking, "PAUSE_SECONDS", 0.001)
    with capture_logs() as logged:
        yield logged


async def a_node_that_blocks(logged: list[Any]) -> None:
    """Holds up the loop until somebody has noticed."""
    deadline = time.monotonic() + 5
    while not logged and time.monotonic() < deadline:
        time.sleep(0.001)  # noqa: ASYNC251  it is what a node must not do


async def test_code_that_blocks_is_named_once(logged):
    watch = LoopWatch()
    watch.start()
    await a_node_that_blocks(logged)
    for _ in range(100):
        await asyncio.sleep(0)
    watch.stop()
    [line] = logged
    assert line["log_level"] == "warning"
    assert "the event loop was blocked for more than" in line["event"]
    assert line["file"] == __file__
    assert "a_node_that_blocks" in line["stack"]
    watch._thread.join(5)
    assert not watch._thread.is_alive()


async def test_it_is_the_users_line_that_is_named_and_not_a_librarys(logged):
    watch = LoopWatch()
    watch.start()
    told = threading.Event()
    for _ in range(100):
        told.wait(0.05)
        if logged:
            break
    watch.stop()
    [line] = logged
    assert line["file"] == __file__
    assert "threading.py" in line["stack"]


async def test_a_loop_that_turns_is_left_alone(logged):
    watch = LoopWatch()
    watch.start()
    begun = time.monotonic()
    while time.monotonic() < begun + 0.05:  # noqa: ASYNC110
        await asyncio.sleep(0)
    watch.stop()
    assert logged == []


def test_the_watch_ends_with_its_loop(logged):
    async def main() -> LoopWatch:
        watch = LoopWatch()
        watch.start()
        return watch

    watch = asyncio.run(main())
    watch._thread.join(5)
    assert not watch._thread.is_alive()
    assert logged == []


def test_it_ends_with_a_loop_that_closes_before_its_turn(logged, monkeypatch):
    async def main() -> LoopWatch:
        return LoopWatch()

    watch = asyncio.run(main())
    monkeypatch.setattr(watch._loop, "call_soon_threadsafe", lambda callback: None)
    watch.start()
    watch._thread.join(5)
    assert not watch._thread.is_alive()
    assert logged == []


async def test_the_lag_is_measured_and_a_quiet_watch_says_nothing(logged):
    watch = LoopWatch(quiet=True)
    watch.start()
    time.sleep(0.1)  # noqa: ASYNC251  it is what a node must not do
    [lag] = watch.figures()
    async with asyncio.timeout(5):
        while not lag.value.total:  # noqa: ASYNC110
            await asyncio.sleep(0)
    watch.stop()
    watch._thread.join(5)
    assert lag.value.total > 0.05
    assert logged == []
