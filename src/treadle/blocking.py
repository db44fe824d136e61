"""A watch over the event loop: it tells of code that blocks it, and where that code stands."""

from __future__ import annotations

import asyncio
import sys
import sysconfig
import threading
import time
import traceback
from types import FrameType
from typing import Any

import structlog

from treadle.figures import Figure
from treadle.histogram import Histogram

logger = structlog.get_logger("treadle.blocking")

PATIENCE_SECONDS = 1.0
PAUSE_SECONDS = 0.5
FRAMES = 6
LAG_BUCKETS_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
_LIBRARIES = tuple({sysconfig.get_path(name) for name in ("stdlib", "purelib", "platlib")})


class LoopWatch:
    """Warns, once for each place, when the running event loop stands still.

    A node that blocks (``time.sleep``, ``requests``, a long computation in ``async def``) holds
    up every other run and request. The lag is measured from a thread outside; after
    ``PATIENCE_SECONDS`` the warning names the file and line, the graph and the node. One that is
    ``quiet`` only measures.
    """

    def __init__(self, *, quiet: bool = False) -> None:
        self._quiet = quiet
        self._lag = Histogram(LAG_BUCKETS_SECONDS)
        self._loop = asyncio.get_running_loop()
        self._thread_id = threading.get_ident()
        self._stopped = threading.Event()
        self._turned = threading.Event()
        self._told: set[tuple[str, int]] = set()
        self._thread = threading.Thread(target=self._watch, name="treadle-watch", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stopped.set()

    def figures(self) -> list[Figure]:
        """What ``/metrics`` shows of it."""
        explained = "How long the event loop let callbacks wait, twice a second (this process)"
        return [Figure("treadle_event_loop_lag_seconds", "histogram", explained, self._lag)]

    def _watch(self) -> None:
        while not self._stopped.wait(PAUSE_SECONDS):
            self._turned.clear()
            asked = time.perf_counter()
            try:
                self._loop.call_soon_threadsafe(self._turned.set)
            except RuntimeError:  # the loop is closed
                return
            if not self._turned.wait(PATIENCE_SECONDS):
                if not self._quiet and not self._loop.is_closed():
                    self._warn()
                while not self._turned.wait(PAUSE_SECONDS):
                    if self._stopped.is_set() or self._loop.is_closed():
                        return
            self._lag.observe(time.perf_counter() - asked)

    def _warn(self) -> None:
        frame = sys._current_frames().get(self._thread_id)  # pyright: ignore[reportPrivateUsage]
        if frame is None:
            return
        own = users_frame(frame)
        place = (own.f_code.co_filename, own.f_lineno)
        if place in self._told:
            return
        self._told.add(place)
        graph, node = running_node(frame)
        logger.warning(
            f"the event loop was blocked for more than {PATIENCE_SECONDS:g} s: use async calls,"
            " asyncio.to_thread, a plain def node, or BG_JOB_ISOLATED_LOOPS=true"
            " (--allow-blocking silences this)",
            file=place[0],
            line=place[1],
            graph=graph,
            node=node,
            stack="".join(traceback.format_list(traceback.extract_stack(frame)[-FRAMES:])),
        )


def users_frame(frame: FrameType) -> FrameType:
    """The innermost frame that is no library's, or ``frame`` itself if all are."""
    found: FrameType | None = frame
    while found is not None and found.f_code.co_filename.startswith(_LIBRARIES):
        found = found.f_back
    return found or frame


def running_node(frame: FrameType | None) -> tuple[str | None, str | None]:
    """The graph and the node on whose behalf a frame runs.

    langgraph calls a node from frames whose local ``config`` names both.
    """
    while frame is not None:
        config: Any = frame.f_locals.get("config")
        metadata: Any = config.get("metadata") if isinstance(config, dict) else None
        if isinstance(metadata, dict) and "langgraph_node" in metadata:
            return metadata.get("graph_id"), metadata["langgraph_node"]
        frame = frame.f_back
    return None, None
