import collections
import dataclasses
import enum
import json
import re
import types
import zoneinfo
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from pathlib import PurePosixPath
from typing import Any, NamedTuple
from uuid import UUID

import msgspec
import pytest
from langchain_core.messages import (
    AIMessage,
    AIMessageChunk,
    HumanMessage,
    RemoveMessage,
    ToolMessage,
)
from langgraph.errors import GraphRecursionError, InvalidUpdateError
from langgraph.types import Command, Interrupt, Send
from pydantic import BaseModel, computed_field, field_serializer

from treadle.errors import NotFound
from treadle.serialization import dump_text, dumps, error_object, fragment, loads


class Color(enum.Enum):
    RED = "red"
    PAIR = (1, 2)


class Word(enum.StrEnum):
    ONE = "one"


@dataclasses.dataclass
class Point:
    x: int
    y: Any


class Pair(NamedTuple):
    left: int
    right: Any


class Person(BaseModel):
    name: str
    more: Any = None

    @computed_field
    @property
    def initial(self) -> str:
        return self.name[0]


class Wire(msgspec.Struct):
    point: Any


class Array:
    def tolist(self):
        return [[1, 2]]


def stable_id(value):
    """The same for each process that collects the tests."""
    return re.sub(r" at 0x[0-9a-f]+", "", repr(value))


class Unreadable:
    def __str__(self):
        raise ValueError


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (datetime(2024, 1, 2, 3, 4, 5, 678, tzinfo=UTC), "2024-01-02T03:04:05.000678+00:00"),
        (datetime(2024, 1, 2, 3, 4, 5), "2024-01-02T03:04:05"),
        (datetime(2024, 7, 1, tzinfo=zoneinfo.ZoneInfo("UTC")), "2024-07-01T00:00:00+00:00"),
        (date(2024, 1, 2), "2024-01-02"),
        (time(3, 4, 5), "03:04:05"),
        (time(3, 4, 5, tzinfo=UTC), "03:04:05+00:00"),
        (timedelta(days=1, seconds=2), 86402.0),
        (Decimal("1.50"), 1.5),
        (Decimal("NaN"), None),
        (UUID(int=1), "00000000-0000-0000-0000-000000000001"),
        (Color.RED, "red"),
        (Color.PAIR, [1, 2]),
        (Word.ONE, "one"),
        ((1, (2,)), [1, [2]]),
        ({1}, [1]),
        (frozenset((1,)), [1]),
        (collections.deque([1, 2]), [1, 2]),
        (b"raw", "cmF3"),
        (bytearray(b"raw"), "cmF3"),
        (memoryview(b"raw"), "cmF3"),
        (Point(1, Point(2, b"hi")), {"x": 1, "y": {"x": 2, "y": "aGk="}}),
        (Pair(1, Color.RED), {"left": 1, "right": "red"}),
        (
            Person(name="Ann", more=Point(1, 2)),
            {"name": "Ann", "more": {"x": 1, "y": 2}, "initial": "A"},
        ),
        (Wire(Point(1, 2)), {"point": {"x": 1, "y": 2}}),
        (types.MappingProxyType({"a": 1}), {"a": 1}),
        ({"a": 1}.keys(), ["a"]),
        (Array(), [[1, 2]]),
        (float("nan"), None),
        ([float("inf"), -float("inf")], [None, None]),
        ({1: "a", None: "b", 2: "c", (1, 2): "d", Color.RED: "e", 1.5: "f"},
         {"1": "a", "2": "c", "null": "b", "(1, 2)": "d", "red": "e", "1.5": "f"}),
        ({date(2024, 1, 2): 1, UUID(int=1): 2},
         {"2024-01-02": 1, "00000000-0000-0000-0000-000000000001": 2}),
        (PurePosixPath("/x/y"), "/x/y"),
        (Unreadable(), "<Unreadable>"),
        (Unreadable, None),
        (ValueError("no"), {"error": "ValueError", "message": "no"}),
    ],
    ids=stable_id,
)  # fmt: skip
def test_python_values(value, expected):
    assert json.loads(dumps(value)) == expected
    assert json.loads(dumps({"in": [value]})) == {"in": [expected]}
    # the same on the slow path, which what orjson refuses sends everything to
    assert json.loads(dumps([2**70, value])) == [2**70, expected]


@pytest.mark.parametrize(
    "number", [0, -1, 2**63, 2**64 - 1, -(2**63), 2**64, -(2**63) - 1, 2**200, 5e-324, 1e100]
)
def test_numbers_come_back_exactly(number):
    assert loads(dumps({"it": [number]})) == {"it": [number]}


def test_an_integer_that_python_would_not_write_is_hexadecimal():
    assert loads(dumps(2**20_000)) == hex(2**20_000)


