"""The fragments of SQL that are PostgreSQL's own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from treadle.serialization import dump_text

# What contains an element need not have one that equals it: that is a matter of elements too.
_HAS_ELEMENTS = """ AND CASE WHEN jsonb_typeof({array}) = 'array' THEN NOT EXISTS (
    SELECT 1 FROM jsonb_array_elements(:{prefix}_value::jsonb) AS wanted WHERE NOT EXISTS (
        SELECT 1 FROM jsonb_array_elements({array}) AS found WHERE found.value = wanted.value))
    ELSE FALSE END"""


class PostgresDialect:
    """See ``treadle.database.Dialect``.

    JSON is kept as text, so that what comes back is what was given, to the order of keys and the
    form of numbers; as ``jsonb`` it is compared, and indexed where an index is worth its room.
    """

    def json_contains(
        self, column: str, value: Any, prefix: str, *, leads: bool = True
    ) -> tuple[str, dict[str, Any]]:
        return f"{column}::jsonb @> :{prefix}_json", {f"{prefix}_json": dump_text(value)}

    def json_equals(
        self, column: str, key: str, value: Any, prefix: str, *, leads: bool
    ) -> tuple[str, dict[str, Any]]:
        sql, params = self.json_contains(column, {key: value}, prefix)
        if not isinstance(value, dict | list):
            return sql, params
        sql += f" AND {column}::jsonb -> :{prefix}_key::text = :{prefix}_value::jsonb"
        return sql, {**params, f"{prefix}_key": key, f"{prefix}_value": dump_text(value)}

    def json_has(
        self, column: str, key: str, values: Sequence[Any], prefix: str
    ) -> tuple[str, dict[str, Any]]:
        sql, params = self.json_contains(column, {key: list(values)}, prefix)
        if not any(isinstance(value, dict | list) for value in values):
            return sql, params
        sql += _HAS_ELEMENTS.format(array=f"{column}::jsonb -> :{prefix}_key::text", prefix=prefix)
        return sql, {**params, f"{prefix}_key": key, f"{prefix}_value": dump_text(list(values))}

    def any_of(self, column: str, values: Sequence[Any], prefix: str) -> tuple[str, dict[str, Any]]:
        name = f"{prefix}_values"
        return f"{column} = ANY(:{name})", {name: list(values)}

    def vector(self, floats: Sequence[float]) -> str:
        return f"[{','.join(map(repr, floats))}]"

    def vector_distance(self, column: str, name: str) -> str:
        return f"({column} <=> :{name}::vector)"
