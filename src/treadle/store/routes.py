"""The HTTP side of the store."""

from __future__ import annotations

from treadle.errors import Invalid, Refused
from treadle.http.endpoint import Endpoint
from treadle.http.request import Request
from treadle.http.response import Response, json_response, no_content
from treadle.store.models import (
    FoundItems,
    FoundNamespaces,
    ItemDelete,
    ItemPut,
    ItemQuery,
    ItemSearch,
    NamespaceSearch,
    StoredItem,
)
from treadle.store.service import StoreService

TAG = "Store"
ITEMS = "/store/items"
_REFRESH = {"true": True, "false": False}


def routes(service: StoreService) -> list[Endpoint]:
    """The endpoints of the store."""

    async def put(request: Request, body: ItemPut) -> Response:
        await service.put(request.caller, body)
        return no_content()

    async def get(request: Request) -> Response:
        keys, namespaces = request.query_values("key"), request.query_values("namespace")
        if not keys:
            raise Refused("Query parameter key is required")
        if not namespaces:
            raise Invalid("Query parameter namespace is required: labels joined with dots")
        refresh = "".join(request.query_values("refresh_ttl")[-1:]).lower()
        item = await service.get(request.caller, namespaces[-1], keys[-1], _REFRESH.get(refresh))
        return json_response(item)

    async def delete(request: Request, body: ItemDelete) -> Response:
        await service.delete(request.caller, body)
        return no_content()

    async def search(request: Request, body: ItemSearch) -> Response:
        return json_response({"items": await service.search(request.caller, body)})

    async def namespaces(request: Request, body: NamespaceSearch) -> Response:
        return json_response({"namespaces": await service.namespaces(request.caller, body)})

    return [
        Endpoint("PUT", ITEMS, put, TAG, "Store an item", body=ItemPut, status=204),
        Endpoint("GET", ITEMS, get, TAG, "Get an item", query=ItemQuery, answer=StoredItem | None),
        Endpoint("DELETE", ITEMS, delete, TAG, "Delete an item", body=ItemDelete, status=204),
        Endpoint("POST", f"{ITEMS}/search", search, TAG, "Search items",
                 body=ItemSearch, answer=FoundItems),
        Endpoint("POST", "/store/namespaces", namespaces, TAG, "List namespaces",
                 body=NamespaceSearch, answer=FoundNamespaces),
    ]  # fmt: skip
