"""What a call's result says of the end of its run."""

from __future__ import annotations

from typing import Any

import pytest

from treadle.mcp.results import result_of
from treadle.mcp.tools import Tool
from treadle.runs.outcome import Outcome
from treadle.serialization import dumps

TAKES = {"type": "object", "properties": {"count": {"type": "integer"}}, "required": ["count"]}
GIVES = {"type": "object", "properties": {"total": {"type": "integer"}}}
TOOL = Tool("t", {}, TAKES, GIVES)


def failed(kind: str, message: str, status: str = "error") -> Outcome:
    return Outcome(status, None, {"error": kind, "message": message})


def text(result: Any) -> str:
    assert result["isError"] is True
    assert "structuredContent" not in result
    return result["content"][0]["text"]


@pytest.mark.parametrize("outcome", [None, Outcome("interrupted", {"total": 1})])
def test_what_was_cut_off_is_no_result(outcome):
    assert text(result_of(TOOL, {"count": 1}, outcome)).startswith("Cancelled: the run was ")


@pytest.mark.parametrize(
    ("outcome", "told"),
    [
        (failed("KeyError", "'secret'"), "KeyError"),
        (failed("GraphRecursionError", "limit of 25"), "GraphRecursionError: limit of 25"),
        (failed("TimeoutError", "longer than 3 s", "timeout"), "TimeoutError: longer than 3 s"),
        (failed("TimeoutError", "secret"), "TimeoutError"),
    ],
)
def test_of_an_error_only_what_is_safe_is_told(outcome, told):
    assert text(result_of(TOOL, {"count": 1}, outcome)) == told


def test_complaints_name_their_fields_and_are_short():
    found = text(result_of(TOOL, {"count": "x" * 5000}, failed("TypeError", "secret")))
    assert "\n- count: " in found
    assert "secret" not in found
    assert len(found) < 500


def test_fields_that_break_their_promise_are_in_the_text_alone():
    result = result_of(TOOL, {}, Outcome("success", {"total": None, "more": [1]}))
    assert result["structuredContent"] == {"more": [1]}
    assert result["content"][0]["text"] == '{"total":null,"more":[1]}'


def test_an_outcome_from_another_process_is_the_same():
    outcome = Outcome("success", {"total": 3})
    told = Outcome.unpack(outcome.pack())
    assert dumps(result_of(TOOL, {}, told)) == dumps(result_of(TOOL, {}, outcome))
