"""The context of a run: what its graph's context schema knows."""

from __future__ import annotations

import dataclasses
from typing import Any, get_type_hints
from weakref import WeakKeyDictionary

from pydantic import BaseModel

from treadle.auth.callers import AUTH_KEYS
from treadle.graphs.registry import Graph

SERVER_KEYS = AUTH_KEYS | {
    "run_id",
    "thread_id",
    "graph_id",
    "assistant_id",
    "langgraph_request_id",
}
"""What the server puts into ``configurable``: no context takes its place."""

_keys: WeakKeyDictionary[Any, frozenset[str]] = WeakKeyDictionary()


def context_keys(schema: Any) -> frozenset[str]:
    """The names of a context schema's fields (TypedDict, dataclass or pydantic model)."""
    found = _keys.get(schema)
    if found is None:
        if dataclasses.is_dataclass(schema):
            names = [field.name for field in dataclasses.fields(schema)]
        elif _is_model(schema):
            names = list(schema.model_fields)
        else:
            names = list(get_type_hints(schema))
        found = _keys[schema] = frozenset(names)
    return found


def context_for(
    graph: Graph, context: dict[str, Any], configurable: dict[str, Any]
) -> dict[str, Any] | None:
    """What ``runtime.context`` is made from.

    If the run has nothing that the schema knows, a dataclass or pydantic model is made of its
    defaults, and the context of any other schema is None. A run's context also goes into
    ``configurable``, key by key.
    """
    schema = graph.context_schema
    if schema is None:
        return None
    keys = context_keys(schema)
    if context:
        known = {key: value for key, value in context.items() if key in keys}
        known |= {key: configurable[key] for key in keys & AUTH_KEYS & configurable.keys()}
        configurable.update({key: known[key] for key in known.keys() - SERVER_KEYS})
        for key in context.keys() - keys - SERVER_KEYS:
            configurable.pop(key, None)
    else:
        known = {key: value for key, value in configurable.items() if key in keys}
    return known if known or _has_defaults(schema) else None


def _has_defaults(schema: Any) -> bool:
    return dataclasses.is_dataclass(schema) or _is_model(schema)


def _is_model(schema: Any) -> bool:
    return isinstance(schema, type) and issubclass(schema, BaseModel)
