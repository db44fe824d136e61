"""The end of a run as the result of a tool."""

from __future__ import annotations

from typing import Any

from treadle.mcp.checking import validator
from treadle.mcp.tools import Tool
from treadle.runs.outcome import Outcome
from treadle.serialization import fragment, loads

Json = dict[str, Any]
_TOLD_KINDS = ("GraphRecursionError", "EmptyInputError")
"""Errors of langgraph's whose text says nothing of what is in a graph."""
_MOST_COMPLAINTS, _LONGEST_COMPLAINT = 10, 300


def result_of(tool: Tool, arguments: Json, outcome: Outcome | None) -> Json:
    """The result of a call; None is the outcome of a run that was deleted."""
    if outcome is None:
        return _failure("Cancelled: the run was deleted")
    if outcome.status == "interrupted":
        return _failure("Cancelled: the run was cancelled before its end")
    if outcome.error is not None:
        return _failure(_explained(tool, arguments, outcome))
    json = outcome.json()
    result: Json = {"content": [_text(json.decode())]}
    if json.startswith(b"{"):
        result["structuredContent"] = _structured(tool.output_schema, json)
    return result


def _failure(text: str) -> Json:
    return {"isError": True, "content": [_text(text)]}


def _text(text: str) -> Json:
    return {"type": "text", "text": text}


def _structured(schema: Json | None, json: bytes) -> Any:
    """Those fields of the output that are what the schema says: clients count on it."""
    output: Json = loads(json)
    check = None if schema is None else validator(schema)
    if check is None or check.is_valid(output):
        return fragment(json)
    wrong = {error.instance_path[0] for error in check.iter_errors(output) if error.instance_path}
    return {name: value for name, value in output.items() if name not in wrong}


def _explained(tool: Tool, arguments: Json, outcome: Outcome) -> str:
    """The kind of an error, and as much of the rest as is the caller's business.

    Its text may hold what is not, so it is left out; what is wrong with the arguments is told.
    """
    error = outcome.error or {}
    kind = error.get("error", "Error")
    if outcome.status == "timeout" or kind in _TOLD_KINDS:
        return f"{kind}: {error.get('message', '')}"
    complaints = _complaints(tool.input_schema, arguments)
    if not complaints:
        return kind
    return "\n- ".join([f"{kind}: the arguments are not what the tool takes", *complaints])


def _complaints(schema: Json, arguments: Json) -> list[str]:
    """What is wrong with the arguments, by field. ``messages`` may also be a list."""
    check = validator(schema)
    if check is None:
        return []
    found: list[str] = []
    for error in check.iter_errors(arguments):
        path = error.instance_path
        if path != ["messages"]:
            place = f"{'.'.join(map(str, path))}: " if path else ""
            found.append(place + error.message[:_LONGEST_COMPLAINT])
    return found[:_MOST_COMPLAINTS]
