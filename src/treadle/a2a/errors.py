"""What a JSON-RPC call is refused with: a code of the standard or of A2A, and a message."""

from __future__ import annotations

from treadle.errors import Forbidden, RequestError

PARSE_ERROR = -32700
INVALID_REQUEST = -32600
METHOD_NOT_FOUND = -32601
INVALID_PARAMS = -32602
INTERNAL_ERROR = -32603
TASK_NOT_FOUND = -32001
NOT_CANCELABLE = -32002
PUSH_NOT_SUPPORTED = -32003
UNSUPPORTED_OPERATION = -32004
UNSUPPORTED_CONTENT = -32005


class RpcError(Exception):
    """A call that is answered with an error; ``str(error)`` is its message."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code


def invalid(message: str) -> RpcError:
    """A parameter that is not what it has to be."""
    return RpcError(INVALID_PARAMS, message)


def task_not_found(task_id: str, context_id: str | None = None) -> RpcError:
    where = "" if context_id is None else f" in context '{context_id}'"
    return RpcError(TASK_NOT_FOUND, f"Task not found: {task_id}{where}")


def refusal(error: RequestError, what: str = "") -> RpcError:
    """The refusal of a room below, which said no to ``what`` was to be done."""
    code = INTERNAL_ERROR if error.status >= 500 else INVALID_PARAMS
    if isinstance(error, Forbidden):
        what = ""
    return RpcError(code, f"{what}: {error}" if what else str(error))
