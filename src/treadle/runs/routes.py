"""The endpoints of runs."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Any

from msgspec import UNSET

from treadle.database import Row
from treadle.errors import Invalid
from treadle.http.endpoint import Endpoint
from treadle.http.request import Request
from treadle.http.response import JSON_TYPE, Body, Headers, Response, json_response, no_content
from treadle.ids import parse_id
from treadle.runs.created import Created
from treadle.runs.models import (
    RUN_FIELDS,
    BulkCancelQuery,
    CancelQuery,
    JoinQuery,
    ListQuery,
    Run,
    RunBatch,
    RunCreate,
    RunsCancel,
    StatelessRunCreate,
    WatchedRunCreate,
    WatchedStatelessRunCreate,
)
from treadle.runs.service import RunService
from treadle.runs.streams import run_stream
from treadle.runs.waiting import WaitForRun

Watched = WatchedRunCreate | WatchedStatelessRunCreate
ON_THREAD, STATELESS = "Thread Runs", "Stateless Runs"


def location(place: str, tail: str = "") -> Headers:
    """Where a run is (``Content-Location``), and where its answer can be had again."""
    headers = [(b"content-location", place.encode())]
    if tail:
        headers.append((b"location", f"{place}/{tail}".encode()))
    return headers


class Routes:
    """Handlers over the run service."""

    def __init__(self, service: RunService) -> None:
        self._service = service

    # -- creating --------------------------------------------------------------------------

    async def _create(self, request: Request, body: RunCreate, watch: Any = "nothing") -> Created:
        thread_id = (
            request.path_id("thread") if "thread_id" in request.scope["path_params"] else None
        )
        key = request.idempotency_key(body)
        return await self._service.create(
            request.caller, request.request_id, thread_id, body, watch, key
        )

    def _leaving(
        self, request: Request, body: Watched, created: Created
    ) -> Callable[[], Awaitable[None]] | None:
        if body.on_disconnect != "cancel":
            return None
        return self._cancel_of(request, created.thread_id, created.run_id)

    def _cancel_of(
        self, request: Request, thread_id: str, run_id: str
    ) -> Callable[[], Awaitable[None]]:
        async def cancel() -> None:
            await self._service.hung_up(request.caller, thread_id, run_id)

        return cancel

    async def create(self, request: Request, body: RunCreate) -> Response:
        created = await self._create(request, body)
        place = f"/runs/{created.run_id}"
        if not created.stateless:
            place = f"/threads/{created.thread_id}{place}"
        return json_response(created.json, headers=location(place))

    async def wait(self, request: Request, body: Watched) -> Response:
        created = await self._create(request, body, "end")
        assert created.reader is not None
        place = f"/threads/{created.thread_id}/runs/{created.run_id}"
        if created.ended is not None:
            return await self._ended(created.ended, location(place, "join"))
        return WaitForRun(
            created.reader,
            created.run_id,
            headers=location(place, "join"),
            abandoned=self._leaving(request, body, created),
        )

    async def stream(self, request: Request, body: Watched) -> Response:
        created = await self._create(request, body, "events")
        assert created.reader is not None
        place = f"/threads/{created.thread_id}/runs/{created.run_id}"
        headers = location(place, "stream")
        if created.stateless:
            shown = f"/runs/{created.run_id}".encode()
            headers = [(b"content-location", shown), headers[1]]
        return run_stream(
            created.reader,
            created.run_id,
            with_ids=created.resumable,
            headers=headers,
            past=self._service.past_of(created),
            ended=created.ended is not None,
            abandoned=self._leaving(request, body, created),
        )

    async def batch(self, request: Request, body: Sequence[StatelessRunCreate]) -> Response:
        key = request.idempotency_key(body)
        created = await self._service.create_many(
            request.caller, request.request_id, None, body, "nothing", key
        )
        return json_response([run.json for run in created])

    # -- reading ---------------------------------------------------------------------------

    async def list(self, request: Request) -> Response:
        thread_id = request.path_id("thread")
        query = request.query(ListQuery)
        select = query.select or []
        if unknown := [name for name in select if name not in RUN_FIELDS]:
            raise Invalid(f"Invalid select columns: {unknown}. Expected: {sorted(RUN_FIELDS)}")
        runs = await self._service.list(
            request.caller,
            thread_id,
            limit=query.limit,
            offset=query.offset,
            status=query.status,
        )
        if select:
            runs = [{name: run[name] for name in select} for run in runs]
        return json_response(runs)

    async def get(self, request: Request) -> Response:
        thread_id, run_id = request.path_id("thread"), request.path_id("run")
        return json_response(await self._service.get(request.caller, thread_id, run_id))

    async def join(self, request: Request) -> Response:
        thread_id, run_id = request.path_id("thread"), request.path_id("run")
        query = request.query(JoinQuery)
        reader, row, ended = await self._service.join(
            request.caller, thread_id, run_id, events=False
        )
        headers = location(f"/threads/{thread_id}/runs/{run_id}", "join")
        if ended:
            reader.close()
            return await self._ended(row, headers)
        leaving = (
            self._cancel_of(request, thread_id, run_id) if query.cancel_on_disconnect else None
        )
        finish = partial(self._service.joined_output, thread_id, run_id)
        return WaitForRun(reader, run_id, headers=headers, finish=finish, abandoned=leaving)

    async def _ended(self, row: Row, headers: Headers) -> Body:
        return Body(await self._service.ended_output(row), headers=(JSON_TYPE, *headers))

    # -- ending ----------------------------------------------------------------------------

    async def cancel(self, request: Request) -> Response:
        thread_id, run_id = request.path_id("thread"), request.path_id("run")
        query = request.query(CancelQuery)
        whose = request.caller, thread_id, run_id, query.action
        if not query.wait:
            await self._service.cancel(*whose)
            return json_response({}, 202)
        reader = await self._service.cancel_watched(*whose)
        headers = location(f"/threads/{thread_id}/runs/{run_id}", "join")
        return WaitForRun(reader, run_id, headers=headers, finish=lambda _: b"{}")

    async def cancel_many(self, request: Request, body: RunsCancel) -> Response:
        action = request.query(BulkCancelQuery).action
        if body.status is not UNSET and body.thread_id is UNSET and body.run_ids is UNSET:
            await self._service.cancel_by_status(request.caller, body.status, action)
        elif body.status is UNSET and body.thread_id is not UNSET and body.run_ids is not UNSET:
            thread_id = parse_id(body.thread_id, "thread")
            run_ids = [parse_id(run_id, "run") for run_id in body.run_ids]
            await self._service.cancel_many(request.caller, thread_id, run_ids, action)
        else:
            raise Invalid("Give either status, or both thread_id and run_ids")
        return no_content()

    async def delete(self, request: Request) -> Response:
        thread_id, run_id = request.path_id("thread"), request.path_id("run")
        await self._service.delete(request.caller, thread_id, run_id)
        return no_content()


def routes(service: RunService) -> list[Endpoint]:
    """The endpoints of runs, but for those that join streams (``streaming/routes.py``)."""
    on = Routes(service)
    runs, one = "/threads/{thread_id}/runs", "/threads/{thread_id}/runs/{run_id}"
    output = Any
    return [
        Endpoint("POST", runs, on.create, ON_THREAD, "Create a run", RunCreate, answer=Run),
        Endpoint("GET", runs, on.list, ON_THREAD, "List runs", query=ListQuery, answer=list[Run]),
        Endpoint(
            "POST",
            f"{runs}/wait",
            on.wait,
            ON_THREAD,
            "Create a run and wait for its output",
            WatchedRunCreate,
            answer=output,
        ),
        Endpoint(
            "POST",
            f"{runs}/stream",
            on.stream,
            ON_THREAD,
            "Create a run and stream it",
            WatchedRunCreate,
            stream=True,
        ),
        Endpoint("GET", one, on.get, ON_THREAD, "Get a run", answer=Run),
        Endpoint("DELETE", one, on.delete, ON_THREAD, "Delete a run", status=204),
        Endpoint(
            "GET",
            f"{one}/join",
            on.join,
            ON_THREAD,
            "Wait for a run's output",
            query=JoinQuery,
            answer=output,
        ),
        Endpoint(
            "POST",
            f"{one}/cancel",
            on.cancel,
            ON_THREAD,
            "Cancel a run",
            query=CancelQuery,
            answer=dict[str, Any],
        ),
        Endpoint(
            "POST", "/runs", on.create, STATELESS, "Create a run", StatelessRunCreate, answer=Run
        ),
        Endpoint(
            "POST",
            "/runs/wait",
            on.wait,
            STATELESS,
            "Create a run and wait for its output",
            WatchedStatelessRunCreate,
            answer=output,
        ),
        Endpoint(
            "POST",
            "/runs/stream",
            on.stream,
            STATELESS,
            "Create a run and stream it",
            WatchedStatelessRunCreate,
            stream=True,
        ),
        Endpoint(
            "POST",
            "/runs/batch",
            on.batch,
            STATELESS,
            "Create several runs",
            RunBatch,
            answer=list[Run],
        ),
        Endpoint(
            "POST",
            "/runs/cancel",
            on.cancel_many,
            STATELESS,
            "Cancel several runs",
            RunsCancel,
            query=BulkCancelQuery,
            status=204,
        ),
    ]
