"""What goes over the wire about assistants."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType

from treadle.errors import Invalid
from treadle.http.pagination import Limit, Offset
from treadle.serialization import excerpt

AssistantField = Literal[
    "assistant_id", "graph_id", "config", "context", "metadata", "name", "description",
    "created_at", "updated_at", "version",
]  # fmt: skip
SortBy = Literal["assistant_id", "created_at", "updated_at", "name", "graph_id"]
LONGEST_NAME_FILTER_CHARACTERS = 4000  # its LIKE pattern stays below SQLite's 50,000 bytes


_CONFIG_SCHEMA = {
    "properties": {
        "tags": {"type": "array", "items": {"type": "string"}},
        "recursion_limit": {"type": "integer"},
        "configurable": {"type": "object"},
    }
}
Config = Annotated[dict[str, Any], Meta(extra_json_schema=_CONFIG_SCHEMA)]


def check_config(config: dict[str, Any]) -> dict[str, Any]:
    """``config`` if its known keys are of the right type; other keys are kept as they are."""
    tags = config.get("tags", [])
    if not isinstance(tags, list) or not all(isinstance(tag, str) for tag in tags):
        raise Invalid(f"config.tags is {excerpt(tags, 100)}, but has to be a list of strings")
    if not isinstance(config.get("configurable", {}), dict):
        given = excerpt(config["configurable"], 100)
        raise Invalid(f"config.configurable is {given}, but has to be an object")
    limit = config.get("recursion_limit", 1)
    if isinstance(limit, float) and limit.is_integer():
        return {**config, "recursion_limit": int(limit)}
    if isinstance(limit, bool) or not isinstance(limit, int):
        raise Invalid(f"config.recursion_limit is {excerpt(limit, 100)}, but has to be an integer")
    return config


class Assistant(msgspec.Struct, frozen=True):
    """A graph with a configuration. Its dicts are shared: read them, do not change them."""

    assistant_id: str
    graph_id: str
    config: dict[str, Any]
    context: dict[str, Any]
    metadata: dict[str, Any]
    name: str
    description: str | None
    version: int
    created_at: str
    updated_at: str


class AssistantVersion(msgspec.Struct, frozen=True):
    """An assistant as one of its updates left it; ``created_at`` is the time of the update."""

    assistant_id: str
    version: int
    graph_id: str
    config: dict[str, Any]
    context: dict[str, Any]
    metadata: dict[str, Any]
    created_at: str
    name: str
    description: str | None


class AssistantCreate(msgspec.Struct):
    """A new assistant. Give ``context`` or ``config.configurable``, not both."""

    graph_id: str
    assistant_id: str | UnsetType = UNSET
    if_exists: Literal["raise", "do_nothing"] = "raise"
    config: Config | UnsetType = UNSET
    context: dict[str, Any] | UnsetType = UNSET
    metadata: dict[str, Any] | UnsetType = UNSET
    name: str | UnsetType = UNSET
    description: str | None = None


class AssistantPatch(msgspec.Struct):
    """What changes: metadata is merged key by key, everything else replaced."""

    graph_id: str | UnsetType = UNSET
    config: Config | UnsetType = UNSET
    context: dict[str, Any] | UnsetType = UNSET
    metadata: dict[str, Any] | UnsetType = UNSET
    name: str | UnsetType = UNSET
    description: str | UnsetType = UNSET


class AssistantCount(msgspec.Struct):
    """Which assistants to count. ``name`` is a part of the name, in any case."""

    metadata: dict[str, Any] | UnsetType = UNSET
    graph_id: str | UnsetType = UNSET
    name: Annotated[str, Meta(max_length=LONGEST_NAME_FILTER_CHARACTERS)] | UnsetType = UNSET


class AssistantSearch(AssistantCount):
    """Which assistants to list, in what order, and which of their fields."""

    limit: Limit = 10
    offset: Offset = 0
    sort_by: SortBy | UnsetType = UNSET
    sort_order: Literal["asc", "desc"] | UnsetType = UNSET
    select: list[AssistantField] | UnsetType = UNSET


class VersionsSearch(msgspec.Struct):
    """Which versions of an assistant to list."""

    metadata: dict[str, Any] | UnsetType = UNSET
    limit: Limit = 10
    offset: Offset = 0


class LatestVersion(msgspec.Struct):
    """The version that is to be the current one."""

    version: int


class GraphSchemas(msgspec.Struct):
    """JSON schemas of a graph: what it takes, gives and keeps, and its context."""

    graph_id: str
    input_schema: dict[str, Any] | None
    output_schema: dict[str, Any] | None
    state_schema: dict[str, Any] | None
    config_schema: dict[str, Any] | None
    context_schema: dict[str, Any] | None
