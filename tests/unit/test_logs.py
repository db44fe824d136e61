"""Logs: one line per entry, JSON where it is asked for, libraries included."""

import json
import logging
import warnings

import pytest
import structlog

from treadle.logs import configure
from treadle.settings import Settings


@pytest.fixture(autouse=True)
def restored():
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    logging.captureWarnings(False)
    structlog.reset_defaults()


def test_every_line_is_json(capsys):
    log = configure(Settings(log_json=True))
    log.info("one", n=2**70, odd=object, bad="\ud800")
    structlog.get_logger("treadle.room").bind(a=1).warning("two")
    logging.getLogger("users.module").info("three %s", 3)
    try:
        raise ValueError("boom")
    except ValueError:
        logging.getLogger("users.module").exception("four")
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.warn("five", stacklevel=1)
    lines = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert [line["event"].split()[0] for line in lines[:4]] == ["one", "two", "three", "four"]
    assert [line["logger"] for line in lines] == [
        "treadle",
        "treadle.room",
        "users.module",
        "users.module",
        "py.warnings",
    ]
    assert [line["level"] for line in lines] == ["info", "warning", "info", "error", "warning"]
    assert "ValueError: boom" in lines[3]["exception"]
    assert all("timestamp" in line for line in lines)


def test_the_level_silences_what_is_below(capsys):
    log = configure(Settings(log_json=True, log_level="ERROR"))
    log.info("no")
    logging.getLogger("users.module").warning("no")
    log.error("yes")
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_the_chatter_of_libraries_is_for_debugging(capsys):
    configure(Settings(log_json=True))
    logging.getLogger("httpx").info("no")
    configure(Settings(log_json=True, log_level="DEBUG"))
    logging.getLogger("httpx").info("yes")
    assert [json.loads(line)["event"] for line in capsys.readouterr().err.splitlines()] == ["yes"]


@pytest.mark.parametrize("color", [True, False])
def test_lines_for_people(capsys, color):
    configure(Settings(log_color=color)).info("hello", a=1)
    line = capsys.readouterr().err
    assert "hello" in line
    assert ("\x1b[" in line) is color
