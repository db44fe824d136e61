"""Names and schemas of tools, from titles and schemas of all kinds."""

from __future__ import annotations

from typing import Any

import pytest
from langgraph.graph import MessagesState
from pydantic import BaseModel, ConfigDict, TypeAdapter

from treadle.mcp.tools import (
    LONGEST_NAME,
    Names,
    Tool,
    input_schema,
    output_schema,
    part_of_title,
    safe_name,
)

OPEN = {"type": "object", "additionalProperties": True}


class Leaf(BaseModel):
    size: int


class Tree(BaseModel):
    model_config = ConfigDict(extra="forbid")
    leaf: Leaf
    below: list[Tree] = []


def assistant(name: str, id: str) -> dict[str, Any]:
    return {"name": name, "assistant_id": id, "description": None}


@pytest.mark.parametrize(
    ("title", "name"),
    [
        ("My Adder", "My_Adder"),
        ("a.b-c_d", "a.b-c_d"),
        ("größe/é", "gr__e__"),
        ("", "assistant"),
        ("x" * 500, "x" * LONGEST_NAME),
    ],
)
def test_names_hold_what_clients_allow(title, name):
    assert safe_name(title) == name
    assert part_of_title(name).casefold() in (title or "assistant").casefold()


def test_names_that_come_to_the_same_are_told_apart():
    alike = [assistant("a b", "id-00000001"), assistant("a_b", "id-00000002")]
    names = Names([*alike, assistant("c", "id-00000003")])
    assert names.tools == {
        "a_b_00000001": alike[0],
        "a_b_00000002": alike[1],
        "c": assistant("c", "id-00000003"),
    }
    assert names.shared == {"a_b": ["a_b_00000001", "a_b_00000002"]}
    long = Names([assistant("x" * 200, f"id-0000000{n}") for n in range(2)])
    assert {len(name) for name in long.tools} == {LONGEST_NAME}
    assert all(part_of_title(name) in "x" * 200 for name in long.tools)


@pytest.mark.parametrize("schema", [None, {"type": "integer"}, {"$ref": "#/elsewhere"}])
def test_what_is_no_object_takes_anything_and_promises_nothing(schema):
    assert input_schema(schema) == OPEN
    assert output_schema(schema) is None


def test_a_recursive_schema_has_its_own_definition_at_the_root():
    schema = Tree.model_json_schema()
    assert "$ref" in schema
    taken, given = input_schema(schema), output_schema(schema)
    assert taken["type"] == given["type"] == "object"
    assert taken["required"] == ["leaf"]
    assert set(taken["$defs"]) == {"Tree", "Leaf"}
    assert "required" not in given
    assert "additionalProperties" not in given  # questions may be in it
    assert schema == Tree.model_json_schema()


def test_messages_are_simple():
    schema = TypeAdapter(MessagesState).json_schema()
    assert len(schema["$defs"]) > 5
    assert input_schema(schema)["properties"]["messages"]["type"] == "string"
    messages = output_schema(schema)["properties"]["messages"]
    assert (messages["type"], messages["items"]) == ("array", {"type": "object"})


def test_messages_of_another_kind_stay_what_they_are():
    texts = {"type": "array", "items": {"type": "string"}}
    assert output_schema({"type": "object", "properties": {"messages": texts}}) == {
        "type": "object",
        "properties": {"messages": texts},
    }
    text = {"type": "object", "properties": {"messages": {"type": "string"}}}
    assert input_schema(text) == text
    tool = Tool("t", assistant("t", "1"), input_schema(text), None)
    assert tool.input_of({"messages": "hi"}) == {"messages": "hi"}


@pytest.mark.parametrize("part", [{"pattern": "("}, {"$ref": "https://example.invalid/x.json"}])
def test_a_schema_that_cannot_be_checked_is_not_promised(part):
    assert output_schema({"type": "object", "properties": {"a": part}}) is None
