"""The fragments of SQL that are SQLite's own, and the functions that they call."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from typing import Any, cast

from treadle.database.sqlite_vectors import DISTANCE
from treadle.serialization import dump_text, loads

_LONGEST_LABEL_TEXT = 200
_LARGEST_INTEGER = 2**63 - 1


def contains(document: Any, pattern: Any) -> bool:
    """Whether ``document`` contains ``pattern``, as PostgreSQL's ``@>`` has it.

    Objects by key, arrays when every given element occurs, scalars by equality and type.
    """
    # Loops, not generators: one frame of the stack for each of the 250 levels of a body.
    if isinstance(pattern, dict):
        if not isinstance(document, dict):
            return False
        for key, value in cast("dict[str, Any]", pattern).items():
            if key not in document or not contains(document[key], value):
                return False
        return True
    if isinstance(pattern, list):
        if not isinstance(document, list):
            return False
        for wanted in cast("list[Any]", pattern):
            for element in cast("list[Any]", document):
                if contains(element, wanted):
                    break
            else:
                return False
        return True
    if isinstance(pattern, bool) or isinstance(document, bool):
        return pattern is document
    return document == pattern


def json_contains(document: str | None, pattern: str) -> bool:
    """``contains`` for JSON text: the SQL function of that name."""
    return document is not None and contains(loads(document), loads(pattern))


def label(key: str, value: Any) -> str | None:
    """The label of a metadata entry in ``thread_labels``; None if it has none there."""
    if "\x1f" in key or (isinstance(value, str) and "\x1f" in value):
        return None
    if value is None:
        return f"{key}\x1fnull"
    if isinstance(value, bool):
        return f"{key}\x1f{'true' if value else 'false'}"
    if isinstance(value, str) and len(value) <= _LONGEST_LABEL_TEXT:
        return f"{key}\x1ft{value}"
    if isinstance(value, int) and abs(value) <= _LARGEST_INTEGER:
        return f"{key}\x1fn{value}"
    return None


class SQLiteDialect:
    """See ``treadle.database.Dialect``."""

    def json_contains(self, column: str, value: Any, prefix: str) -> tuple[str, dict[str, Any]]:
        params: dict[str, Any] = {}
        conditions: list[str] = []
        rest: Any = value
        if column == "threads.metadata" and isinstance(value, dict):
            pairs = cast("dict[str, Any]", value)
            labels = {key: found for key in pairs if (found := label(key, pairs[key])) is not None}
            rest = {key: wanted for key, wanted in pairs.items() if key not in labels}
            params = {f"{prefix}_{n}": found for n, found in enumerate(labels.values())}
            if labels:
                conditions.append(f"threads.seq IN ({_labelled(list(params))})")
        if rest or not isinstance(rest, dict):
            params[f"{prefix}_rest"] = dump_text(rest)
            conditions.append(f"json_contains({column}, :{prefix}_rest)")
        elif column != "threads.metadata":
            conditions.append(f"{column} IS NOT NULL")
        return " AND ".join(conditions) or "1 = 1", params

    def any_of(self, column: str, values: Sequence[Any], prefix: str) -> tuple[str, dict[str, Any]]:
        name = f"{prefix}_values"
        return (
            f"{column} IN (SELECT value FROM json_each(:{name}))",
            {name: dump_text(list(values))},
        )

    def vector(self, floats: Sequence[float]) -> bytes:
        return array("f", floats).tobytes()

    def vector_distance(self, column: str, name: str) -> str:
        return f"{DISTANCE}({column}, :{name})"


def _labelled(names: list[str]) -> str:
    """The threads that have all labels: a walk along the first, a look-up for each other."""
    first, *others = names
    found = f"SELECT a.thread_seq FROM thread_labels AS a WHERE a.label = :{first}"
    for name in others:
        found += (
            " AND EXISTS (SELECT 1 FROM thread_labels AS b"
            f" WHERE b.label = :{name} AND b.thread_seq = a.thread_seq)"
        )
    return found
