"""What each form of filter lets through, on both databases and each kind of column."""

from __future__ import annotations

from typing import Any
from uuid import uuid4

import pytest

from treadle.auth.filters import (
    AllOf,
    AnyOf,
    Contains,
    Equals,
    UnknownFilter,
    condition,
    narrowed,
    parse_filter,
)
from treadle.database import Database, Transaction
from treadle.serialization import dump_text

BIG = 2**63

# metadata, filter, whether it lets it through
TABLE: list[tuple[Any, Any, bool]] = [
    ({}, {}, True),
    ({"k": "a"}, {"k": "a"}, True),
    ({"k": "a", "x": 1}, {"k": "a"}, True),
    ({"k": "a"}, {"k": "A"}, False),
    ({"k": "a"}, {"k": {"$eq": "a"}}, True),
    ({"k": "ab"}, {"k": "a"}, False),
    ({"k": "ä日😀'\"\\"}, {"k": "ä日😀'\"\\"}, True),
    ({"k'\"\\.$[0]": 1}, {"k'\"\\.$[0]": 1}, True),
    ({"k": {"n": "a"}}, {"k.n": "a"}, False),
    ({"k": "x" * 300}, {"k": "x" * 300}, True),
    ({"k": "x" * 301}, {"k": "x" * 300}, False),
    ({"k": ""}, {"k": ""}, True),
    # an entry that is missing never matches
    ({}, {"k": None}, False),
    ({}, {"k": ""}, False),
    ({}, {"k": False}, False),
    ({}, {"k": {"$eq": {}}}, False),
    ({}, {"k": []}, False),
    ({"k": None}, {"k": None}, True),
    ({"k": "null"}, {"k": None}, False),
    ({"k": None}, {"k": ""}, False),
    # types are told apart
    ({"k": 1}, {"k": 1}, True),
    ({"k": 1}, {"k": "1"}, False),
    ({"k": "1"}, {"k": 1}, False),
    ({"k": 1}, {"k": True}, False),
    ({"k": True}, {"k": 1}, False),
    ({"k": 0}, {"k": False}, False),
    ({"k": True}, {"k": True}, True),
    ({"k": "rue"}, {"k": True}, False),
    ({"k": True}, {"k": "rue"}, False),
    ({"k": "rue"}, {"k": "rue"}, True),
    ({"k": "true"}, {"k": True}, False),
    ({"k": False}, {"k": False}, True),
    ({"k": 1.0}, {"k": 1}, True),
    ({"k": 1}, {"k": 1.0}, True),
    ({"k": 1.5}, {"k": 1.5}, True),
    ({"k": BIG}, {"k": BIG}, True),
    ({"k": BIG}, {"k": BIG + 1}, False),
    ({"k": "a\x1ftb"}, {"k": "a\x1ftb"}, True),
    ({"k\x1fta": "b"}, {"k": "a\x1ftb"}, False),
    # lists and objects are equal in full
    ({"k": ["a", "b"]}, {"k": ["a", "b"]}, True),
    ({"k": ["a", "b"]}, {"k": ["b", "a"]}, False),
    ({"k": ["a", "b"]}, {"k": ["a"]}, False),
    ({"k": ["a"]}, {"k": "a"}, False),
    ({"k": "a"}, {"k": ["a"]}, False),
    ({"k": []}, {"k": []}, True),
    ({"k": [1]}, {"k": [True]}, False),
    ({"k": {"x": 1, "y": [2]}}, {"k": {"$eq": {"y": [2], "x": 1}}}, True),
    ({"k": {"x": 1, "y": 2}}, {"k": {"$eq": {"x": 1}}}, False),
    ({"k": {"x": True}}, {"k": {"$eq": {"x": 1}}}, False),
    ({"k": {}}, {"k": {"$eq": {}}}, True),
    ({"k": {"x": 1}}, {"k": {"$eq": {}}}, False),
    ({"k": {"$eq": 1}}, {"k": {"$eq": {"$eq": 1}}}, True),
    # elements of a list
    ({"k": ["a", "b"]}, {"k": {"$contains": "a"}}, True),
    ({"k": ["a", "b"]}, {"k": {"$contains": ["b", "a"]}}, True),
    ({"k": ["a", "b"]}, {"k": {"$contains": ["a", "c"]}}, False),
    ({"k": ["a"]}, {"k": {"$contains": []}}, True),
    ({"k": []}, {"k": {"$contains": []}}, True),
    ({"k": "a"}, {"k": {"$contains": []}}, False),
    ({"k": {}}, {"k": {"$contains": []}}, False),
    ({}, {"k": {"$contains": []}}, False),
    ({"k": "abc"}, {"k": {"$contains": "a"}}, False),
    ({"k": "a"}, {"k": {"$contains": "a"}}, False),
    ({"k": {"a": 1}}, {"k": {"$contains": "a"}}, False),
    ({"k": [["a"]]}, {"k": {"$contains": "a"}}, False),
    ({"k": [1, None, True]}, {"k": {"$contains": [True, None, 1]}}, True),
    ({"k": [1]}, {"k": {"$contains": "1"}}, False),
    ({"k": [True]}, {"k": {"$contains": 1}}, False),
    ({"k": [["a", "b"]]}, {"k": {"$contains": [["a", "b"]]}}, True),
    ({"k": [["a", "b"]]}, {"k": {"$contains": [["a"]]}}, False),
    ({"k": [{"x": 1, "y": 2}]}, {"k": {"$contains": [{"x": 1}]}}, False),
    ({"k": [{"x": 1}, 2]}, {"k": {"$contains": [2, {"x": 1}]}}, True),
    ({"k": "a"}, {"k": {"$contains": [["a"]]}}, False),
    # both operators on one entry, several entries, alternatives
    ({"k": ["a"]}, {"k": {"$eq": ["a"], "$contains": "a"}}, True),
    ({"k": ["a", "b"]}, {"k": {"$eq": ["a"], "$contains": "a"}}, False),
    ({"k": 1, "x": 2}, {"k": 1, "x": 2}, True),
    ({"k": 1, "x": 3}, {"k": 1, "x": 2}, False),
    ({"k": 2}, {"$or": [{"k": 1}, {"k": 2}]}, True),
    ({"k": 3}, {"$or": [{"k": 1}, {"k": 2}]}, False),
    ({"k": 1, "x": 2}, {"$and": [{"k": 1}, {"x": 2}]}, True),
    ({"k": 1, "x": 1}, {"$and": [{"k": 1}, {"x": 2}]}, False),
    ({"k": 1, "x": 2}, {"$or": [{"k": 1}, {"k": 2}], "x": 2}, True),
    ({"k": 1, "x": 1}, {"$or": [{"k": 1}, {"k": 2}], "x": 2}, False),
    ({"k": 1, "x": 1}, {"x": 2, "$or": [{"k": 1}, {"k": 2}]}, False),
    ({"k": 1}, {"$or": [{"k": 1, "x": 2}, {"y": 1}]}, False),
    ({"y": 1}, {"$or": [{"k": 1, "x": 2}, {"y": 1}]}, True),
    ({"k": 1}, {"$or": [{"k": 2}, {}]}, True),
    ({"k": ["a"]}, {"$or": [{"$and": [{"k": {"$contains": "a"}}, {"x": 1}]}, {"y": 1}]}, False),
    ({"y": 1}, {"$or": [{"$and": [{"k": {"$contains": "a"}}, {"x": 1}]}, {"y": 1}]}, True),
]  # fmt: skip
COLUMNS = {"threads": "threads.metadata", "crons": "t.metadata"}


