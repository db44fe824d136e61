"""What a subscriber gets, found out without decoding anything."""

from __future__ import annotations

from typing import Any

import pytest

from treadle.errors import Refused
from treadle.streaming.entries import Entry
from treadle.streaming.protocol.channels import Filter, natural, read_filter
from treadle.streaming.protocol.envelope import envelope_of

NO_JSON = b"\xff no json"


def entry(name: str, label: str = "", seq: int | None = 3, params: bytes = b"") -> Entry:
    return Entry(7 << 20, "run", "protocol", name, NO_JSON, None, seq, label, params)


def wants(filter: Filter, one: Entry) -> bool:
    return filter.wants(one, envelope_of(one))


@pytest.mark.parametrize(
    ("channels", "name", "label", "wanted"),
    [
        (["values"], "values", "", True),
        (["values"], "values|a:1", "", True),
        (["values"], "updates", "", False),
        (["input"], "input.requested", "id", True),
        (["custom"], "custom", "progress", True),
        (["custom:progress"], "custom", "progress", True),
        (["custom:progress"], "custom", "", False),
        (["custom:progress"], "lifecycle", "progress", False),
        (["custom:values"], "values", "", False),
        (["checkpoints"], "values", "", False),
    ],
)
def test_channels(channels, name, label, wanted):
    assert wants(read_filter({"channels": channels}), entry(name, label)) is wanted


@pytest.mark.parametrize(
    ("namespaces", "depth", "name", "wanted"),
    [
        ([], None, "values|a:1|b:2", True),
        ([], 0, "values|a:1|b:2", True),
        ([[]], None, "values|a:1|b:2", True),
        ([[]], 1, "values|a:1|b:2", False),
        ([[]], 2, "values|a:1|b:2", True),
        ([["a"]], None, "values|a:1|b:2", True),
        ([["a"]], 0, "values|a:1|b:2", False),
        ([["a"]], 0, "values|a:1", True),
        ([["a:1"]], None, "values|a:1|b:2", True),
        ([["a:2"]], None, "values|a:1|b:2", False),
        ([["a", "b"]], None, "values|a:1|b:2", True),
        ([["a", "c"], ["x"]], None, "values|a:1|b:2", False),
        ([["x"], ["a"]], 1, "values|a:1|b:2", True),
        ([["out"]], None, "values|outer:1", False),
        ([["a"]], None, "values", False),
    ],
)
def test_namespaces(namespaces, depth, name, wanted):
    found = read_filter({"channels": ["values"], "namespaces": namespaces, "depth": depth})
    assert wants(found, entry(name)) is wanted


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("depth", -1),
        ("depth", "1"),
        ("depth", True),
        ("depth", 1.5),
        ("namespaces", "a"),
        ("namespaces", ["a"]),
        ("namespaces", [[1]]),
        ("namespaces", {}),
        ("channels", None),
        ("channels", []),
        ("channels", "values"),
        ("channels", ["debug"]),
        ("channels", ["custom:"]),
        ("channels", ["input.requested"]),
        ("channels", [5, {}]),
    ],
)
def test_what_is_wrong_is_refused_by_name(field: str, value: Any):
    with pytest.raises(Refused, match=field):
        read_filter({"channels": ["values"], field: value})


def test_since_is_a_natural_number_that_the_database_can_hold():
    assert natural({}, "since") is None
    assert natural({"since": 0}, "since") == 0
    assert natural({"since": 2**64 - 1}, "since") == 2**62
    for wrong in (-1, "3", False, [1]):
        with pytest.raises(Refused, match="since"):
            natural({"since": wrong}, "since")


def test_what_has_no_number_is_for_nobody():
    assert Filter(["values"]).frame(entry("values", seq=None)) is None


def test_a_checkpoint_comes_right_before_its_values():
    one = entry("values|a:1", params=b'"checkpoint":{"id":"c"}')
    both = Filter(["values", "checkpoints"]).frame(one)
    alone = Filter(["checkpoints"]).frame(one)
    assert both == (alone or b"") + (Filter(["values"]).frame(one) or b"")
    assert b'"data":{"id":"c"}' in (alone or b"")
    assert Filter(["checkpoints"], [["b"]]).frame(one) is None
