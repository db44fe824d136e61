"""Query parameters as a struct: its fields are the parameters, its types what they may be."""

from __future__ import annotations

import re
from functools import cache
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec
from msgspec import inspect

from treadle.errors import Invalid

if TYPE_CHECKING:
    from treadle.http.request import Request

Q = TypeVar("Q", bound=msgspec.Struct)

_INTEGER = re.compile(r"[+-]?[0-9]{1,18}")
_TRUE = {"true", "1"}
_FALSE = {"false", "0"}


def parse_query(kind: type[Q], request: Request) -> Q:
    """The query of ``request`` as a ``kind``; 422 names the parameter, its value, the way out.

    A ``list`` field takes repeated parameters and comma lists. Unknown parameters are ignored.
    """
    values: dict[str, Any] = {}
    for name, required, wanted in _fields(kind):
        given = request.query_values(name)
        if given:
            values[name] = _value(name, given, wanted)
        elif required:
            raise Invalid(f"Query parameter {name} is required")
    return msgspec.convert(values, kind)


@cache
def _fields(kind: type[msgspec.Struct]) -> list[tuple[str, bool, inspect.Type]]:
    """Name, whether it is required, and type of each field, unions reduced to their one type."""
    described = inspect.type_info(kind)
    assert isinstance(described, inspect.StructType)
    return [(f.encode_name, f.required, _plain(f.type)) for f in described.fields]


def _plain(wanted: inspect.Type) -> inspect.Type:
    """A type without its ``None``."""
    if isinstance(wanted, inspect.UnionType):
        return next(t for t in wanted.types if not isinstance(t, inspect.NoneType))
    return wanted


def _value(name: str, given: list[str], wanted: inspect.Type) -> Any:
    if isinstance(wanted, inspect.ListType):
        parts = [part for text in given for part in text.split(",") if part]
        return [_one(name, part, wanted.item_type) for part in parts]
    return _one(name, given[-1], wanted)


def _one(name: str, text: str, wanted: inspect.Type) -> Any:
    match wanted:
        case inspect.IntType(ge=least, le=most):
            return _integer(name, text, least, most)
        case inspect.BoolType():
            lowered = text.lower()
            if lowered in _TRUE or lowered in _FALSE:
                return lowered in _TRUE
            raise _refusal(name, text, "true or false")
        case inspect.LiteralType(values=allowed) if text not in allowed:
            raise _refusal(name, text, "one of " + ", ".join(map(str, allowed)))
        case _:
            return text


def _integer(name: str, text: str, least: int | None, most: int | None) -> int:
    number = int(text) if _INTEGER.fullmatch(text) else None
    below = number is not None and least is not None and number < least
    if number is None or below or (most is not None and number > most):
        allowed = "an integer"
        if least is not None:
            allowed += f" from {least}" if most is not None else f" of at least {least}"
        raise _refusal(name, text, allowed + (f" to {most}" if most is not None else ""))
    return number


def _refusal(name: str, text: str, allowed: str) -> Invalid:
    return Invalid(f"Invalid {name} {text[:100]}: the query parameter has to be {allowed}")
