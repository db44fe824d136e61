"""Logs: one line per entry on stderr, for people or as JSON.

Treadle's own modules log by ``structlog.get_logger("treadle.room")``; what users' code and
libraries log by the standard ``logging`` comes out in the same form. ``import structlog`` costs
a quarter of a second, so the commands import this module only when they are about to serve.
"""

from __future__ import annotations

import json
import logging
import sys
import threading
from collections.abc import Callable
from typing import Any, cast

import orjson

# structlog would import rich, if it is there, for tracebacks that are not used here: a tenth of
# the time that a server takes to start.
_rich = sys.modules.get("rich")
sys.modules["rich"] = None  # pyright: ignore[reportArgumentType]
import structlog  # noqa: E402
from structlog.typing import EventDict, Processor, WrappedLogger  # noqa: E402

sys.modules.pop("rich")
if _rich is not None:
    sys.modules["rich"] = _rich

from treadle.settings import Settings  # noqa: E402

CHATTY = ("httpx", "httpcore", "uvicorn.error", "watchfiles", "aiosqlite", "asyncio")
"""Libraries whose INFO is of no interest to those who run a server; DEBUG brings it back."""

_lock = threading.Lock()


class Sink:
    """Where a named logger's finished lines go: stderr, one write for each."""

    __slots__ = ("name",)

    def __init__(self, name: str = "treadle") -> None:
        self.name = name

    def msg(self, line: str | bytes) -> None:
        text = line if isinstance(line, str) else line.decode()
        with _lock:
            sys.stderr.write(f"{text}\n")
            sys.stderr.flush()

    debug = info = warning = error = critical = msg


def configure(settings: Settings) -> Any:
    """Set up structlog and ``logging`` for this process; the logger of the server itself."""
    level = logging.getLevelNamesMapping()[settings.log_level]
    stamp = {"fmt": "iso"} if settings.log_json else {"fmt": "%H:%M:%S", "utc": False}
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        _add_name,
        structlog.processors.TimeStamper(**cast("Any", stamp)),
    ]
    rendering = _json() if settings.log_json else _console(settings.log_color)
    structlog.configure(
        processors=[*shared, *rendering],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=cast("Callable[..., WrappedLogger]", Sink),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler()
    remove_meta = structlog.stdlib.ProcessorFormatter.remove_processors_meta
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared, processors=[remove_meta, *rendering, _as_text]
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    for name in CHATTY:
        quiet = logging.getLogger(name)
        quiet.setLevel(logging.NOTSET if level <= logging.DEBUG else logging.WARNING)
    logging.captureWarnings(True)
    return structlog.get_logger("treadle")


def _add_name(logger: WrappedLogger, _: str, event: EventDict) -> EventDict:
    record = event.get("_record")
    event["logger"] = getattr(logger, "name", "treadle") if record is None else record.name
    return event


def _json() -> list[Processor]:
    return [structlog.processors.format_exc_info, structlog.processors.JSONRenderer(_dumps)]


def _dumps(event: EventDict, **_: Any) -> bytes:
    try:
        return orjson.dumps(event, default=repr, option=orjson.OPT_NON_STR_KEYS)
    except TypeError:  # a lone surrogate, an integer beyond 64 bits: what only ``json`` takes
        return json.dumps(event, default=repr).encode()


def _console(color: bool | None) -> list[Processor]:
    colors = sys.stderr.isatty() if color is None else color
    renderer = structlog.dev.ConsoleRenderer(
        colors=colors, exception_formatter=structlog.dev.plain_traceback, pad_event_to=24
    )
    return [renderer]


def _as_text(_: WrappedLogger, __: str, rendered: Any) -> str:
    return rendered.decode() if isinstance(rendered, bytes) else rendered
