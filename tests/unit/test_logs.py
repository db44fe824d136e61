"""Logs: one line per entry, JSON where it is asked for, libraries included."""

import contextvars
import json
import logging
import sys
import threading
import warnings

import pytest
import structlog

from treadle.log_context import LOG_CONTEXT
from treadle.logs import configure
from treadle.settings import Settings


@pytest.fixture(autouse=True)
def restored():
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    hooks = sys.excepthook, threading.excepthook
    yield
    sys.excepthook, threading.excepthook = hooks
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


def test_lines_name_their_request_or_run(capsys):
    log = configure(Settings(log_json=True))

    def lines():
        LOG_CONTEXT.set({"run_id": "r1", "request_id": "q1"})
        structlog.contextvars.bind_contextvars(theirs=1)
        log.info("one", run_id="another")
        logging.getLogger("users").warning("two")

    contextvars.copy_context().run(lines)
    log.info("three")
    one, two, three = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert (one["run_id"], one["request_id"], one["theirs"]) == ("another", "q1", 1)
    assert (two["run_id"], two["request_id"], two["theirs"]) == ("r1", "q1", 1)
    assert "run_id" not in three


@pytest.mark.parametrize("as_json", [True, False])
def test_secrets_do_not_reach_the_log(capsys, monkeypatch, as_json):
    monkeypatch.setenv("OPENAI_API_KEY", "its-hush-value-of-the-environment")
    log = configure(Settings(log_json=as_json, log_color=True))
    log.info("connect", uri="postgresql://me:hush-1@db/x", api_key="hush-2", password="hush-3")
    log.info("sent", headers={"Authorization": "Bearer hush-4", "x-api-key": "hush-5"})
    log.info("sent", headers=[(b"cookie", b"session=hush-6"), ("Set-Cookie", "hush-7; Path=/")])
    log.info("the call was curl -H 'authorization: Basic hush-8' http://x")
    logging.getLogger("users").warning("OPENAI_API_KEY=hush-9 and %s", "token: hush-10")
    log.info("with sk-proj-hushhushhushhush01 and eyJhushhush1.eyJhushhush2.hush")
    log.info("with its-hush-value-of-the-environment in the middle")
    try:
        raise RuntimeError("no access to redis://:hush-11@cache:6379/0")
    except RuntimeError:
        log.exception("lost")
        logging.getLogger("users").exception("lost")
    text = capsys.readouterr().err
    assert "hush" not in text
    assert "postgresql://me:***@db/x" in text
    if as_json:
        assert all(json.loads(line) for line in text.splitlines())


def test_what_is_no_secret_is_left_alone(capsys):
    log = configure(Settings(log_json=True))
    log.info(
        "see http://127.0.0.1:2024/docs",
        max_tokens=5,
        token_count=3,
        key="value",
        usage={"input_tokens": 5, "token": 7},
        path="/store/items",
        said="the bearer of this letter has a key: it is a secret to nobody",
    )
    [line] = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert line["event"] == "see http://127.0.0.1:2024/docs"
    assert (line["max_tokens"], line["token_count"], line["key"]) == (5, 3, "value")
    assert line["usage"] == {"input_tokens": 5, "token": 7}
    assert line["said"].startswith("the bearer of this letter has a key: it")


@pytest.mark.parametrize("color", [True, False])
def test_nothing_that_was_sent_begins_a_line_of_its_own(capsys, color):
    log = configure(Settings(log_color=color))
    evil = "x\n2026-01-01 [info] all is well\r\x1b[2J\x9b1m\u2028\u202e"
    log.info("request", path=evil)
    logging.getLogger("users").warning("got %s", evil)
    try:
        raise ValueError(evil)
    except ValueError:
        log.exception("failed")
        logging.getLogger("users").exception("failed")
    text = capsys.readouterr().err
    assert "\n2026" not in text
    for character in ("\r", "\x1b[2J", "\x9b", "\u2028", "\u202e"):
        assert character not in text


def test_what_nobody_caught_is_a_line_too(capsys):
    configure(Settings(log_json=True))
    thread = threading.Thread(target=lambda: 1 / 0, name="theirs")
    thread.start()
    thread.join()
    try:
        raise ValueError("at the end")
    except ValueError as error:
        sys.excepthook(ValueError, error, error.__traceback__)
    one, two = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert (one["thread"], one["level"]) == ("theirs", "error")
    assert "ZeroDivisionError" in one["exception"]
    assert "at the end" in two["exception"]