def test_text_that_is_no_unicode():
    assert dumps("a\ud800b") == b'"a?b"'
    assert dumps({"\ud800": 1}) == b'{"?":1}'
    assert dumps("é😀\u2028") == '"é😀\u2028"'.encode()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("\x00", "\ufffd"),
        ("a\x00\x00b", "a\ufffd\ufffdb"),
        ("\\u0000", "\\u0000"),
        ("\\\x00", "\\\ufffd"),
        ("\\\\\x00\x00", "\\\\\ufffd\ufffd"),
    ],
)
def test_nul_becomes_a_replacement_character(text, expected):
    assert json.loads(dumps([text, {text: 1}])) == [expected, {expected: 1}]


def test_cycles_end_where_they_close():
    one: list[Any] = [1]
    one += [one, one]
    assert loads(dumps(one)) == [1, "<list>", "<list>"]
    point = Point(1, None)
    point.y = [point]
    assert loads(dumps(point)) == {"x": 1, "y": ["<Point>"]}


@pytest.mark.parametrize("depth", [200, 253, 2_000])
def test_deep_values_do_not_fail(depth):
    value: Any = 1
    for _ in range(depth):
        value = [value]
    dumped = dumps(value)
    assert dumped.startswith(b"[" * 200)
    if depth <= 253:
        assert loads(dumped) == value


# messages -----------------------------------------------------------------------------------------
COMMON = {"additional_kwargs": {}, "response_metadata": {}, "name": None}


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        (HumanMessage("x", id="1"), {"content": "x", "type": "human", "id": "1"}),
        (
            AIMessage("x", id="1"),
            {
                "content": "x", "type": "ai", "id": "1",
                "tool_calls": [], "invalid_tool_calls": [], "usage_metadata": None,
            },
        ),
        (
            AIMessageChunk("x", id="1"),
            {
                "content": "x", "type": "AIMessageChunk", "id": "1",
                "tool_calls": [], "invalid_tool_calls": [], "usage_metadata": None,
                "tool_call_chunks": [], "chunk_position": None,
            },
        ),
        (
            ToolMessage("x", id="1", tool_call_id="t", artifact=Point(1, 2)),
            {
                "content": "x", "type": "tool", "id": "1", "tool_call_id": "t",
                "artifact": {"x": 1, "y": 2}, "status": "success",
            },
        ),
        (RemoveMessage("1"), {"content": "", "type": "remove", "id": "1"}),
        (HumanMessage("x", id="1", own=1), {"content": "x", "type": "human", "id": "1", "own": 1}),
    ],
    ids=lambda value: type(value).__name__,
)  # fmt: skip
def test_messages(message, expected):
    assert loads(dumps(message)) == COMMON | expected


def test_a_message_class_with_a_serializer_of_its_own_is_asked():
    class Shouting(HumanMessage):
        @field_serializer("content")
        def shout(self, content):
            return content.upper()

    assert loads(dumps(Shouting("hi")))["content"] == "HI"


def test_langgraph_values():
    assert loads(dumps(Command(update={"a": 1}, goto=[Send("n", {"b": b"1"})]))) == {
        "graph": None, "update": {"a": 1}, "resume": None,
        "goto": [{"node": "n", "arg": {"b": "MQ=="}}],
    }  # fmt: skip
    assert loads(dumps(Interrupt(value=1, id="x"))) == {
        "value": 1, "id": "x", "response_schema": None,
    }  # fmt: skip


# errors -------------------------------------------------------------------------------------------
class Mine(Exception):
    pass


class MineToo(ValueError):
    pass


class Silent(ValueError):
    def __str__(self):
        raise RuntimeError


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (ValueError("x: 文字"), "x: 文字"),
        (KeyError("k"), "'k'"),
        (RuntimeError(), ""),
        (Exception("x"), "x"),
        (MineToo("x"), "x"),
        (GraphRecursionError("x"), "x"),
        (InvalidUpdateError("x"), "x"),
        (NotFound("x"), "x"),
        (Mine("secret"), "An internal error occurred"),
        (Silent(), "<Silent>"),
    ],
)
def test_errors_tell_what_is_anybodys_business(error, message):
    assert error_object(error) == {"error": type(error).__name__, "message": message}


# fragments ----------------------------------------------------------------------------------------
def test_fragments_are_spliced_in():
    text = '{"a": [1,2]}'
    assert dumps([fragment(text), fragment(text.encode()), fragment(None)]) == (
        f"[{text},{text},null]".encode()
    )
    assert loads(dumps([fragment(dump_text({"a": 2**70})), 2**70])) == [{"a": 2**70}, 2**70]
