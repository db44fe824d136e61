"""Logs: one line per entry on stderr, for people or as JSON.

Treadle's own modules log by ``structlog.get_logger("treadle.room")``; what users' code and
libraries log by the standard ``logging`` comes out in the same form, and so do warnings and
exceptions that nobody caught. Each line has the ids of its request or run (``log_context``), and
no secrets (``scrubbing``); in lines for people nothing that was sent can begin a line of its own.
``import structlog`` costs a quarter of a second, so the commands import this module only when they
are about to serve.
"""

from __future__ import annotations

import io
import json
import logging
import os
import re
import sys
import threading
from collections.abc import Callable
from functools import lru_cache
from typing import Any, TextIO, cast

import orjson

# structlog would import rich, if it is there, for tracebacks that are not used here: a tenth of
# the time that a server takes to start.
_rich = sys.modules.get("rich")
sys.modules["rich"] = None  # pyright: ignore[reportArgumentType]
import structlog  # noqa: E402
from structlog.typing import EventDict, ExcInfo, Processor, WrappedLogger  # noqa: E402

sys.modules.pop("rich")
if _rich is not None:
    sys.modules["rich"] = _rich

from treadle.log_context import CLEAN, log_fields  # noqa: E402
from treadle.scrubbing import HIDDEN, SECRET_NAME, scrubber  # noqa: E402
from treadle.settings import Settings  # noqa: E402

CHATTY = ("httpx", "httpcore", "uvicorn.error", "watchfiles", "aiosqlite", "asyncio")
"""Libraries whose INFO is of no interest to those who run a server; DEBUG brings it back."""

_UNPRINTABLE = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u200e\u200f\u202a-\u202e\u2066-\u2069]"
)
"""What would move a terminal's cursor, or change what is shown around it."""

_lock = threading.Lock()


class Sink:
    """Where a named logger's finished lines go: stderr, one write for each."""

    __slots__ = ("name",)

    def __init__(self, name: str = "treadle") -> None:
        self.name = name

    def msg(self, line: str) -> None:
        with _lock:
            sys.stderr.write(f"{line}\n")
            sys.stderr.flush()

    debug = info = warning = error = critical = msg


def configure(settings: Settings) -> Any:
    """Set up structlog and ``logging`` for this process; the logger of the server itself."""
    level = logging.getLevelNamesMapping()[settings.log_level]
    stamp = {"fmt": "iso"} if settings.log_json else {"fmt": "%H:%M:%S", "utc": False}
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        _add_context,
        structlog.processors.TimeStamper(**cast("Any", stamp)),
    ]
    rendering = _json() if settings.log_json else _console(settings.log_color)
    rendering = _finish(rendering, scrubber(os.environ))
    structlog.configure(
        processors=[*shared, rendering],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=cast("Callable[..., WrappedLogger]", Sink),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler()
    remove_meta = structlog.stdlib.ProcessorFormatter.remove_processors_meta
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared, processors=[remove_meta, rendering]
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    for name in CHATTY:
        quiet = logging.getLogger(name)
        quiet.setLevel(logging.NOTSET if level <= logging.DEBUG else logging.WARNING)
    logging.captureWarnings(True)
    log = structlog.get_logger("treadle")
    _log_uncaught(log)
    return log


def _log_uncaught(log: Any) -> None:
    """Let what would be printed as a bare traceback be a line like all others."""

    def uncaught(kind: type[BaseException], error: BaseException, trace: Any) -> None:
        if not issubclass(kind, KeyboardInterrupt):
            log.critical("uncaught exception", exc_info=(kind, error, trace))

    def in_thread(args: threading.ExceptHookArgs) -> None:
        if args.exc_value is not None and not isinstance(args.exc_value, SystemExit):
            name = args.thread.name if args.thread else None
            log.error("uncaught exception in a thread", thread=name, exc_info=args.exc_value)

    sys.excepthook = uncaught
    threading.excepthook = in_thread


def _add_context(logger: WrappedLogger, _: str, event: EventDict) -> EventDict:
    for name, value in log_fields().items():
        if name not in event:
            event[name] = value
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
        colors=colors, exception_formatter=_traceback, pad_event_to=24
    )
    return [_make_printable, renderer]


def _traceback(out: TextIO, error: ExcInfo) -> None:
    text = io.StringIO()
    structlog.dev.plain_traceback(text, error)
    out.write(_printable(text.getvalue()))


def _make_printable(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
    for name, value in event.items():
        if isinstance(value, str):
            event[name] = _printable(value)
    return event


def _printable(text: str) -> str:
    """Without control characters; what is not its first line stands further in."""
    if not text.isprintable():
        text = _UNPRINTABLE.sub(lambda found: repr(found[0])[1:-1], text).replace("\n", "\n  ")
    return text


@lru_cache(1024)
def _secret_names(names: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(name for name in names if SECRET_NAME.search(name))


def _finish(rendering: list[Processor], scrub: Callable[[str], str]) -> Processor:
    """The last step of every line: it becomes text, without secrets."""

    def finish(logger: WrappedLogger, method: str, event: EventDict) -> str:
        is_clean = event.pop(CLEAN, False)
        if not is_clean:
            for name in _secret_names(tuple(event)):
                if isinstance(event[name], str | bytes):
                    event[name] = HIDDEN
        line: Any = event
        for render in rendering:
            line = render(logger, method, line)
        text: str = line.decode() if isinstance(line, bytes) else line
        return text if is_clean else scrub(text)

    return finish
