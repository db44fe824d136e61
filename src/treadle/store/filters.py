"""What the ``filter`` of a store search means."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

Condition = Callable[[Any], bool]

_NUMBER = (int, float)


def check_filter(wanted: dict[str, Any]) -> None:
    """Raise ``ValueError`` for an operator that there is not."""
    for key, value in wanted.items():
        if key.startswith("$") and key not in _OPERATORS:
            known = ", ".join(_OPERATORS)
            raise ValueError(f"Unsupported operator: {key}. Use one of {known}")
        if isinstance(value, dict):
            check_filter(cast("dict[str, Any]", value))


def matches(stored: Any, wanted: Any) -> bool:
    """Whether a stored value (None where the key is missing) is what a filter wants.

    Objects match when each given key does (``{}`` every object), operators when all hold, other
    values when equal.
    """
    if not isinstance(wanted, dict):
        return _equal(stored, wanted)
    if not wanted:
        return isinstance(stored, dict)
    for key, value in cast("dict[str, Any]", wanted).items():
        if key.startswith("$"):
            if not _OPERATORS[key](stored, value):
                return False
        elif not isinstance(stored, dict) or not matches(
            cast("dict[str, Any]", stored).get(key), value
        ):
            return False
    return True


def exact_part(wanted: dict[str, Any]) -> dict[str, Any]:
    """The part of a filter that JSON containment answers exactly: plain values at the top."""
    return {
        key: value
        for key, value in wanted.items()
        if isinstance(value, str | int | float) and not key.startswith("$")
    }


def _equal(stored: Any, wanted: Any) -> bool:
    if isinstance(stored, bool) or isinstance(wanted, bool):
        return stored is wanted
    return stored == wanted


def _comparison(holds: Callable[[Any, Any], bool]) -> Callable[[Any, Any], bool]:
    """A comparison of numbers with numbers and texts with texts; others never match."""

    def compare(stored: Any, wanted: Any) -> bool:
        if isinstance(stored, bool) or isinstance(wanted, bool):
            return False
        numbers = isinstance(stored, _NUMBER) and isinstance(wanted, _NUMBER)
        texts = isinstance(stored, str) and isinstance(wanted, str)
        return (numbers or texts) and holds(stored, wanted)

    return compare


_OPERATORS: dict[str, Callable[[Any, Any], bool]] = {
    "$eq": _equal,
    "$ne": lambda stored, wanted: not _equal(stored, wanted),
    "$gt": _comparison(lambda a, b: a > b),
    "$gte": _comparison(lambda a, b: a >= b),
    "$lt": _comparison(lambda a, b: a < b),
    "$lte": _comparison(lambda a, b: a <= b),
}
