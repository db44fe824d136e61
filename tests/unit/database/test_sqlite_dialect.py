"""Containment as PostgreSQL's ``@>`` has it: as a function, in SQL, and through labels."""

from __future__ import annotations

import json
from typing import Any

import pytest

from treadle.database import Transaction
from treadle.database.sqlite_dialect import SQLiteDialect, contains, json_contains, label
from treadle.serialization import dump_text

BIG = 2**63

# document, pattern, and what PostgreSQL 16 says to: SELECT document::jsonb @> pattern::jsonb
TABLE: list[tuple[Any, Any, bool]] = [
    # objects: every given key, whatever else is there
    ({}, {}, True),
    ({"a": 1}, {}, True),
    ({"a": 1}, {"a": 1}, True),
    ({"a": 1, "b": 2}, {"b": 2}, True),
    ({"a": 1, "b": 2}, {"a": 1, "b": 2}, True),
    ({"a": 1}, {"a": 1, "b": 2}, False),
    ({"a": 1}, {"b": 1}, False),
    ({"a": 1}, {"a": 2}, False),
    ({}, {"a": None}, False),
    ({"a": None}, {"a": None}, True),
    ({"a": None}, {"a": False}, False),
    ({"a": None}, {"a": 0}, False),
    ({"a": None}, {"a": ""}, False),
    ({"a": "null"}, {"a": None}, False),
    # scalars: equal, and of one type
    ({"a": "1"}, {"a": 1}, False),
    ({"a": 1}, {"a": "1"}, False),
    ({"a": True}, {"a": True}, True),
    ({"a": True}, {"a": False}, False),
    ({"a": True}, {"a": 1}, False),
    ({"a": 1}, {"a": True}, False),
    ({"a": False}, {"a": 0}, False),
    ({"a": 0}, {"a": False}, False),
    ({"a": "true"}, {"a": True}, False),
    ({"a": 1}, {"a": 1.0}, True),
    ({"a": 1.0}, {"a": 1}, True),
    ({"a": 1.5}, {"a": 1.5}, True),
    ({"a": 1.5}, {"a": 1}, False),
    ({"a": -0.0}, {"a": 0}, True),
    ({"a": -1}, {"a": -1}, True),
    ({"a": BIG - 1}, {"a": BIG - 1}, True),
    ({"a": BIG}, {"a": BIG}, True),
    ({"a": BIG}, {"a": BIG - 1}, False),
    ({"a": -BIG}, {"a": -BIG}, True),
    ({"a": 10**30}, {"a": 10**30}, True),
    ({"a": 1e300}, {"a": 1e300}, True),
    ({"a": "x"}, {"a": "X"}, False),
    ({"a": ""}, {"a": ""}, True),
    ({"a": "ä日😀"}, {"a": "ä日😀"}, True),
    ({"a": "x" * 200}, {"a": "x" * 200}, True),
    ({"a": "x" * 201}, {"a": "x" * 201}, True),
    ({"a": "x" * 201}, {"a": "x" * 200}, False),
    ({"a": "😀" * 200}, {"a": "😀" * 200}, True),
    ({"it's": "o'clock"}, {"it's": "o'clock"}, True),
    ({"a.b": 1}, {"a.b": 1}, True),
    ({"a": {"b": 1}}, {"a.b": 1}, False),
    ({"": 1}, {"": 1}, True),
    ({"a": "%"}, {"a": "_"}, False),
    # objects in objects
    ({"a": {"b": 1, "c": 2}}, {"a": {"b": 1}}, True),
    ({"a": {"b": 1}}, {"a": {}}, True),
    ({"a": {}}, {"a": {"b": 1}}, False),
    ({"a": {"b": {"c": [1]}}}, {"a": {"b": {"c": []}}}, True),
    ({"a": 1}, {"a": {}}, False),
    ({"a": []}, {"a": {}}, False),
    ({"a": {}}, {"a": []}, False),
    ({"a": None}, {"a": {}}, False),
    # arrays: every given element, in any order, any number of times
    ({"a": [1, 2, 3]}, {"a": [3, 1]}, True),
    ({"a": [1, 2]}, {"a": [1, 1, 2, 2]}, True),
    ({"a": [1, 2]}, {"a": []}, True),
    ({"a": []}, {"a": [1]}, False),
    ({"a": [1, 2]}, {"a": [1, 4]}, False),
    ({"a": [1, 2]}, {"a": 1}, False),
    ({"a": 1}, {"a": [1]}, False),
    ({"a": [[1, 2], 3]}, {"a": [[2]]}, True),
    ({"a": [1, 2]}, {"a": [[1, 2]]}, False),
    ({"a": [{"b": 1, "c": 2}]}, {"a": [{"c": 2}]}, True),
    ({"a": [{"b": 1}, {"c": 2}]}, {"a": [{"b": 1, "c": 2}]}, False),
    ({"a": [True]}, {"a": [1]}, False),
    ({"a": [None]}, {"a": [None]}, True),
    ({"a": ["x"]}, {"a": ["x", "x"]}, True),
    # several kinds at once
    ({"a": 1, "b": [1], "c": "x"}, {"a": 1, "b": [1], "c": "x"}, True),
    ({"a": 1, "b": [1], "c": "x"}, {"a": 1, "b": [2], "c": "x"}, False),
    ({"a": 1, "b": 2, "c": 3, "d": 4}, {"a": 1, "b": 2, "c": 3, "d": 5}, False),
]


def name(value: Any) -> str:
    return json.dumps(value)[:40]


