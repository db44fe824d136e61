"""What goes over the wire about the store."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from msgspec import UNSET, Meta, UnsetType

from treadle.http.pagination import Offset

Count = Annotated[int, Meta(ge=0, le=2**63 - 1)]
Depth = Annotated[int, Meta(ge=1, le=2**31)]
Minutes = Annotated[float, Meta(gt=0)]


class ItemPut(msgspec.Struct):
    """An item. ``index`` is false (not searched by meaning) or the paths to index."""

    namespace: list[str]
    key: str
    value: dict[str, Any]
    index: bool | list[str] | None = None
    ttl: Minutes | UnsetType | None = UNSET


class ItemDelete(msgspec.Struct):
    """Which item to delete."""

    key: str
    namespace: list[str] = []


class ItemQuery(msgspec.Struct):
    """Which item to get: ``namespace`` is its labels joined with dots."""

    namespace: str
    key: str
    refresh_ttl: str = ""


class ItemSearch(msgspec.Struct):
    """Which items to list: those below a namespace that the filter lets through."""

    namespace_prefix: list[str] | None = None
    filter: dict[str, Any] | None = None
    limit: Count = 10
    offset: Offset = 0
    query: str | None = None
    refresh_ttl: bool | None = None


class NamespaceSearch(msgspec.Struct):
    """Which namespaces to list; ``*`` in a prefix or suffix stands for any one label."""

    prefix: list[str] | UnsetType = UNSET
    suffix: list[str] | UnsetType = UNSET
    max_depth: Depth | UnsetType = UNSET
    limit: Count = 100
    offset: Offset = 0


class StoredItem(msgspec.Struct):
    """An item as it is answered."""

    namespace: list[str]
    key: str
    value: dict[str, Any]
    created_at: str
    updated_at: str


class FoundItem(StoredItem):
    """An item of a search; ``score`` is null unless it was ranked by a query."""

    score: float | None = None


class FoundItems(msgspec.Struct):
    items: list[FoundItem]


class FoundNamespaces(msgspec.Struct):
    namespaces: list[list[str]]
