"""The envelope: from the bytes of a request to a call, and from its outcome to bytes."""

from __future__ import annotations

from typing import Any, NamedTuple, cast

from treadle.a2a.errors import (
    INVALID_PARAMS,
    INVALID_REQUEST,
    PARSE_ERROR,
    RpcError,
)
from treadle.errors import RequestError
from treadle.http.validation import INVALID_JSON, body_decoder
from treadle.serialization import dumps

Json = dict[str, Any]
CallId = str | int | float | None

_decode = body_decoder(Any)


class Call(NamedTuple):
    """A call that is well formed. Its ``params`` are empty if it has none."""

    id: CallId
    method: str
    params: Json


class BadEnvelope(Exception):
    """What is no call; ``answer`` says why."""

    def __init__(self, id: CallId, code: int, message: str) -> None:
        super().__init__(message)
        self.answer = error_json(id, RpcError(code, message))


def parse_call(raw: bytes) -> Call:
    """The call that a body is. Raises ``BadEnvelope``."""
    body = _object(raw)
    id = body.get("id")
    if not isinstance(id, str | int | float) or isinstance(id, bool):
        id = None
    if body.get("jsonrpc") != "2.0":
        text = "Invalid JSON-RPC message: missing or invalid jsonrpc version"
        raise BadEnvelope(id, INVALID_REQUEST, text)
    if id is None:
        text = "Invalid message format: must be a JSON-RPC request or notification"
        if body.get("id") is not None:
            text = "Invalid JSON-RPC request: id must be a string or a number"
        raise BadEnvelope(None, INVALID_REQUEST, text)
    method, params = body.get("method"), body.get("params")
    if not isinstance(method, str) or not method:
        text = "Invalid JSON-RPC request: missing 'method' field"
        raise BadEnvelope(id, INVALID_REQUEST, text)
    if params is not None and not isinstance(params, dict):
        raise BadEnvelope(id, INVALID_PARAMS, "Invalid params: must be an object")
    return Call(id, method, cast("Json", params or {}))


def _object(raw: bytes) -> Json:
    try:
        body = _decode(raw)
    except RequestError as error:
        if str(error) == INVALID_JSON:
            raise BadEnvelope(None, PARSE_ERROR, "Invalid JSON payload") from None
        raise BadEnvelope(None, INVALID_REQUEST, f"Invalid JSON-RPC request: {error}") from None
    if not isinstance(body, dict):
        raise BadEnvelope(None, INVALID_REQUEST, "Invalid message format: expected object")
    return cast("Json", body)


def result_json(id: CallId, result: Any) -> bytes:
    return dumps({"jsonrpc": "2.0", "id": id, "result": result})


def error_json(id: CallId, error: RpcError) -> bytes:
    told = {"code": error.code, "message": str(error)}
    return dumps({"jsonrpc": "2.0", "id": id, "error": told})
