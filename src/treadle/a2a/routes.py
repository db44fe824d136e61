"""The endpoints of A2A: agent cards, and JSON-RPC."""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from treadle.a2a.calls import Calls
from treadle.a2a.cards import SCOPE_HEADER, SCOPES
from treadle.a2a.errors import INVALID_PARAMS, RpcError, invalid, refusal
from treadle.a2a.rpc import BadEnvelope, Call, error_json, parse_call
from treadle.a2a.service import A2AService, Ask
from treadle.errors import Invalid, NotFound, RequestError
from treadle.http.endpoint import Endpoint
from treadle.http.request import Request
from treadle.http.response import Body, Response, json_response

TAG = "A2A"
ONE = "/a2a/{assistant_id}"
CARD = "/.well-known/agent-card.json"
STREAM_TYPE = "text/event-stream"


class CardQuery(msgspec.Struct):
    assistant_id: str


class RpcRequest(msgspec.Struct):
    """A JSON-RPC call."""

    jsonrpc: Literal["2.0"]
    id: str | int
    method: str
    params: dict[str, Any] = {}


class RpcResponse(msgspec.Struct):
    """A JSON-RPC answer: with a ``result``, or an ``error`` that has a code and a message."""

    jsonrpc: Literal["2.0"]
    id: str | float | None
    result: Any = None
    error: dict[str, Any] | None = None


class Routes:
    """Handlers over the service, and over the methods of JSON-RPC."""

    def __init__(self, service: A2AService, mount_prefix: str) -> None:
        self._service, self._prefix = service, mount_prefix
        self._calls = Calls(service)

    # -- cards -----------------------------------------------------------------------------

    async def card_by_query(self, request: Request) -> Response:
        """The card of the assistant that ``assistant_id`` names, or of a graph's default one."""
        name = (request.query_values("assistant_id") or [""])[-1]
        if not name:
            return _card_error("Missing required query parameter: assistant_id", 400)
        try:
            return await self._card(request, name)
        except NotFound as error:
            return _card_error(str(error), 400)
        except Invalid as error:
            return _card_error(f"Failed to get assistant '{name[:100]}': {error}", 400)

    async def card_by_path(self, request: Request) -> Response:
        """The agent's card, below its own address."""
        try:
            return await self._card(request, request.path("assistant_id"))
        except (NotFound, Invalid) as error:
            return _card_error(str(error), 404)

    async def _card(self, request: Request, name: str) -> Response:
        assistant = await self._service.assistant(request.caller, name)
        base_url = self._base_url(request)
        return json_response(await self._service.card(request.caller, assistant, base_url))

    def _base_url(self, request: Request) -> str:
        """Where this server is, as the client sees it."""
        scheme: str = request.scope["scheme"]
        host = request.header("host")
        if host is None:
            name, port = request.scope.get("server") or ("localhost", None)
            host = f"{name}:{port}" if port else name
        return f"{scheme}://{host}{self._prefix}"

    # -- calls -----------------------------------------------------------------------------

    async def call(self, request: Request, raw: bytes) -> Response:
        """One call. Errors of calls are answered with 200.

        Methods of 0.3: `message/send`, `message/stream`, `tasks/get`, `tasks/cancel`,
        `tasks/list`, `tasks/resubscribe`, `tasks/pushNotificationConfig/set|get|list|delete`. Of
        1.0: `SendMessage`, `SendStreamingMessage`, `GetTask`, `CancelTask`, `ListTasks`,
        `SubscribeToTask`, `GetExtendedAgentCard`, and those of `TaskPushNotificationConfig`.
        """
        try:
            call = parse_call(raw)
        except BadEnvelope as error:
            return Body(error.answer)
        if refused := self._refused_media(request.header("accept"), call):
            return refused
        try:
            return await self._calls.answer(await self._ask(request), call)
        except RpcError as error:
            return Body(error_json(call.id, error))
        except RequestError as error:
            return Body(error_json(call.id, refusal(error)))

    def _refused_media(self, accept: str | None, call: Call) -> Response | None:
        """The refusal of a client that does not take what it would get."""
        wanted = STREAM_TYPE if self._calls.streams(call) else "application/json"
        taken = "*/*" if accept is None else accept.lower()
        if wanted in taken or "*/*" in taken:
            return None
        purpose = " for streaming" if wanted == STREAM_TYPE else ""
        return json_response({"error": f"Accept header must include {wanted}{purpose}"}, 400)

    async def _ask(self, request: Request) -> Ask:
        name = request.path("assistant_id")
        assistant = await self._service.assistant(request.caller, name)
        scope = request.header(SCOPE_HEADER.lower()) or "context"
        if scope not in SCOPES:
            raise invalid("historyScope must be 'context' or 'task'")
        base_url = self._base_url(request)
        return Ask(request.caller, request.request_id, assistant, scope, base_url)


def _card_error(message: str, status: int) -> Body:
    return json_response({"error": {"code": INVALID_PARAMS, "message": message}}, status)


def routes(service: A2AService, mount_prefix: str) -> list[Endpoint]:
    """The endpoints of A2A."""
    on = Routes(service, mount_prefix)
    card = dict[str, Any]
    return [
        Endpoint(
            "POST",
            ONE,
            on.call,
            TAG,
            "Call an agent",
            RpcRequest,
            raw_body=True,
            answer=RpcResponse,
            errors=(400,),
        ),
        Endpoint("GET", ONE, on.card_by_path, TAG, "Get an agent's card", answer=card,
                 errors=(404,)),
        Endpoint("GET", f"{ONE}{CARD}", on.card_by_path, TAG, "Get an agent's card", answer=card,
                 errors=(404,)),
        Endpoint("GET", CARD, on.card_by_query, TAG, "Get the card of an agent", query=CardQuery,
                 answer=card, errors=(400,)),
    ]  # fmt: skip
