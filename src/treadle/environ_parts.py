"""The parts of langgraph.json that images carry in variables, as JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, cast

from treadle.errors import StartupError

PARTS = {
    "LANGSERVE_GRAPHS": "graphs",
    "LANGGRAPH_HTTP": "http",
    "LANGGRAPH_STORE": "store",
    "LANGGRAPH_CHECKPOINTER": "checkpointer",
    "LANGGRAPH_WEBHOOKS": "webhooks",
    "LANGGRAPH_ENCRYPTION": "encryption",
}
"""Each variable with the key whose place it takes."""
CONFIGS_VARIABLE = "LANGGRAPH_CONFIG"


def parts_in(environ: Mapping[str, str]) -> dict[str, Any]:
    """The keys that variables give. Raises ``StartupError`` for what is no JSON object."""
    found = {key: _object(environ, name) for name, key in PARTS.items()}
    return {key: value for key, value in found.items() if value is not None}


def configs_in(environ: Mapping[str, str], graph_ids: frozenset[str]) -> dict[str, dict[str, Any]]:
    """The configs of the graphs' default assistants, by graph. Raises ``StartupError``."""
    found = _object(environ, CONFIGS_VARIABLE) or {}
    for graph_id, config in found.items():
        if graph_id not in graph_ids:
            known = ", ".join(sorted(graph_ids))
            raise StartupError(
                f'{CONFIGS_VARIABLE} names the graph "{graph_id}", which there is none of: {known}.'
            )
        configurable = config.get("configurable", {}) if isinstance(config, dict) else None
        if not isinstance(configurable, dict):
            raise StartupError(
                f"{CONFIGS_VARIABLE}: that of {graph_id} has to be an object such as"
                ' {"configurable": {"model": "small"}}.'
            )
    return found


def _object(environ: Mapping[str, str], name: str) -> dict[str, Any] | None:
    text = environ.get(name, "").strip()
    if not text:
        return None
    try:
        found = json.loads(text)
    except json.JSONDecodeError as error:
        raise StartupError(f"{name} is not valid JSON: {error}.") from None
    if found is not None and not isinstance(found, dict):
        raise StartupError(f"{name} has to hold a JSON object, not {text[:60]}")
    return cast("dict[str, Any] | None", found)
