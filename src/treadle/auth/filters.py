"""Filters on the metadata of what a caller may see: checked once, applied by the SQL.

    {"owner": "a"}, {"owner": {"$eq": "a"}}     the entry equals, type and all
    {"tags": {"$contains": "x"}}                the entry is a list that has it
    {"tags": {"$contains": ["x", "y"]}}         ... that has them all
    {"$or": [{...}, ...]}, {"$and": [{...}, ...]}

The keys of one filter all have to hold; ``{}`` is no restriction. An entry that is missing never
matches. What is written in another way is refused: it might have been meant to restrict.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, cast

from treadle.database import Dialect

Json = dict[str, Any]

LONGEST_INDEXED_TEXT = 200


class UnknownFilter(ValueError):
    """A filter that is not understood; the message says what of it."""


@dataclass(frozen=True, slots=True)
class Equals:
    """The metadata's entry ``key`` equals ``value``: numbers by value, everything by type."""

    key: str
    value: Any

    @property
    def is_selective(self) -> bool:
        """Whether an index of the database leads to what matches."""
        value = self.value
        if isinstance(value, str):
            return len(value) <= LONGEST_INDEXED_TEXT
        return value is None or isinstance(value, int)


@dataclass(frozen=True, slots=True)
class Contains:
    """The metadata's entry ``key`` is a list that has all of ``values``."""

    key: str
    values: list[Any]

    is_selective = False


@dataclass(frozen=True, slots=True)
class AllOf:
    """Every part holds."""

    parts: tuple[Filter, ...]

    @property
    def is_selective(self) -> bool:
        return any(part.is_selective for part in self.parts)


@dataclass(frozen=True, slots=True)
class AnyOf:
    """At least one part holds."""

    parts: tuple[Filter, ...]

    @property
    def is_selective(self) -> bool:
        return all(part.is_selective for part in self.parts)


Filter = Equals | Contains | AllOf | AnyOf


def parse_filter(given: object) -> Filter | None:
    """The filter that a handler has returned; None if it restricts nothing.

    Raises ``UnknownFilter``.
    """
    parts = _parts(given)
    if not parts:
        return None
    return parts[0] if len(parts) == 1 else AllOf(parts)


def narrowed(*filters: Filter | None) -> Filter | None:
    """What every one of the filters lets through."""
    parts = tuple(one for one in filters if one is not None)
    if len(parts) < 2:
        return parts[0] if parts else None
    return AllOf(parts)


def condition(
    dialect: Dialect,
    column: str,
    allowed: Filter | None,
    prefix: str = "auth",
    *,
    leads: bool = False,
) -> tuple[str, Json]:
    """The condition on ``column``, and its parameters, whose names begin with ``prefix``.

    Give ``leads`` where nothing else leads to the rows (``Dialect.json_contains``).
    """
    if allowed is None:
        return "1 = 1", {}
    params: Json = {}

    def sql_of(one: Filter) -> str:
        name = f"{prefix}{len(params)}"
        match one:
            case Equals(key, value):
                sql, more = dialect.json_equals(column, key, value, name, leads=leads)
                params.update(more)
            case Contains(key, values):
                sql, more = dialect.json_has(column, key, values, name)
                params.update(more)
            case AllOf(parts):
                sql = " AND ".join(map(sql_of, parts)) or "1 = 1"
            case AnyOf(parts):
                sql = f"({' OR '.join(map(sql_of, parts))})"
        return sql

    return sql_of(allowed), params


# Reading a filter ---------------------------------------------------------------------------------


def _parts(given: object) -> tuple[Filter, ...]:
    parts: list[Filter] = []
    for key, wanted in _entries(given, "a filter"):
        if key == "$or":
            parts.append(AnyOf(tuple(AllOf(_parts(one)) for one in _alternatives(key, wanted))))
        elif key == "$and":
            parts += [part for one in _alternatives(key, wanted) for part in _parts(one)]
        elif key.startswith("$"):
            raise UnknownFilter(f"{key} is not an operator here: expected $or or $and")
        else:
            parts += _on_entry(key, wanted)
    return tuple(parts)


def _alternatives(operator: str, given: object) -> list[Any]:
    if not isinstance(given, list | tuple) or not given:
        raise UnknownFilter(f"{operator} has {given!r}: expected a list of at least one filter")
    return list(cast("Iterable[Any]", given))


def _on_entry(key: str, wanted: object) -> list[Filter]:
    """What is wanted of one entry of the metadata."""
    if not isinstance(wanted, dict):
        return [Equals(_value(key), _value(wanted))]
    found: list[Filter] = []
    for operator, value in _entries(cast("object", wanted), f"the filter on {key!r}"):
        if operator == "$eq":
            found.append(Equals(_value(key), _value(value)))
        elif operator == "$contains":
            values = _value(value)
            found.append(Contains(_value(key), values if isinstance(values, list) else [values]))
        else:
            raise UnknownFilter(
                f"the filter on {key!r} has {operator!r}: expected $eq or $contains"
            )
    if not found:
        raise UnknownFilter(f"the filter on {key!r} is empty: expected $eq or $contains")
    return found


def _entries(given: object, what: str) -> Iterable[tuple[str, object]]:
    if not isinstance(given, dict):
        raise UnknownFilter(f"{what} is {given!r}: expected a dict")
    for key, value in cast("dict[object, object]", given).items():
        if not isinstance(key, str):
            raise UnknownFilter(f"{what} has the key {key!r}: expected a string")
        yield key, value


def _value(given: object) -> Any:
    """``given``, if it can be told apart from all else in JSON."""
    if isinstance(given, str):
        if not is_kept_as_it_is(given):
            raise UnknownFilter(f"{given!r} has characters that no metadata has")
        return given
    if isinstance(given, float) and not math.isfinite(given):
        raise UnknownFilter(f"{given!r} is no number of JSON")
    if given is None or isinstance(given, bool | int | float):
        return given
    if isinstance(given, list | tuple):
        return [_value(element) for element in cast("Iterable[object]", given)]
    if isinstance(given, dict):
        return {_value(key): _value(value) for key, value in _entries(given, "a value")}  # pyright: ignore[reportUnknownArgumentType]
    raise UnknownFilter(f"{given!r} is a {type(given).__name__}, which is no value of JSON")


def is_kept_as_it_is(text: str) -> bool:
    """Whether a database keeps this text, and no other, in its place."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return "\0" not in text
