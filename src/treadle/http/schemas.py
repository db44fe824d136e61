"""The JSON schemas by which bodies are explained: as one reads them in the types of the structs."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import Any, Literal, get_args, get_origin, get_type_hints

import msgspec

Schema = dict[str, Any]
_DEFINITIONS = "#/$defs/"


@cache
def schema_of(kind: Any) -> Schema:
    """The JSON schema of ``kind``: without references, except from a definition to itself.

    Choices come in the order in which they are declared.
    """
    schema = msgspec.json.schema(kind)
    definitions: Schema = schema.pop("$defs", {})
    orders = {frozenset(choices): list(choices) for choices in _choices(kind, set())}
    made = _Reader(definitions, orders).read(schema, ())
    return {**made, "$defs": definitions} if "$ref" in repr(made) else made


class _Reader:
    def __init__(self, definitions: Schema, orders: dict[frozenset[Any], list[Any]]) -> None:
        self._definitions, self._orders = definitions, orders

    def read(self, schema: Any, within: tuple[str, ...]) -> Any:
        """``schema`` with its definitions in their places; ``within`` are those that it is in."""
        if isinstance(schema, list):
            return [self.read(part, within) for part in schema]
        if not isinstance(schema, dict):
            return schema
        name = str(schema.get("$ref", "")).removeprefix(_DEFINITIONS)
        if name and name not in within:
            return self.read(self._definitions[name], (*within, name))
        found = {key: self.read(part, within) for key, part in schema.items()}
        if isinstance(choices := found.get("enum"), list):
            found["enum"] = self._orders.get(frozenset(choices), choices)
            if all(isinstance(choice, str) for choice in choices):
                return {"type": "string", **found}
        return _nullable(found)


def _nullable(schema: Schema) -> Schema:
    """One type or null, as two types: then a refusal names them."""
    match schema.get("anyOf"):
        case [{"type": str(), **rest} as one, {"type": "null"}] if "enum" not in rest:
            plain = {key: part for key, part in schema.items() if key != "anyOf"}
            return {**plain, **one, "type": ["null", one["type"]]}
        case _:
            return schema


def _choices(kind: Any, seen: set[Any]) -> Iterator[tuple[Any, ...]]:
    """The choices of each literal in ``kind``, its fields and what they are made of."""
    if get_origin(kind) is Literal:
        yield get_args(kind)
    elif isinstance(kind, type) and issubclass(kind, msgspec.Struct):
        if kind not in seen:
            seen.add(kind)
            for field in get_type_hints(kind).values():
                yield from _choices(field, seen)
    else:
        for part in get_args(kind):
            yield from _choices(part, seen)