@pytest.mark.parametrize(("document", "pattern", "expected"), TABLE, ids=name)
def test_containment(document, pattern, expected):
    assert contains(document, pattern) is expected
    assert json_contains(dump_text(document), dump_text(pattern)) is expected


def test_nothing_contains_nothing():
    assert not json_contains(None, "{}")


@pytest.mark.parametrize(
    ("document", "pattern", "expected"),
    [([1, 2], [1], True), ([1], {}, False), ({}, [], False), (1, 1, True), ("a", "b", False)],
)
def test_roots_that_are_no_objects(document, pattern, expected):
    assert contains(document, pattern) is expected


@pytest.fixture
async def documents(database) -> list[Any]:
    """A thread for each document of the table, and an assistant too."""
    found = [json.loads(text) for text in dict.fromkeys(json.dumps(row[0]) for row in TABLE)]

    async def body(transaction: Transaction) -> None:
        await transaction.execute_many(
            "INSERT INTO threads (thread_id, created_at, updated_at, state_updated_at, metadata)"
            " VALUES (:id, 0, 0, 0, :metadata)",
            [{"id": str(n), "metadata": dump_text(document)} for n, document in enumerate(found)],
        )
        await transaction.execute_many(
            "INSERT INTO assistants (assistant_id, graph_id, version, name, name_folded, config,"
            " context, metadata, created_at, updated_at)"
            " VALUES (:id, 'g', 1, '', '', '{}', '{}', :metadata, 0, 0)",
            [{"id": str(n), "metadata": dump_text(document)} for n, document in enumerate(found)],
        )

    await database.write(body)
    return found


@pytest.mark.parametrize("synchronous", ["normal"], indirect=True)
@pytest.mark.parametrize(
    ("table", "key"), [("threads", "thread_id"), ("assistants", "assistant_id")]
)
async def test_sql_agrees_with_the_function(database, documents, table, key):
    """Threads are found by their labels, assistants one by one: both find the same."""
    patterns = [json.loads(text) for text in dict.fromkeys(json.dumps(row[1]) for row in TABLE)]
    for pattern in patterns:
        condition, params = database.dialect.json_contains(f"{table}.metadata", pattern, "p")
        rows = await database.read_all(
            f"SELECT {key} AS id FROM {table} WHERE {condition} ORDER BY CAST({key} AS INTEGER)",
            params,
        )
        expected = [n for n, document in enumerate(documents) if contains(document, pattern)]
        assert [int(row["id"]) for row in rows] == expected, pattern


@pytest.mark.parametrize("synchronous", ["normal"], indirect=True)
async def test_labels_follow_the_metadata(database, documents):
    async def change(transaction: Transaction) -> None:
        await transaction.execute(
            """UPDATE threads SET metadata = '{"a":"new","n":7}' WHERE metadata = '{"a":1}'"""
        )

    async def found(pattern: Any) -> int:
        condition, params = database.dialect.json_contains("threads.metadata", pattern, "p")
        row = await database.read_one(
            f"SELECT count(*) AS n FROM threads WHERE {condition}", params
        )
        return row["n"]

    before = await found({"a": 1})
    await database.write(change)
    assert await found({"a": 1}) == before - 1
    assert await found({"a": "new"}) == await found({"a": "new", "n": 7}) == 1

    async def remove(transaction: Transaction) -> None:
        await transaction.execute("DELETE FROM threads")

    await database.write(remove)
    assert (await database.read_one("SELECT count(*) AS n FROM thread_labels"))["n"] == 0


@pytest.mark.parametrize("synchronous", ["normal"], indirect=True)
async def test_short_scalars_are_found_through_the_index(database):
    condition, params = database.dialect.json_contains(
        "threads.metadata", {"a": 1, "b": "x", "c": None}, "p"
    )
    assert "json_contains" not in condition
    plan = await database.read_all(
        f"EXPLAIN QUERY PLAN SELECT * FROM threads WHERE {condition}", params
    )
    text = " ".join(row["detail"] for row in plan)
    assert "SCAN threads" not in text
    assert "SEARCH threads USING INTEGER PRIMARY KEY" in text


def test_what_has_a_label():
    labels = [label("k", value) for value in (None, True, False, 0, "0", "null", "true")]
    assert len(set(labels)) == len(labels)
    assert None not in labels
    assert [label("k", value) for value in (1.0, [], {}, "x" * 201, BIG, -BIG)] == [None] * 6


def test_a_pattern_of_nothing_asks_for_nothing():
    assert SQLiteDialect().json_contains("threads.metadata", {}, "p") == ("1 = 1", {})


@pytest.mark.parametrize("synchronous", ["normal"], indirect=True)
@pytest.mark.parametrize(
    ("values", "expected"),
    [([], []), (["1"], ["1"]), (["2", "0", "2"], ["0", "2"]), (["'; DROP TABLE threads; --"], [])],
)
async def test_any_of(database, documents, values, expected):
    condition, params = database.dialect.any_of("thread_id", values, "p")
    rows = await database.read_all(
        f"SELECT thread_id FROM threads WHERE {condition} ORDER BY thread_id", params
    )
    assert [row["thread_id"] for row in rows] == expected


@pytest.mark.parametrize("synchronous", ["normal"], indirect=True)
async def test_two_conditions_do_not_share_parameters(database):
    one, first = database.dialect.json_contains("threads.metadata", {"a": 1, "b": [1]}, "one")
    two, second = database.dialect.json_contains("threads.metadata", {"a": 2, "b": [2]}, "two")
    assert not first.keys() & second.keys()
    await database.read_all(f"SELECT * FROM threads WHERE {one} AND {two}", {**first, **second})