@pytest.fixture(params=list(COLUMNS.values()))
def column(request: Any) -> str:
    """Where SQLite has labels, and where it has none."""
    return request.param


async def _put(database: Database, metadata: Any) -> str:
    thread_id = str(uuid4())
    row = {"thread_id": thread_id, "metadata": dump_text(metadata)}

    async def body(tx: Transaction) -> None:
        await tx.execute(
            "INSERT INTO threads (thread_id, created_at, updated_at, state_updated_at, metadata,"
            " config) VALUES (:thread_id, 0, 0, 0, :metadata, '{}')",
            row,
        )

    await database.write(body)
    return thread_id


@pytest.mark.parametrize("leads", [True, False])
async def test_a_filter_lets_through_what_it_says(database: Database, column: str, leads: bool):
    wrong: list[Any] = []
    for metadata, given, expected in TABLE:
        thread_id = await _put(database, metadata)
        sql, params = condition(database.dialect, column, parse_filter(given), leads=leads)
        table = "threads" if column.startswith("threads") else "threads AS t"
        alias = column.partition(".")[0]
        query = f"SELECT 1 FROM {table} WHERE {alias}.thread_id = :thread_id AND {sql}"
        rows = await database.scan(query, {"thread_id": thread_id, **params})
        if bool(rows) is not expected:
            wrong.append((metadata, given, expected))
    assert not wrong


