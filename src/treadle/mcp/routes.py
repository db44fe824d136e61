"""The endpoint of MCP: Streamable HTTP without sessions."""

from __future__ import annotations

import re
from typing import Any

import structlog

from treadle import __version__
from treadle.errors import RequestError
from treadle.http.endpoint import Endpoint
from treadle.http.request import Request
from treadle.http.response import Body, Response, json_response
from treadle.mcp.messages import (
    INTERNAL_ERROR,
    INVALID_PARAMS,
    METHOD_NOT_FOUND,
    Answer,
    CallParams,
    CancelledParams,
    Malformed,
    Message,
    RpcError,
    RpcId,
    error_bytes,
    params_of,
    read_message,
    result_bytes,
    typed_params,
)
from treadle.mcp.progress import progress_stream
from treadle.mcp.results import result_of
from treadle.mcp.service import McpService, call_key
from treadle.runs.outcome import Outcome
from treadle.runs.waiting import WaitForRun

logger = structlog.get_logger("treadle.mcp")

TAG = "MCP"
VERSIONS = ("2024-11-05", "2025-03-26", "2025-06-18", "2025-11-25")
"""The versions of the protocol that are spoken, the newest last."""
NOT_ACCEPTED = "Accept header must include application/json or text/event-stream"
_OF_HTTP = (401, 403)
"""Who may not call hears it from HTTP, as the standard has it."""
_JSON = re.compile(r"(\*|application)/\*|application/json", re.IGNORECASE)
_EVENTS = re.compile(r"text/(\*|event-stream)", re.IGNORECASE)


class Routes:
    """Handlers over the tools."""

    def __init__(self, service: McpService) -> None:
        self._service = service

    async def post(self, request: Request, raw: bytes) -> Response:
        """Send a JSON-RPC message. What awaits no answer is acknowledged with 202.

        The methods are `initialize`, `ping`, `tools/list` and `tools/call`. A call that names a
        `progressToken` is answered with server-sent events, if the client accepts them.
        """
        accept = request.header("accept") or "*/*"
        if not (_JSON.search(accept) or _EVENTS.search(accept)):
            return json_response({"error": NOT_ACCEPTED}, 400)
        try:
            message = read_message(raw)
        except Malformed as error:
            return json_response({"error": str(error)}, 400)
        except RpcError as error:
            return Body(error_bytes(error.id, error), 400)
        if message is None or message.id is None:
            if message is not None and message.method == "notifications/cancelled":
                await self._cancelled(request, message)
            return Body(b"", 202, ())
        try:
            return await self._answer(request, message, message.id)
        except RpcError as error:
            return Body(error_bytes(message.id, error))
        except RequestError as error:
            if error.status in _OF_HTTP:
                raise
            code = INTERNAL_ERROR if error.status >= 500 else INVALID_PARAMS
            return Body(error_bytes(message.id, RpcError(code, str(error))))
        except Exception:
            logger.exception("unhandled error", request_id=request.request_id)
            text = f"Internal error. The server's log tells more of request {request.request_id}"
            return Body(error_bytes(message.id, RpcError(INTERNAL_ERROR, text)))

    async def get(self, request: Request) -> Response:
        """There is no stream of the server's own: always 405."""
        return Body(b"", 405, [(b"allow", b"POST")])

    async def delete(self, request: Request) -> Response:
        """There are no sessions to end: always 404."""
        return Body(b"", 404, ())

    async def _answer(self, request: Request, message: Message, id: RpcId) -> Response:
        match message.method:
            case "initialize":
                result = _hello(params_of(message))
            case "ping":
                params_of(message)
                result = {}
            case "tools/list":
                params_of(message)
                tools = await self._service.tools(request.caller)
                result = {"tools": [tool.wire() for tool in tools]}
            case "tools/call":
                return await self._call(request, typed_params(message, CallParams), id)
            case method:
                raise RpcError(METHOD_NOT_FOUND, f"Method not found: {method}")
        return Body(result_bytes(id, result))

    async def _call(self, request: Request, params: CallParams, id: RpcId) -> Response:
        """A run, whose end is the answer. A client that leaves has not cancelled it."""
        token = params.meta.progress_token if params.meta else None
        shows_progress = token is not None and bool(_EVENTS.search(request.header("accept") or ""))
        tool = await self._service.tool(request.caller, params.name)
        arguments = params.arguments or {}
        created = await self._service.call(
            request.caller,
            request.request_id,
            tool,
            arguments,
            call_key=_call_key(request, id),
            shows_progress=shows_progress,
        )
        assert created.reader is not None

        def finish(outcome: Outcome | None) -> bytes:
            return result_bytes(id, result_of(tool, arguments, outcome))

        if shows_progress and token is not None:
            return progress_stream(created.reader, created.run_id, token, finish)
        return WaitForRun(created.reader, created.run_id, finish=finish)

    async def _cancelled(self, request: Request, message: Message) -> None:
        """Cancel a call; a notification cannot be answered, so nothing is said if that fails."""
        try:
            named = typed_params(message, CancelledParams)
            await self._service.cancel(request.caller, _call_key(request, named.request_id))
        except (RpcError, RequestError) as error:
            logger.info("a call could not be cancelled", reason=str(error))


def _hello(params: dict[str, Any]) -> dict[str, Any]:
    wanted = params.get("protocolVersion")
    return {
        "protocolVersion": wanted if wanted in VERSIONS else VERSIONS[-1],
        "capabilities": {"tools": {"listChanged": False}},
        "serverInfo": {"name": "Treadle", "version": __version__},
    }


def _call_key(request: Request, id: RpcId) -> str:
    client = request.scope.get("client") or ("",)
    return call_key(request.caller, client[0], request.header("user-agent"), id)


def mcp_routes(service: McpService) -> list[Endpoint]:
    """The endpoints of MCP."""
    on = Routes(service)
    return [
        Endpoint("POST", "/mcp", on.post, TAG, "Send an MCP message",
                 body=Message, raw_body=True, answer=Answer, errors=()),
        Endpoint("GET", "/mcp", on.get, TAG, "Open a stream of MCP (there is none)",
                 status=405, errors=()),
        Endpoint("DELETE", "/mcp", on.delete, TAG, "End an MCP session (there are none)",
                 status=404, errors=()),
    ]  # fmt: skip
