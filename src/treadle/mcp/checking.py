"""Checks values against JSON schemas of graphs."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from treadle.serialization import dumps, loads


def validator(schema: dict[str, Any]) -> Any:
    """A validator of ``jsonschema_rs``; None for a schema that is none. Fetches nothing."""
    return _validator(dumps(schema))


@lru_cache(maxsize=256)
def _validator(schema: bytes) -> Any:
    import jsonschema_rs

    try:
        return jsonschema_rs.validator_for(loads(schema), retriever=_refuse)
    except ValueError:
        return None


def _refuse(uri: str) -> Any:
    raise LookupError(uri)