async def test_two_conditions_on_one_statement_keep_apart(database: Database):
    thread_id = await _put(database, {"k": 1, "x": 2})
    for given, expected in (({"x": 2}, 1), ({"x": 3}, 0)):
        one, first = condition(database.dialect, "threads.metadata", parse_filter({"k": 1}), "a")
        other, then = condition(database.dialect, "threads.metadata", parse_filter(given), "b")
        query = f"SELECT 1 FROM threads WHERE thread_id = :thread_id AND {one} AND {other}"
        rows = await database.read_all(query, {"thread_id": thread_id, **first, **then})
        assert len(rows) == expected


@pytest.mark.parametrize("given", [
    {"k": {"$ne": 1}}, {"k": {"$in": [1]}}, {"k": {"n": 1}}, {"k": {"n": {"$eq": 1}}}, {"k": {}},
    {"k": {"$eq": 1, "$ne": 2}}, {"$not": {"k": 1}}, {"$eq": 1}, {"$contains": "k"},
    {"$or": []}, {"$and": []}, {"$or": {"k": 1}}, {"$or": "k"}, {"$or": [1]}, {"$and": [None]},
    {"$or": [{"k": {"$ne": 1}}]}, {"$or": [{"k": 1}, {"$nor": []}]}, {1: 2}, {None: 1},
    {"k": {1: 2}}, {"k": {"$eq": {1: 2}}}, {"k": float("nan")}, {"k": [float("inf")]},
    {"k": object()}, {"k": {"a"}}, {"k": b"a"}, {"k": uuid4()}, {"k": [object()]},
    {"k": "a\0"}, {"k\0": "a"}, {"k": "\ud800"}, {"\udfff": 1}, {"k": {"$eq": {"\0": 1}}},
    {"k": {"$contains": object()}}, {"$or": [{"k": object()}]}, ["k"], "k", 1, None, {"": {"": ""}},
])  # fmt: skip
def test_what_is_not_understood_is_refused(given: Any):
    with pytest.raises(UnknownFilter):
        parse_filter(given)


def test_filters_that_restrict_nothing_are_none():
    assert parse_filter({}) is None
    assert parse_filter({"$and": [{}, {}]}) is None
    assert narrowed(None, None) is None


def test_narrowed_keeps_all_restrictions():
    one, other = Equals("k", 1), Equals("x", 2)
    assert narrowed(None, one) == one
    assert narrowed(one, other) == AllOf((one, other))


def test_an_index_leads_to_what_has_an_entry():
    one, many = Equals("k", "a"), Contains("k", ["a"])
    assert one.is_selective
    assert Equals("k", None).is_selective
    assert not many.is_selective
    assert not Equals("k", "a" * 201).is_selective
    assert not Equals("k", ["a"]).is_selective
    assert AllOf((many, one)).is_selective
    assert AnyOf((one, one)).is_selective
    assert not AnyOf((one, many)).is_selective
