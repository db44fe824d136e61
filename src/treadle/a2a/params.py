"""Parameters of calls. Each function raises an ``RpcError`` that names what is wrong."""

from __future__ import annotations

from typing import Any, NamedTuple, cast

from treadle.a2a.errors import invalid

Json = dict[str, Any]

MAX_PAGE_SIZE = 100
DEFAULT_PAGE_SIZE = 50


def text_of(params: Json, key: str) -> str | None:
    """An optional text; an empty one counts as none, as protobuf has it."""
    value = params.get(key)
    if value is None or value == "":
        return None
    if not isinstance(value, str):
        raise invalid(f"{key} must be a string")
    return value


def object_of(params: Json, key: str) -> Json:
    """An optional object."""
    value = params.get(key)
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise invalid(f"Invalid params: '{key}' must be an object")
    return cast("Json", value)


def flag_of(params: Json, key: str, default: bool, where: str = "") -> bool:
    value = params.get(key)
    if value is None:
        return default
    if not isinstance(value, bool):
        raise invalid(f"{where}{key} must be a boolean")
    return value


def history_length(params: Json) -> int | None:
    """How many messages of the history are wanted; None is all."""
    value = params.get("historyLength")
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise invalid("historyLength must be a non-negative integer")
    return value


def task_id_of(params: Json, key: str = "id") -> tuple[str, str | None]:
    """The ids of a task and, if it is given, of its context."""
    task_id, context_id = params.get(key), params.get("contextId")
    if task_id is None or task_id == "":
        raise invalid(f"Missing required parameter: {key} (task_id)")
    if not isinstance(task_id, str) or not isinstance(context_id, str | None):
        raise invalid("Task id and contextId must be strings")
    return task_id, context_id or None


class Page(NamedTuple):
    size: int
    offset: int


def page_of(params: Json) -> Page:
    size, token = params.get("pageSize"), params.get("pageToken")
    if size is None:
        size = DEFAULT_PAGE_SIZE
    if isinstance(size, bool) or not isinstance(size, int) or not 1 <= size <= MAX_PAGE_SIZE:
        raise invalid(f"pageSize must be an integer between 1 and {MAX_PAGE_SIZE}.")
    if token is None or token == "":
        return Page(size, 0)
    if not (isinstance(token, str) and token.isascii() and token.isdigit() and len(token) < 10):
        raise invalid("Invalid pageToken.")
    return Page(size, int(token))
