"""What authorization handlers are told of what is asked of assistants."""

from __future__ import annotations

from typing import Any

from msgspec import UNSET

from treadle.assistants.models import AssistantCount, AssistantPatch, AssistantSearch

Json = dict[str, Any]

_CREATED = ("assistant_id", "graph_id", "config", "context", "metadata", "name")
_PATCHED = ("graph_id", "config", "context", "name")


def creation(values: Json) -> Json:
    return {key: values[key] for key in _CREATED}


def patch(assistant_id: str, given: AssistantPatch) -> Json:
    """What is not to change is None; metadata is what is to be added."""
    fields = {key: _or(getattr(given, key), None) for key in _PATCHED}
    return {"assistant_id": assistant_id, **fields, "metadata": _or(given.metadata, {})}


def search(wanted: AssistantCount) -> Json:
    """A count is a search for no more than nothing."""
    page = isinstance(wanted, AssistantSearch)
    return {
        "graph_id": _or(wanted.graph_id, None),
        "metadata": _or(wanted.metadata, {}),
        "limit": wanted.limit if page else 0,
        "offset": wanted.offset if page else 0,
    }


def _or(value: Any, default: Any) -> Any:
    return default if value is UNSET else value
