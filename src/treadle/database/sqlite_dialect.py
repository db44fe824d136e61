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


def equals(document: Any, value: Any) -> bool:
    """Whether two values of JSON are equal, types and all."""
    if isinstance(value, dict):
        wanted = cast("dict[str, Any]", value)
        return (
            isinstance(document, dict)
            and cast("dict[str, Any]", document).keys() == wanted.keys()
            and all(equals(document[key], wanted[key]) for key in wanted)
        )
    if isinstance(value, list):
        listed = cast("list[Any]", value)
        return (
            isinstance(document, list)
            and len(cast("list[Any]", document)) == len(listed)
            and all(equals(*pair) for pair in zip(cast("Any", document), listed, strict=True))
        )
    if isinstance(value, bool) or isinstance(document, bool):
        return value is document
    return document == value


def json_equals(document: str | None, key: str, value: str) -> bool:
    """See ``Dialect.json_equals``: the SQL function of that name."""
    found: Any = None if document is None else loads(document)
    return isinstance(found, dict) and key in found and equals(found[key], loads(value))


def json_has(document: str | None, key: str, values: str) -> bool:
    """See ``Dialect.json_has``: the SQL function of that name."""
    found: Any = None if document is None else loads(document)
    listed: Any = cast("Any", found).get(key) if isinstance(found, dict) else None
    return isinstance(listed, list) and all(
        any(equals(element, wanted) for element in cast("list[Any]", listed))
        for wanted in loads(values)
    )


FUNCTIONS = {
    "json_contains": (2, json_contains),
    "json_equals": (3, json_equals),
    "json_has": (3, json_has),
}
"""The SQL functions, and how many arguments they have."""


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


def shares_label(value: Any) -> bool:
    """Whether another value has the same label: ``true`` and the text "rue" have."""
    return value is True or value == "rue"


class SQLiteDialect:
    """See ``treadle.database.Dialect``."""

    def json_contains(
        self, column: str, value: Any, prefix: str, *, leads: bool = True
    ) -> tuple[str, dict[str, Any]]:
        params: dict[str, Any] = {}
        conditions: list[str] = []
        rest: Any = value
        if column == "threads.metadata" and isinstance(value, dict):
            pairs = cast("dict[str, Any]", value)
            labels = {key: found for key in pairs if (found := label(key, pairs[key])) is not None}
            rest = {k: v for k, v in pairs.items() if k not in labels or shares_label(v)}
            params = {f"{prefix}_{n}": found for n, found in enumerate(labels.values())}
            if labels:
                conditions.append(_with_labels(list(params), leads))
        if rest or not isinstance(rest, dict):
            params[f"{prefix}_rest"] = dump_text(rest)
            conditions.append(f"json_contains({column}, :{prefix}_rest)")
        elif column != "threads.metadata":
            conditions.append(f"{column} IS NOT NULL")
        return " AND ".join(conditions) or "1 = 1", params

    def json_equals(
        self, column: str, key: str, value: Any, prefix: str, *, leads: bool
    ) -> tuple[str, dict[str, Any]]:
        called, params = _called("json_equals", column, key, value, prefix)
        if column != "threads.metadata" or (found := label(key, value)) is None:
            return called, params
        labelled = _with_labels([prefix], leads)
        if shares_label(value):
            return f"{labelled} AND {called}", {prefix: found, **params}
        return labelled, {prefix: found}

    def json_has(
        self, column: str, key: str, values: Sequence[Any], prefix: str
    ) -> tuple[str, dict[str, Any]]:
        return _called("json_has", column, key, list(values), prefix)

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


def _called(
    function: str, column: str, key: str, value: Any, prefix: str
) -> tuple[str, dict[str, Any]]:
    sql = f"{function}({column}, :{prefix}_key, :{prefix}_value)"
    return sql, {f"{prefix}_key": key, f"{prefix}_value": dump_text(value)}


def _with_labels(names: list[str], leads: bool) -> str:
    """The threads that have all labels: a look-up for each, or a walk along the first."""
    if not leads:
        return " AND ".join(_has_label(name, "threads.seq") for name in names)
    first, *others = names
    found = f"SELECT a.thread_seq FROM thread_labels AS a WHERE a.label = :{first}"
    for name in others:
        found += f" AND {_has_label(name, 'a.thread_seq')}"
    return f"threads.seq IN ({found})"


def _has_label(name: str, seq: str) -> str:
    return (
        "EXISTS (SELECT 1 FROM thread_labels AS b"
        f" WHERE b.label = :{name} AND b.thread_seq = {seq})"
    )
