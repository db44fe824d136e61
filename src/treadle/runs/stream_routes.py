"""The endpoints that join streams: of a run, and of a thread."""

from __future__ import annotations

from collections.abc import AsyncIterator

import msgspec

from treadle.cluster.run_rows import is_kept
from treadle.errors import Invalid
from treadle.http.endpoint import Endpoint
from treadle.http.request import Request
from treadle.http.response import Response
from treadle.runs.routes import location
from treadle.runs.service import RunService
from treadle.runs.streams import (
    THREAD_MODES,
    last_event_id,
    replay,
    run_stream,
    thread_stream,
)
from treadle.streaming.entries import Entry
from treadle.streaming.log import EventHub, Reader
from treadle.streaming.retention import EventsTrimmed, KeptEvents


class RunStreamQuery(msgspec.Struct):
    stream_mode: list[str] | None = None
    cancel_on_disconnect: bool = False


class ThreadStreamQuery(msgspec.Struct):
    stream_modes: list[str] | None = None
    stream_mode: list[str] | None = None


def listed(values: list[str] | None) -> frozenset[str]:
    """A repeated parameter with comma lists in it, taken apart."""
    return frozenset(
        part.strip() for value in values or () for part in value.split(",") if part.strip()
    )


class StreamRoutes:
    """Handlers over the run service and the event log."""

    def __init__(self, service: RunService, hub: EventHub) -> None:
        self._service, self._hub, self._kept = service, hub, KeptEvents(hub)

    async def join(self, request: Request) -> Response:
        thread_id, run_id = request.path_id("thread"), request.path_id("run")
        query = request.query(RunStreamQuery)
        after = last_event_id(request.header("last-event-id"), ("-", "-1"))
        reader, row, ended = await self._service.join(
            request.caller, thread_id, run_id, events=True
        )
        resumable = is_kept(row["kwargs"])
        past, trimmed_until = await self._past(
            reader, thread_id, run_id, after if resumable else None
        )

        async def cancel() -> None:
            await self._service.hung_up(request.caller, thread_id, run_id)

        return run_stream(
            reader,
            run_id,
            with_ids=resumable,
            headers=location(f"/threads/{thread_id}/runs/{run_id}", "stream"),
            modes=listed(query.stream_mode),
            past=past,
            seen_until=after if resumable else None,
            trimmed_until=trimmed_until,
            ended=ended,
            abandoned=cancel if query.cancel_on_disconnect else None,
        )

    async def thread(self, request: Request) -> Response:
        thread_id = request.path_id("thread")
        query = request.query(ThreadStreamQuery)
        modes = listed([*(query.stream_modes or ()), *(query.stream_mode or ())])
        for mode in modes:
            if mode not in THREAD_MODES:
                raise Invalid(
                    f"Invalid stream mode: {mode}. Expected any of: {', '.join(THREAD_MODES)}"
                )
        after = last_event_id(request.header("last-event-id"), ("-",))
        await self._service.check_thread(request.caller, thread_id)
        reader = await self._hub.open_reader(thread_id)
        past, trimmed_until = await self._past(reader, thread_id, None, after)
        wanted = modes or frozenset({"run_modes"})
        return thread_stream(reader, wanted, past, after, trimmed_until)

    async def _past(
        self, reader: Reader, thread_id: str, run_id: str | None, after: int | None
    ) -> tuple[AsyncIterator[Entry] | None, int]:
        """What is sent before ``reader`` goes on, and up to where it is trimmed, if that matters.

        Whoever names an event hears ``EventsTrimmed`` if what follows it is no longer kept.
        """
        if after is None:
            return None, 0
        try:
            trimmed_until = await self._kept.check(thread_id, run_id, after)
        except EventsTrimmed:
            reader.close()
            raise
        past = replay(self._kept, thread_id, run_id, after, reader.start_id)
        return past, 0 if after else trimmed_until


def stream_routes(service: RunService, hub: EventHub) -> list[Endpoint]:
    """The endpoints that join streams."""
    on = StreamRoutes(service, hub)
    return [
        Endpoint(
            "GET",
            "/threads/{thread_id}/runs/{run_id}/stream",
            on.join,
            "Thread Runs",
            "Join the stream of a run",
            query=RunStreamQuery,
            stream=True,
            errors=(404, 410, 422),
        ),
        Endpoint(
            "GET",
            "/threads/{thread_id}/stream",
            on.thread,
            "Threads",
            "Stream everything that runs on a thread",
            query=ThreadStreamQuery,
            stream=True,
            errors=(404, 410, 422),
        ),
    ]
