"""The rules of the store's API; the store itself is the one that graphs use."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from langgraph.store.base import NOT_PROVIDED, BaseStore, InvalidNamespaceError, Item, SearchItem
from msgspec import UNSET

from treadle.auth import Caller, authorize
from treadle.errors import Invalid, Refused
from treadle.store.embedding import EmbeddingFailed
from treadle.store.filters import check_filter
from treadle.store.models import ItemDelete, ItemPut, ItemSearch, NamespaceSearch


class StoreService:
    """Items over a ``BaseStore``, in the namespace that the gate makes of the one asked for."""

    def __init__(self, store: BaseStore) -> None:
        self._store = store

    async def put(self, caller: Caller, given: ItemPut) -> None:
        """Store an item in the place of what is there."""
        if given.index is True:
            raise Invalid("index is true, but it has to be false, null or a list of paths")
        value: dict[str, Any] = {
            "namespace": _labels(given.namespace),
            "key": given.key,
            "value": given.value,
            "index": given.index,
            "ttl": None if given.ttl is UNSET else given.ttl,
        }
        await authorize(caller, "store", "put", value)
        try:
            await self._store.aput(
                value["namespace"],
                given.key,
                given.value,
                index=given.index,
                ttl=NOT_PROVIDED if given.ttl is UNSET else given.ttl,
            )
        except (InvalidNamespaceError, EmbeddingFailed, NotImplementedError) as error:
            raise Refused(str(error)) from None

    async def get(
        self, caller: Caller, namespace: str, key: str, refresh_ttl: bool | None
    ) -> dict[str, Any] | None:
        """An item, or None. ``namespace`` is its labels joined with dots."""
        value: dict[str, Any] = {
            "namespace": _labels(namespace.split(".")),
            "key": key,
            "refresh_ttl": refresh_ttl,
        }
        await authorize(caller, "store", "get", value)
        item = await self._store.aget(value["namespace"], key, refresh_ttl=refresh_ttl)
        return None if item is None else _wire(item)

    async def delete(self, caller: Caller, given: ItemDelete) -> None:
        """Delete an item; that it isn't there is fine."""
        value: dict[str, Any] = {"namespace": _labels(given.namespace), "key": given.key}
        await authorize(caller, "store", "delete", value)
        await self._store.adelete(value["namespace"], given.key)

    async def search(self, caller: Caller, wanted: ItemSearch) -> list[dict[str, Any]]:
        """The items below a prefix that the filter lets through, latest update first."""
        try:
            check_filter(wanted.filter or {})
        except ValueError as error:
            raise Refused(str(error)) from None
        value: dict[str, Any] = {
            "namespace": _labels(wanted.namespace_prefix or ()),
            "filter": wanted.filter,
            "limit": wanted.limit,
            "offset": wanted.offset,
            "query": wanted.query,
            "refresh_ttl": wanted.refresh_ttl,
        }
        await authorize(caller, "store", "search", value)
        try:
            found = await self._store.asearch(
                value["namespace"],
                query=wanted.query or None,
                filter=wanted.filter,
                limit=wanted.limit,
                offset=wanted.offset,
                refresh_ttl=wanted.refresh_ttl,
            )
        except EmbeddingFailed as error:
            raise Refused(str(error)) from None
        return [{**_wire(item), "score": item.score} for item in found]

    async def namespaces(self, caller: Caller, wanted: NamespaceSearch) -> list[list[str]]:
        """The namespaces that hold items, in order."""
        suffix = None if wanted.suffix is UNSET else _labels(wanted.suffix)
        max_depth = None if wanted.max_depth is UNSET else wanted.max_depth
        value: dict[str, Any] = {
            "namespace": None if wanted.prefix is UNSET else _labels(wanted.prefix),
            "suffix": suffix,
            "max_depth": max_depth,
            "limit": wanted.limit,
            "offset": wanted.offset,
        }
        await authorize(caller, "store", "list_namespaces", value)
        found = await self._store.alist_namespaces(
            prefix=value["namespace"] or None,
            suffix=suffix or None,
            max_depth=max_depth,
            limit=wanted.limit,
            offset=wanted.offset,
        )
        return [list(path) for path in found]


def _labels(namespace: Sequence[str]) -> tuple[str, ...]:
    """A namespace whose labels are fit to be joined with dots."""
    for label in namespace:
        if not label or "." in label:
            raise Invalid(f"Namespace label '{label}' must be a non-empty string without periods")
    return tuple(namespace)


def _wire(item: Item | SearchItem) -> dict[str, Any]:
    return {
        "namespace": list(item.namespace),
        "key": item.key,
        "value": item.value,
        "created_at": _time(item.created_at),
        "updated_at": _time(item.updated_at),
    }


def _time(moment: datetime) -> str:
    return moment.isoformat(timespec="microseconds")
