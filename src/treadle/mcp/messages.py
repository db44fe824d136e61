"""JSON-RPC messages: what may be sent, and what is answered."""

from __future__ import annotations

from typing import Any, TypeVar

import msgspec

from treadle.errors import RequestError, TreadleError
from treadle.http.validation import INVALID_JSON, body_decoder, own_words
from treadle.serialization import dumps

INVALID_REQUEST, METHOD_NOT_FOUND, INVALID_PARAMS, INTERNAL_ERROR = -32600, -32601, -32602, -32603
RpcId = str | int | float
P = TypeVar("P", bound=msgspec.Struct)

_decode = body_decoder(Any)


class Malformed(TreadleError):
    """No JSON-RPC message at all: answered with 400."""


class RpcError(TreadleError):
    """A request that is answered with an error of JSON-RPC."""

    def __init__(self, code: int, message: str, data: Any = None, id: RpcId | None = None) -> None:
        super().__init__(message)
        self.code, self.data, self.id = code, data, id


class Message(msgspec.Struct, kw_only=True):
    """A message of JSON-RPC 2.0: a request, or a notification if it has no id."""

    jsonrpc: str
    method: str
    id: RpcId | None = None
    params: Any = None


class Answer(msgspec.Struct, kw_only=True):
    """The answer to a request: ``result``, or ``error`` with a code and a message."""

    jsonrpc: str
    id: RpcId | None
    result: dict[str, Any] | msgspec.UnsetType = msgspec.UNSET
    error: dict[str, Any] | msgspec.UnsetType = msgspec.UNSET


class Meta(msgspec.Struct):
    """``_meta`` of a request."""

    progress_token: str | int | None = msgspec.field(name="progressToken", default=None)


class CallParams(msgspec.Struct):
    """The params of ``tools/call``."""

    name: str | None = None
    arguments: dict[str, Any] | None = None
    meta: Meta | None = msgspec.field(name="_meta", default=None)


class CancelledParams(msgspec.Struct):
    """The params of ``notifications/cancelled``: which request is meant."""

    request_id: RpcId = msgspec.field(name="requestId")


def read_message(raw: bytes) -> Message | None:
    """The request or notification in a body; None for an answer, of which none is awaited.

    Raises ``Malformed`` for what is no JSON-RPC, and ``RpcError`` for a request that names itself
    or its method wrongly.
    """
    try:
        value = _decode(raw)
    except RequestError as error:
        raise Malformed("Invalid JSON" if str(error) == INVALID_JSON else str(error)) from None
    if not isinstance(value, dict):
        raise Malformed("Invalid message format.")
    if value.get("jsonrpc") != "2.0":
        raise Malformed("Invalid JSON-RPC message. Missing or invalid jsonrpc version.")
    id, method = value.get("id"), value.get("method")
    if method is None:
        return None
    if id is not None and (isinstance(id, bool) or not isinstance(id, str | int | float)):
        raise RpcError(INVALID_REQUEST, f"id: Expected a string or a number, got {_kind(id)}")
    if not isinstance(method, str):
        text = f"method: Expected a string, got {_kind(method)}"
        raise RpcError(INVALID_REQUEST, text, id=id)
    return Message(jsonrpc="2.0", method=method, id=id, params=value.get("params"))


def params_of(message: Message) -> dict[str, Any]:
    """The params, ``{}`` if there are none. Raises ``RpcError`` unless they are an object."""
    if message.params is None:
        return {}
    if not isinstance(message.params, dict):
        text = f"params: Expected an object, got {_kind(message.params)}"
        raise RpcError(INVALID_PARAMS, text)
    return message.params


def typed_params(message: Message, kind: type[P]) -> P:
    """The params as a struct. Raises ``RpcError``, which names the field."""
    try:
        return msgspec.convert(params_of(message), kind)
    except msgspec.ValidationError as error:
        raise RpcError(INVALID_PARAMS, f"params.{own_words(error)}") from None


def result_bytes(id: RpcId | None, result: Any) -> bytes:
    """The answer to a request."""
    return dumps({"jsonrpc": "2.0", "id": id, "result": result})


def error_bytes(id: RpcId | None, error: RpcError) -> bytes:
    """The refusal of a request."""
    told = {"code": error.code, "message": str(error)}
    if error.data is not None:
        told["data"] = error.data
    return dumps({"jsonrpc": "2.0", "id": id, "error": told})


def notification_bytes(method: str, params: Any) -> bytes:
    """A notification of the server's."""
    return dumps({"jsonrpc": "2.0", "method": method, "params": params})


def _kind(value: object) -> str:
    match value:
        case bool():
            return "a boolean"
        case dict():
            return "an object"
        case list():
            return "an array"
        case str():
            return "a string"
        case _:
            return "a number"
