"""An assistant as a tool: its name, what it takes, and what it gives."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from treadle.mcp.checking import validator
from treadle.serialization import dumps

Json = dict[str, Any]

LONGEST_NAME = 128
_UNSAFE = re.compile(r"[^A-Za-z0-9_.-]")
_SUFFIX_CHARACTERS = 8
_SUFFIX = re.compile(rf"_[0-9a-f]{{{_SUFFIX_CHARACTERS}}}$")
_REFERENCE = re.compile(r'"#/\$defs/([^"]+)"')

MESSAGE = {
    "type": "string",
    "title": "Messages",
    "description": "The user message to send to the agent.",
}
MESSAGES = {"type": "array", "title": "Messages", "items": {"type": "object"}}
ANNOTATIONS = {
    "readOnlyHint": False,
    "destructiveHint": False,
    "idempotentHint": False,
    "openWorldHint": True,
}


class Tool(msgspec.Struct, frozen=True):
    """What clients see of an assistant. ``output_schema`` is None where nothing is promised."""

    name: str
    assistant: Json
    input_schema: Json
    output_schema: Json | None

    def wire(self) -> Json:
        """The tool as ``tools/list`` has it."""
        title: str = self.assistant["name"]
        shown = {
            "name": self.name,
            "title": title,
            "description": self.assistant["description"] or f"Tool based on the {title} assistant",
            "inputSchema": self.input_schema,
            "annotations": ANNOTATIONS,
        }
        if self.output_schema is not None:
            shown["outputSchema"] = self.output_schema
        return shown

    def input_of(self, arguments: Json) -> Json:
        """The graph's input: a text for ``messages`` is what the user says."""
        text = arguments.get("messages")
        if isinstance(text, str) and self._property("messages") in (MESSAGE, None):
            return {**arguments, "messages": [{"role": "user", "content": text}]}
        return arguments

    def _property(self, name: str) -> Any:
        return self.input_schema.get("properties", {}).get(name)


class Names:
    """The tool names of assistants.

    Those whose names come to the same are told apart by the end of their ids; what they would have
    been called is ``shared``.
    """

    def __init__(self, assistants: Iterable[Json]) -> None:
        alike: dict[str, list[Json]] = {}
        for assistant in assistants:
            alike.setdefault(safe_name(assistant["name"]), []).append(assistant)
        self.tools: dict[str, Json] = {}
        self.shared: dict[str, list[str]] = {}
        for name, found in alike.items():
            if len(found) == 1:
                self.tools[name] = found[0]
                continue
            told_apart = {_told_apart(name, one["assistant_id"]): one for one in found}
            self.tools |= told_apart
            self.shared[name] = list(told_apart)


def safe_name(title: str) -> str:
    """A title as the name of a tool, which may hold letters, digits, ``_``, ``.`` and ``-``."""
    return _UNSAFE.sub("_", title)[:LONGEST_NAME] or "assistant"


def _told_apart(name: str, assistant_id: str) -> str:
    end = assistant_id[-_SUFFIX_CHARACTERS:]
    return f"{name[: LONGEST_NAME - len(end) - 1]}_{end}"


def part_of_title(name: str) -> str:
    """What the title of a tool of this name has in it for sure; it may be nothing."""
    return max(_SUFFIX.sub("", name).split("_"), key=len)


def input_schema(schema: Json | None) -> Json:
    """What a tool takes: the graph's input, ``messages`` as a plain text.

    A graph that does not tell, or that takes no object, gets whatever it is sent.
    """
    found = _object(schema)
    if found is None:
        return {"type": "object", "additionalProperties": True}
    properties: Json = found.get("properties", {})
    if "messages" in properties and properties["messages"].get("type") != "string":
        found["properties"] = {**properties, "messages": MESSAGE}
    return _without_unused(found)


def output_schema(schema: Json | None) -> Json | None:
    """What a tool gives, if that is an object: any of the graph's output, and perhaps more.

    None if that cannot be told, or not be checked.
    A graph that stops to ask has written some of its output, and its questions are in it.
    """
    found = _object(schema)
    if found is None:
        return None
    properties: Json = found.get("properties", {})
    if "type" not in properties.get("messages", MESSAGES).get("items", {}):
        found["properties"] = {**properties, "messages": MESSAGES}
    found.pop("required", None)
    found.pop("additionalProperties", None)
    found = _without_unused(found)
    return None if validator(found) is None else found


def _object(schema: Json | None) -> Json | None:
    """A copy of a schema of objects, its own definition at the root; None for any other."""
    if schema is None:
        return None
    if (named := _REFERENCE.fullmatch(f'"{schema.get("$ref", "")}"')) is not None:
        schema = {**schema["$defs"][named[1]], "$defs": schema["$defs"]}
    return {**schema} if schema.get("type") == "object" else None


def _without_unused(schema: Json) -> Json:
    """The schema without definitions that nothing refers to."""
    definitions: Mapping[str, Json] = schema.pop("$defs", {})
    used: Json = {}
    waiting = _references(schema)
    while waiting:
        name = waiting.pop()
        if name in definitions and name not in used:
            used[name] = definitions[name]
            waiting += _references(definitions[name])
    return {**schema, "$defs": used} if used else schema


def _references(schema: Json) -> list[str]:
    return _REFERENCE.findall(dumps(schema).decode())
