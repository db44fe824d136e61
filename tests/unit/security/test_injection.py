"""Whatever text comes to the database is a value: never a 5xx, never a row of another's."""

from __future__ import annotations

import json
from typing import Any

import wire
from auth_house import House, owner
from belongings import SECRET, belongings
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

BOB = owner("bob")

PIECES = (
    "'", '"', "''", "\\", "\\'", "--", ";", "/*", "*/", "%", "_", "$", "$.", ".", "[", "]", "[0]",
    "{", "}", "(", ")", ",", "?", ":a", "%s", "%(a)s", "$1", "::text", "||", "\x00", "\x1f",
    "\ud83d", "\u0661",
    "->", "->>", "#>", "@>", "*", "values", "metadata", "owner", "alice", " OR ", "1=1",
    " UNION SELECT * FROM threads ", "; DROP TABLE threads", "thread_id", "null", "$eq", "$or",
    "a", " ", "\n", "x" * 300,
)  # fmt: skip
HOSTILE = st.lists(st.sampled_from(PIECES), min_size=1, max_size=6).map("".join) | st.text()
OPERATORS = st.sampled_from(["$eq", "$ne", "$gt", "$gte", "$lt", "$in", "$or", "$contains"])
VALUES = HOSTILE | st.integers() | st.floats() | st.none() | st.lists(HOSTILE, max_size=2)
OPERATIONS = st.dictionaries(OPERATORS | HOSTILE, VALUES, max_size=2)
ENTRIES = st.dictionaries(HOSTILE, VALUES | OPERATIONS, min_size=1, max_size=2)
NAMES = st.lists(HOSTILE, min_size=1, max_size=3)


def bodies(text: str, names: list[str], entries: Any) -> list[tuple[str, str, Any]]:
    return [
        ("POST", "/threads/search", {"metadata": entries}),
        ("POST", "/threads/search", {"values": entries, "ids": [text]}),
        ("POST", "/threads/search", {"extract": {"a": text, "b": f"values.{text}",
                                                 "c": f"metadata.{text}"}}),
        ("POST", "/threads/search", {"extract": {text: "metadata.owner"}}),
        ("POST", "/threads/search", {"sort_by": text, "sort_order": text}),
        ("POST", "/threads/search", {"select": names, "status": text}),
        ("POST", "/threads/count", {"metadata": entries, "values": entries}),
        ("POST", "/assistants/search", {"metadata": entries, "name": text}),
        ("POST", "/assistants/search", {"graph_id": text, "sort_by": text, "select": names}),
        ("POST", "/assistants/count", {"name": text, "metadata": entries}),
        ("POST", "/runs/crons/search", {"metadata": entries}),
        ("POST", "/runs/crons/search", {"sort_by": text, "select": names}),
        ("POST", "/runs/crons/count", {"metadata": entries}),
        ("POST", "/store/items/search", {"namespace_prefix": names, "filter": entries}),
        ("POST", "/store/items/search", {"namespace_prefix": [], "filter": entries,
                                         "query": text}),
        ("POST", "/store/namespaces", {"prefix": names, "suffix": names}),
        ("PUT", "/store/items", {"namespace": names, "key": text, "value": {text: entries}}),
        ("DELETE", "/store/items", {"namespace": names, "key": text}),
        ("POST", "/threads", {"metadata": entries}),
        ("POST", "/assistants", {"graph_id": "echo", "name": text, "metadata": entries}),
    ]  # fmt: skip


async def test_no_text_reaches_another_users_rows(house: House):
    hers = await belongings(house, owner("alice"))
    before = await _hers(house)
    headers = {"authorization": json.dumps(BOB)}
    asked: list[tuple[str, list[str], Any]] = []
    some = settings(max_examples=40, database=None, deadline=None, derandomize=True,
                    phases=[Phase.generate], suppress_health_check=list(HealthCheck))  # fmt: skip

    @some
    @given(HOSTILE, NAMES, ENTRIES)
    def collect(text: str, names: list[str], entries: Any) -> None:
        asked.append((text, names, entries))

    collect()
    for text, names, entries in asked:
        for method, path, body in bodies(text, names, entries):
            answer = await wire.request(house.app, method, path, body, headers)
            told = answer.status, answer.text
            assert answer.status < 500, (path, body, told)
            assert SECRET not in answer.text, (path, body, told)
            assert not [name for name, value in hers.items() if value in answer.text], (path, body)
    assert await _hers(house) == before


async def _hers(house: House) -> Any:
    alice = owner("alice")
    return [
        await house.gives(alice, "POST", path, {})
        for path in ("/threads/search", "/assistants/search", "/runs/crons/search")
    ] + [await house.gives(alice, "POST", "/store/items/search", {"namespace_prefix": []})]
