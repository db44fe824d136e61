"""Identifiers: UUIDs, lower case with dashes."""

from __future__ import annotations

from uuid import UUID

import pytest

from treadle.errors import Invalid
from treadle.ids import new_id, parse_id

SOME = "0190a1b2-c3d4-7e5f-8a9b-0c1d2e3f4a5b"


def test_new_ids_are_canonical_and_sort_by_their_time():
    ids = [new_id() for _ in range(1000)]
    assert ids == sorted(set(ids))
    assert all(str(UUID(id)) == id and UUID(id).version == 7 for id in ids)


@pytest.mark.parametrize(
    "text",
    [SOME, SOME.upper(), SOME.replace("-", ""), f"{{{SOME}}}", f"urn:uuid:{SOME}"],
)
def test_any_form_of_a_uuid_is_taken(text):
    assert parse_id(text, "thread") == SOME


@pytest.mark.parametrize("text", ["", "x", SOME[:-1], SOME + "0", None, 5, UUID(SOME), [SOME], "é"])
def test_what_is_no_uuid_is_refused_by_name(text):
    with pytest.raises(Invalid, match="Invalid thread ID: must be a UUID"):
        parse_id(text, "thread")
