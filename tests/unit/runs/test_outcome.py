"""How a run's end is told to those who wait."""

from __future__ import annotations

import pytest
from langchain_core.messages import AIMessage

from treadle.runs.outcome import Outcome, output_json
from treadle.serialization import loads

ERROR = {"error": "ValueError", "message": "the boiler exploded"}


@pytest.mark.parametrize(
    ("outcome", "expected"),
    [
        (Outcome("success", {"a": 1}), {"a": 1}),
        (Outcome("success", None), {}),
        (Outcome("success", {}), {}),
        (Outcome("success", "cats: good"), "cats: good"),
        (Outcome("success", 0), 0),
        (Outcome("success", False), False),
        (Outcome("success", []), []),
        (Outcome("error", {"a": 1}, ERROR), {"__error__": ERROR}),
        (Outcome("interrupted", {"a": 1}, ERROR), {"a": 1}),
        (Outcome("interrupted", None, ERROR), {}),
        (Outcome("timeout", {"a": 1}, ERROR), {"a": 1}),
    ],
)
def test_the_body_of_wait_and_join(outcome, expected):
    assert loads(outcome.json()) == expected


def test_it_is_written_once():
    outcome = Outcome("success", {"messages": [AIMessage("hi", id="1")]})
    assert outcome.json() is outcome.json()
    assert loads(outcome.json())["messages"][0]["content"] == "hi"


def test_what_those_who_wait_for_a_deleted_run_are_told():
    told = {"error": "HTTPException", "message": "404: Run not found"}
    assert loads(output_json(None)) == {"__error__": told}
