"""The HTTP side of crons."""

from __future__ import annotations

from typing import Any

from treadle.crons.models import Cron, CronCount, CronCreate, CronPatch, CronSearch
from treadle.crons.service import CronService
from treadle.http.endpoint import Endpoint
from treadle.http.pagination import page_headers
from treadle.http.request import Request
from treadle.http.response import Response, json_response, no_content
from treadle.http.validation import body_decoder

TAG = "Crons"
ALL, ONE = "/runs/crons", "/runs/crons/{cron_id}"
ON_THREAD = "/threads/{thread_id}/runs/crons"

_whole_body = body_decoder(dict[str, Any])


def routes(service: CronService) -> list[Endpoint]:
    """The endpoints of crons."""

    async def create(request: Request, body: CronCreate) -> Response:
        sent = _whole_body(request.raw_body)
        return json_response(await service.create(request.caller, None, body, sent))

    async def create_on_thread(request: Request, body: CronCreate) -> Response:
        thread_id, sent = request.path_id("thread"), _whole_body(request.raw_body)
        return json_response(await service.create(request.caller, thread_id, body, sent))

    async def get(request: Request) -> Response:
        return json_response(await service.get(request.caller, request.path_id("cron")))

    async def search(request: Request, body: CronSearch) -> Response:
        found, total = await service.search(request.caller, body)
        return json_response(found, headers=page_headers(total, body.offset, len(found)))

    async def count(request: Request, body: CronCount) -> Response:
        return json_response(await service.count(request.caller, body))

    async def patch(request: Request, body: CronPatch) -> Response:
        cron_id, sent = request.path_id("cron"), _whole_body(request.raw_body)
        return json_response(await service.patch(request.caller, cron_id, body, sent))

    async def delete(request: Request) -> Response:
        await service.delete(request.caller, request.path_id("cron"))
        return no_content()

    return [
        Endpoint("POST", ALL, create, TAG, "Create a cron", body=CronCreate, answer=Cron),
        Endpoint("POST", ON_THREAD, create_on_thread, TAG, "Create a cron on a thread",
                 body=CronCreate, answer=Cron),
        Endpoint("POST", f"{ALL}/search", search, TAG, "Search crons",
                 body=CronSearch, answer=list[Cron]),
        Endpoint("POST", f"{ALL}/count", count, TAG, "Count crons", body=CronCount, answer=int),
        Endpoint("GET", ONE, get, TAG, "Get a cron", answer=Cron),
        Endpoint("PATCH", ONE, patch, TAG, "Update a cron", body=CronPatch, answer=Cron),
        Endpoint("DELETE", ONE, delete, TAG, "Delete a cron", status=204),
    ]  # fmt: skip
