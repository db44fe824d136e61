"""Bodies and queries: what is taken, and what the refusals say."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
import pytest
from msgspec import UNSET, UnsetType

from treadle.auth import ANYONE
from treadle.errors import Invalid, Refused
from treadle.http.query import parse_query
from treadle.http.request import Request
from treadle.http.validation import INVALID_JSON, body_decoder


class Inner(msgspec.Struct):
    depth: int | UnsetType = UNSET


class Wanted(msgspec.Struct):
    limit: Annotated[int, msgspec.Meta(ge=1, le=1000)] | UnsetType = UNSET
    mode: Literal["a", "b"] = "a"
    order: Literal["up", "down", "across"] = "up"
    several: list[Literal["z", "y", "x"]] = []
    number: Annotated[float, msgspec.Meta(gt=0)] | None = None
    inner: Inner | UnsetType = UNSET
    nullable: str | None = None
    anything: Any = None


decode = body_decoder(Wanted)


def nested(levels: int) -> bytes:
    return b'{"anything":' + b"[" * levels + b"]" * levels + b"}"


@pytest.mark.parametrize(
    "raw",
    [
        b"", b"nonsense", b"{bad", b'{"limit": 1,}', b"{}x", b"\xef\xbb\xbf{}",
        b'{"anything": NaN}', b'{"anything": Infinity}', b'{"anything": 1e400}',
        b'{"anything": "\\ud800"}', b'{"anything": "\xff"}', b'{"unknown": "\xff"}',
        b'{"anything": "\x00"}', nested(1001), nested(100_000), b"[" * 300,
        b'{"anything":' + b"1" * 5000 + b"}",
    ],
    ids=lambda raw: repr(raw[:30]),
)  # fmt: skip
def test_what_is_no_strict_json(raw):
    with pytest.raises(Invalid, match=INVALID_JSON):
        decode(raw)


@pytest.mark.parametrize("levels", [251, 300, 900])
def test_deep_nesting_is_refused(levels):
    with pytest.raises(Refused, match="Recursion limit reached"):
        decode(nested(levels))


def test_deep_nesting_is_not_hidden_by_brackets_in_text():
    with pytest.raises(Refused):
        decode(b'{"anything":' + b'["]",' * 300 + b"1" + b"]" * 300 + b"}")


@pytest.mark.parametrize(
    "raw",
    [
        nested(200),
        b'{"anything": "' + b"[" * 2000 + b'"}',
        b'{"anything": [' + b"[]," * 999 + b"1]}",
    ],
    ids=["200 levels", "brackets in a text", "many lists"],
)
def test_what_only_looks_deep_is_taken(raw):
    assert decode(raw).anything


def test_whole_floats_are_integers_at_any_depth():
    found = decode(b'{"limit": 5.0, "inner": {"depth": 3.0}}')
    assert (found.limit, found.inner.depth) == (5, 3)
    assert type(found.limit) is int


@pytest.mark.parametrize(
    ("raw", "part"),
    [
        (b'{"limit": "5"}', '"5" is not of type "integer"'),
        (b'{"limit": true}', 'true is not of type "integer"'),
        (b'{"limit": 5.5}', '5.5 is not of type "integer"'),
        (b'{"limit": null}', 'null is not of type "integer"'),
        (b'{"limit": 0}', "0 is less than the minimum of 1"),
        (b'{"limit": 1001}', "1001 is greater than the maximum of 1000"),
        (b'{"limit": 0}', 'Failed validating "minimum" in schema["properties"]["limit"]'),
        (b'{"limit": 0}', 'On instance["limit"]:\n    0'),
        (b'{"mode": "z"}', '"z" is not one of "a" or "b"'),
        (b'{"inner": {"depth": "x"}}', 'On instance["inner"]["depth"]'),
        (b'{"mode": null}', 'null is not of type "string"'),
        (b'{"order": "x"}', '"x" is not one of "up", "down" or "across"'),
        (b'{"order": "x"}', 'Failed validating "enum" in schema["properties"]["order"]'),
        (b'{"several": ["v"]}', '"v" is not one of "z", "y" or "x"'),
        (b'{"number": "5"}', '"5" is not of types "null", "number"'),
        (b'{"number": 0}', "0 is less than or equal to the minimum of 0"),
        (b'{"inner": 5}', 'Failed validating "type" in schema["properties"]["inner"]'),
        (b"[]", '[] is not of type "object"\n\nFailed validating "type" in schema\n\nOn instance'),
        (b"null", 'null is not of type "object"'),
        (b'{"nullable": 5}', "nullable"),
    ],
    ids=str,
)
def test_refusals_say_what_is_wrong_and_where(raw, part):
    with pytest.raises(Invalid) as caught:
        decode(raw)
    assert part in str(caught.value)


def test_refusal_of_something_large_is_short():
    with pytest.raises(Invalid) as caught:
        decode(b'{"limit": "' + b"x" * 100_000 + b'"}')
    assert len(str(caught.value)) < 5000
    assert '["limit"]' in str(caught.value)


def test_unknown_fields_are_ignored():
    assert decode(b'{"other": 1}') == Wanted()


def test_nul_becomes_the_replacement_character():
    found = decode(rb'{"anything": "a\u0000\u0000b", "nullable": "\\u0000\\\u0000"}')
    assert found.anything == "a\ufffd\ufffdb"
    assert found.nullable == "\\u0000\\\ufffd"


@pytest.mark.parametrize("number", [2**64, -(2**63) - 1, 10**30])
def test_integers_beyond_64_bits_are_refused_by_name(number):
    with pytest.raises(Invalid) as caught:
        decode(b'{"anything": {"deep": [1, %d]}}' % number)
    assert f"anything.deep[1]: the integer {number}" in str(caught.value)


@pytest.mark.parametrize("number", [2**64 - 1, -(2**63), 0.1234567890123456789])
def test_large_numbers_that_fit_are_exact(number):
    assert decode(b'{"anything": %s}' % repr(number).encode()).anything == number


# -- queries --------------------------------------------------------------------------------
class Page(msgspec.Struct):
    limit: Annotated[int, msgspec.Meta(ge=1, le=100)] = 10
    deep: bool = False
    modes: list[Literal["a", "b"]] | None = None
    name: str | None = None


class Needed(msgspec.Struct):
    key: str


def query(kind: type, text: bytes) -> Any:
    return parse_query(kind, Request({"query_string": text}, None, ANYONE, "r"))


def test_query_is_read_by_type():
    assert query(Page, b"") == Page()
    found = query(Page, b"limit=5&deep=TRUE&modes=a,b&modes=a&name=%20x&other=1")
    assert found == Page(5, True, ["a", "b", "a"], " x")


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        (b"limit=x", ["Invalid limit x: ", "an integer from 1 to 100"]),
        (b"limit=0", ["limit", "from 1"]),
        (b"limit=101", ["limit", "to 100"]),
        (b"limit=1_0", ["limit"]),
        (b"limit=" + b"9" * 5000, ["limit"]),
        (b"deep=maybe", ["deep", "true or false"]),
        (b"modes=a,z", ["Invalid modes z: ", "a, b"]),
    ],
    ids=str,
)
def test_query_refusals_name_parameter_value_and_way_out(text, parts):
    with pytest.raises(Invalid) as caught:
        query(Page, text)
    assert all(part in str(caught.value) for part in parts)


def test_missing_parameter_is_named():
    with pytest.raises(Invalid, match="key is required"):
        query(Needed, b"other=1")
