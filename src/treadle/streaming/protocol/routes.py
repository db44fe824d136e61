"""The endpoints of protocol v2."""

from __future__ import annotations

from typing import Any, cast

import msgspec

from treadle.errors import Invalid, Refused
from treadle.http.endpoint import Endpoint, Request, SocketEndpoint
from treadle.http.response import Response, json_response
from treadle.http.socket import WebSocket
from treadle.http.validation import body_decoder
from treadle.ids import parse_id
from treadle.runs.service import RunService
from treadle.streaming.log import EventHub
from treadle.streaming.protocol.channels import NO_CHANNELS, natural, read_filter
from treadle.streaming.protocol.commands import (
    Commands,
    Context,
    bad_envelope,
    error_json,
    is_envelope,
    params_of,
)
from treadle.streaming.protocol.feed import Feed
from treadle.streaming.protocol.sse import event_stream
from treadle.streaming.protocol.websocket import Session, unsubscribed_id

Json = dict[str, Any]

INVALID_JSON = "Invalid JSON body"
NEEDS_SOCKET = (
    "{} needs a connection that events come back on: use a WebSocket, or the body of"
    " POST /threads/{}/stream/events."
)

_decode = body_decoder(Any)


class EventStreamRequest(msgspec.Struct):
    """Which events of a thread to stream."""

    channels: list[str]
    namespaces: list[list[str]] = []
    depth: int | None = None
    since: int = 0


class Command(msgspec.Struct):
    """A command for a thread."""

    id: int
    method: str
    params: dict[str, Any] = {}


class CommandAnswer(msgspec.Struct):
    """The answer to a command: ``success`` with a result, or ``error`` with code and message."""

    type: str
    id: int | None
    result: dict[str, Any] | None = None
    error: str | None = None
    message: str | None = None
    meta: dict[str, int] | None = None


class ProtocolRoutes:
    """Handlers over the event log and the commands."""

    def __init__(self, runs: RunService, hub: EventHub, commands: Commands) -> None:
        self._runs, self._hub, self._commands = runs, hub, commands

    async def events(self, request: Request, raw: bytes) -> Response:
        """The stream goes on over all runs of the thread, until the client closes it."""
        thread_id = request.path_id("thread")
        body = _json(raw)
        if not isinstance(body, dict):
            raise Refused(NO_CHANNELS)
        wanted = read_filter(cast("Json", body))
        since = natural(cast("Json", body), "since") or 0
        feed = await self._feed(request, thread_id)
        try:
            await feed.check(since)
        except BaseException:
            feed.close()
            raise
        return event_stream(feed, wanted, since)

    async def command(self, request: Request, raw: bytes) -> Response:
        """One command and its answer. Errors of commands are answered with 200."""
        command = _json(raw)
        if not is_envelope(command):
            return json_response(bad_envelope(command), 400)
        return json_response(await self._answer(request, command))

    async def _answer(self, request: Request, command: Json) -> Json:
        """The answer of the protocol. Raises ``NotFound`` for a thread that is kept from view."""
        id, method, thread_id = command["id"], command["method"], request.path("thread_id")
        try:
            thread_id = parse_id(thread_id, "thread")
            if method == "subscription.unsubscribe":
                unknown = unsubscribed_id(params_of(command))
                return error_json(id, "no_such_subscription", f"Unknown subscription: {unknown}")
        except Invalid as error:
            return error_json(id, "invalid_argument", str(error))
        if method in ("subscription.subscribe", "subscription.reconnect"):
            return error_json(id, "not_supported", NEEDS_SOCKET.format(method, thread_id))

        async def seq_of(seq_before: int | None) -> int:
            return await self._hub.last_seq(thread_id) if seq_before is None else seq_before

        await self._runs.may_watch(request.caller, thread_id)
        context = Context(request.caller, request.request_id, thread_id)
        return await self._commands.answer(context, command, seq_of)

    async def socket(self, request: Request, socket: WebSocket) -> None:
        """Commands in, answers and events out."""
        thread_id = request.path_id("thread")
        feed = await self._feed(request, thread_id)
        context = Context(request.caller, request.request_id, thread_id)
        await Session(socket, feed, self._commands, context).serve()

    async def _feed(self, request: Request, thread_id: str) -> Feed:
        may_see = await self._runs.may_watch(request.caller, thread_id)
        return await Feed.open(self._hub, thread_id, may_see)


def _json(raw: bytes) -> Any:
    try:
        return _decode(raw)
    except Invalid:
        raise Refused(INVALID_JSON) from None


def protocol_routes(
    runs: RunService, hub: EventHub, commands: Commands
) -> tuple[list[Endpoint], list[SocketEndpoint]]:
    """The endpoints of protocol v2, and those for WebSockets."""
    on = ProtocolRoutes(runs, hub, commands)
    events = "/threads/{thread_id}/stream/events"
    return [
        Endpoint(
            "POST",
            events,
            on.events,
            "Event streaming",
            "Stream the events of a thread",
            EventStreamRequest,
            raw_body=True,
            stream=True,
            errors=(400, 404, 410, 422),
        ),
        Endpoint(
            "POST",
            "/threads/{thread_id}/commands",
            on.command,
            "Event streaming",
            "Give a command for a thread",
            Command,
            raw_body=True,
            answer=CommandAnswer,
            errors=(400,),
        ),
    ], [SocketEndpoint(events, on.socket)]
