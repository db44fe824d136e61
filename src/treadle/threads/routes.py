"""The thread endpoints."""

from __future__ import annotations

from treadle.http.endpoint import Endpoint, Request
from treadle.http.response import Response, json_response, no_content
from treadle.threads import models
from treadle.threads.service import ThreadService

TAG = "Threads"
THREAD = "/threads/{thread_id}"


class ThreadRoutes:
    """From requests to the services, and back."""

    def __init__(self, service: ThreadService) -> None:
        self._threads = service
        self._states = service.states
        self._finder = service.finder

    # -- threads ---------------------------------------------------------------------------

    async def create(self, request: Request, body: models.ThreadCreate) -> Response:
        key = request.idempotency_key(body)
        return json_response(await self._threads.create(request.caller, body, key))

    async def search(self, request: Request, body: models.ThreadSearch) -> Response:
        page = await self._finder.search(request.caller, body)
        headers = [(b"x-pagination-total", str(page.total).encode())]
        if page.next_offset is not None:
            headers.append((b"x-pagination-next", str(page.next_offset).encode()))
        return json_response(page.threads, headers=headers)

    async def count(self, request: Request, body: models.ThreadCount) -> Response:
        return json_response(await self._finder.count(request.caller, body))

    async def prune(self, request: Request, body: models.ThreadPrune) -> Response:
        count = await self._threads.prune(request.caller, body.thread_ids, body.strategy)
        return json_response({"pruned_count": count})

    async def get(self, request: Request) -> Response:
        thread_id = request.path_id("thread")
        if not request.scope["query_string"]:
            return json_response(await self._threads.get(request.caller, thread_id))
        query = request.query(models.ThreadQuery)
        return json_response(await self._threads.get(request.caller, thread_id, query.include))

    async def patch(self, request: Request, body: models.ThreadPatch) -> Response:
        thread = await self._threads.patch(request.caller, request.path_id("thread"), body)
        if "return=minimal" in (request.header("prefer") or ""):
            return no_content()
        return json_response(thread)

    async def delete(self, request: Request) -> Response:
        await self._threads.delete(request.caller, request.path_id("thread"))
        return no_content()

    async def copy(self, request: Request) -> Response:
        return json_response(await self._threads.copy(request.caller, request.path_id("thread")))

    async def storage(self, request: Request) -> Response:
        thread_id = request.path_id("thread")
        return json_response(await self._threads.storage(request.caller, thread_id))

    # -- states ----------------------------------------------------------------------------

    async def state(self, request: Request) -> Response:
        thread_id = request.path_id("thread")
        query = request.query(models.StateQuery)
        state = await self._states.get(
            request.caller, thread_id, subgraphs=_is_true(query.subgraphs), select=query.select
        )
        return json_response(state)

    async def state_by_id(self, request: Request) -> Response:
        thread_id = request.path_id("thread")
        query = request.query(models.StateQuery)
        checkpoint = {"checkpoint_id": request.path("checkpoint_id")}
        state = await self._states.get(
            request.caller,
            thread_id,
            checkpoint,
            subgraphs=_is_true(query.subgraphs),
            select=query.select,
        )
        return json_response(state)

    async def state_at(self, request: Request, body: models.StateAtCheckpoint) -> Response:
        thread_id = request.path_id("thread")
        state = await self._states.get(
            request.caller,
            thread_id,
            body.checkpoint,
            subgraphs=body.subgraphs,
            select=body.select,
        )
        return json_response(state)

    async def update(self, request: Request, body: models.StateUpdate) -> Response:
        thread_id = request.path_id("thread")
        return json_response(await self._states.update(request.caller, thread_id, body))

    async def history(self, request: Request) -> Response:
        thread_id = request.path_id("thread")
        query = request.query(models.HistoryQuery)
        states = await self._states.history(
            request.caller,
            thread_id,
            limit=query.limit,
            before=query.before,
            select=query.select,
        )
        return json_response(states)

    async def search_history(self, request: Request, body: models.History) -> Response:
        thread_id = request.path_id("thread")
        states = await self._states.history(
            request.caller,
            thread_id,
            limit=body.limit,
            before=body.before,
            metadata=body.metadata,
            checkpoint=body.checkpoint,
            select=body.select,
        )
        return json_response(states)


def _is_true(text: str) -> bool:
    return text.lower() in ("true", "1")


def routes(service: ThreadService) -> list[Endpoint]:
    """The endpoints of threads and their states."""
    return [*_thread_endpoints(ThreadRoutes(service)), *_state_endpoints(ThreadRoutes(service))]


def _thread_endpoints(r: ThreadRoutes) -> list[Endpoint]:
    thread = models.Thread
    return [
        Endpoint(
            "POST",
            "/threads",
            r.create,
            TAG,
            "Create a thread",
            body=models.ThreadCreate,
            answer=thread,
        ),
        Endpoint(
            "POST",
            "/threads/search",
            r.search,
            TAG,
            "Search threads",
            body=models.ThreadSearch,
            answer=list[models.Thread],
        ),
        Endpoint(
            "POST",
            "/threads/count",
            r.count,
            TAG,
            "Count threads",
            body=models.ThreadCount,
            answer=int,
        ),
        Endpoint(
            "POST",
            "/threads/prune",
            r.prune,
            TAG,
            "Delete threads, or all but their latest states",
            body=models.ThreadPrune,
            answer=models.PruneAnswer,
        ),
        Endpoint(
            "GET", THREAD, r.get, TAG, "Get a thread", query=models.ThreadQuery, answer=thread
        ),
        Endpoint(
            "PATCH",
            THREAD,
            r.patch,
            TAG,
            "Merge metadata into a thread's",
            body=models.ThreadPatch,
            answer=thread,
        ),
        Endpoint("DELETE", THREAD, r.delete, TAG, "Delete a thread with all on it", status=204),
        Endpoint("POST", f"{THREAD}/copy", r.copy, TAG, "Copy a thread", answer=thread),
        Endpoint(
            "GET",
            f"{THREAD}/storage",
            r.storage,
            TAG,
            "Measure what a thread's states take",
            answer=models.Storage,
        ),
    ]


def _state_endpoints(r: ThreadRoutes) -> list[Endpoint]:
    return [
        Endpoint(
            "GET",
            f"{THREAD}/state",
            r.state,
            TAG,
            "Get the latest state",
            query=models.StateQuery,
            answer=models.State,
        ),
        Endpoint(
            "POST",
            f"{THREAD}/state",
            r.update,
            TAG,
            "Update the state",
            body=models.StateUpdate,
            answer=models.StateUpdateAnswer,
            errors=(400, 404, 409, 422),
        ),
        Endpoint(
            "GET",
            f"{THREAD}/state/{{checkpoint_id}}",
            r.state_by_id,
            TAG,
            "Get the state at a checkpoint, by its id",
            query=models.StateQuery,
            answer=models.State,
        ),
        Endpoint(
            "POST",
            f"{THREAD}/state/checkpoint",
            r.state_at,
            TAG,
            "Get the state at a checkpoint",
            body=models.StateAtCheckpoint,
            answer=models.State,
        ),
        Endpoint(
            "GET",
            f"{THREAD}/history",
            r.history,
            TAG,
            "List the states, newest first",
            query=models.HistoryQuery,
            answer=list[models.State],
        ),
        Endpoint(
            "POST",
            f"{THREAD}/history",
            r.search_history,
            TAG,
            "Search the states, newest first",
            body=models.History,
            answer=list[models.State],
        ),
    ]
