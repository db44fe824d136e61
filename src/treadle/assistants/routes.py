"""The HTTP side of assistants."""

from __future__ import annotations

from typing import Any

import msgspec

from treadle.assistants.introspection import parse_xray
from treadle.assistants.models import (
    Assistant,
    AssistantCount,
    AssistantCreate,
    AssistantPatch,
    AssistantSearch,
    AssistantVersion,
    GraphSchemas,
    LatestVersion,
    VersionsSearch,
)
from treadle.assistants.service import AssistantService
from treadle.http.endpoint import Endpoint
from treadle.http.pagination import page_headers
from treadle.http.request import Request
from treadle.http.response import Response, json_response, no_content

TAG = "Assistants"
ONE = "/assistants/{assistant_id}"


class XrayQuery(msgspec.Struct):
    """``xray``: absent or false, true for all levels, or how many levels to open."""

    xray: str = ""


class RecurseQuery(msgspec.Struct):
    recurse: str = ""


class DeleteQuery(msgspec.Struct):
    delete_threads: str = ""


def routes(service: AssistantService) -> list[Endpoint]:
    """The endpoints of assistants."""

    async def create(request: Request, body: AssistantCreate) -> Response:
        return json_response(_wire(await service.create(request.caller, body)))

    async def get(request: Request) -> Response:
        return json_response(_wire(await service.get(request.caller, _id(request))))

    async def search(request: Request, body: AssistantSearch) -> Response:
        found, total = await service.search(request.caller, body)
        return json_response(found, headers=page_headers(total, body.offset, len(found)))

    async def count(request: Request, body: AssistantCount) -> Response:
        return json_response(await service.count(request.caller, body))

    async def patch(request: Request, body: AssistantPatch) -> Response:
        return json_response(_wire(await service.patch(request.caller, _id(request), body)))

    async def delete(request: Request) -> Response:
        wanted = request.query(DeleteQuery).delete_threads.lower() == "true"
        await service.delete(request.caller, _id(request), wanted)
        return no_content()

    async def versions(request: Request, body: VersionsSearch) -> Response:
        found = await service.versions(request.caller, _id(request), body)
        return json_response([_wire(version) for version in found])

    async def latest(request: Request, body: LatestVersion) -> Response:
        changed = await service.set_latest(request.caller, _id(request), body.version)
        return json_response(_wire(changed))

    async def graph(request: Request) -> Response:
        assistant_id = service.parse_id(request.path("assistant_id"), or_graph=True)
        xray = parse_xray(request.query(XrayQuery).xray)
        return json_response(await service.draw(request.caller, assistant_id, xray))

    async def subgraphs(request: Request) -> Response:
        return json_response(
            await service.subgraphs(request.caller, _id(request), None, _recurse(request))
        )

    async def subgraph(request: Request) -> Response:
        namespace = request.path("namespace")
        return json_response(
            await service.subgraphs(request.caller, _id(request), namespace, _recurse(request))
        )

    async def schemas(request: Request) -> Response:
        return json_response(await service.schemas(request.caller, _id(request)))

    drawing = dict[str, Any]
    return [
        Endpoint("POST", "/assistants", create, TAG, "Create an assistant",
                 body=AssistantCreate, answer=Assistant),
        Endpoint("POST", "/assistants/search", search, TAG, "Search assistants",
                 body=AssistantSearch, answer=list[Assistant]),
        Endpoint("POST", "/assistants/count", count, TAG, "Count assistants",
                 body=AssistantCount, answer=int),
        Endpoint("GET", ONE, get, TAG, "Get an assistant", answer=Assistant),
        Endpoint("PATCH", ONE, patch, TAG, "Update an assistant",
                 body=AssistantPatch, answer=Assistant),
        Endpoint("DELETE", ONE, delete, TAG, "Delete an assistant",
                 query=DeleteQuery, status=204),
        Endpoint("POST", f"{ONE}/versions", versions, TAG, "List an assistant's versions",
                 body=VersionsSearch, answer=list[AssistantVersion]),
        Endpoint("POST", f"{ONE}/latest", latest, TAG, "Set an assistant's current version",
                 body=LatestVersion, answer=Assistant),
        Endpoint("GET", f"{ONE}/graph", graph, TAG, "Draw an assistant's graph",
                 query=XrayQuery, answer=drawing),
        Endpoint("GET", f"{ONE}/subgraphs", subgraphs, TAG, "List subgraphs",
                 query=RecurseQuery, answer=dict[str, GraphSchemas]),
        Endpoint("GET", f"{ONE}/subgraphs/{{namespace}}", subgraph, TAG, "Get one subgraph",
                 query=RecurseQuery, answer=dict[str, GraphSchemas]),
        Endpoint("GET", f"{ONE}/schemas", schemas, TAG, "Get an assistant's JSON schemas",
                 answer=GraphSchemas),
    ]  # fmt: skip


def _id(request: Request) -> str:
    return request.path_id("assistant")


def _recurse(request: Request) -> bool:
    return request.query(RecurseQuery).recurse.lower() == "true"


def _wire(value: Assistant | AssistantVersion) -> dict[str, Any]:
    return msgspec.structs.asdict(value)
