"""The fragments of SQL that are PostgreSQL's own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from treadle.serialization import dump_text


class PostgresDialect:
    """See ``treadle.database.Dialect``.

    JSON is kept as text, so that what comes back is what was given, to the order of keys and the
    form of numbers; as ``jsonb`` it is compared, and indexed where an index is worth its room.
    """

    def json_contains(self, column: str, value: Any, prefix: str) -> tuple[str, dict[str, Any]]:
        return f"{column}::jsonb @> :{prefix}_json", {f"{prefix}_json": dump_text(value)}

    def any_of(self, column: str, values: Sequence[Any], prefix: str) -> tuple[str, dict[str, Any]]:
        name = f"{prefix}_values"
        return f"{column} = ANY(:{name})", {name: list(values)}

    def vector(self, floats: Sequence[float]) -> str:
        return f"[{','.join(map(repr, floats))}]"

    def vector_distance(self, column: str, name: str) -> str:
        return f"({column} <=> :{name}::vector)"
