"""The JSON of Python values: one encoder for state, threads, run output and events.

Whatever a graph puts into its state can be written. What JSON knows is written as it is, to the
last digit; known Python kinds have a fixed form (dates are ISO 8601, bytes base64, decimals and
durations numbers, sets arrays, models and dataclasses objects, classes null); anything else
becomes a string. NaN and the infinities are null, NUL becomes U+FFFD, a lone surrogate ``?``.
"""

from __future__ import annotations

import base64
import dataclasses
import json
import math
import re
from collections import deque
from collections.abc import Callable, ItemsView, KeysView, Mapping, ValuesView
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from functools import lru_cache
from typing import Any, Protocol, cast
from uuid import UUID

import msgspec
import orjson
from langchain_core.messages import BaseMessage
from langgraph.types import Send
from pydantic import BaseModel

MAX_DEPTH = 250
MAX_INTEGER_BITS = 14_000  # Python refuses to write integers of more than 4300 digits

_PLAIN = orjson.OPT_SERIALIZE_NUMPY
_ANY_KEYS = _PLAIN | orjson.OPT_NON_STR_KEYS  # slower, so tried second
_NUL = re.compile(rb"((?:^|[^\\])(?:\\\\)*)\\u0000")


def dumps(value: Any) -> bytes:
    """``value`` as compact JSON, UTF-8. It never fails."""
    return _dumps(value, _default)


def dumps_brief(value: Any) -> bytes:
    """Like ``dumps``, but of a message only what is set: type, content, id, then the rest."""
    return _dumps(value, _brief_default)


def _dumps(value: Any, default: Callable[[Any], Any]) -> bytes:
    try:
        data = orjson.dumps(value, default, _PLAIN)
    except (TypeError, RecursionError):
        data = _dumps_slowly(value, default)
    return _without_nul(data) if b"\\u0000" in data else data


def dump_text(value: Any) -> str:
    """``value`` as JSON text, for a JSON column."""
    return dumps(value).decode()


def excerpt(value: Any, most: int = 200) -> str:
    """The beginning of ``value`` as JSON text, in so many characters: for a message."""
    return dump_text(value)[:most]


class _Loads(Protocol):
    def __call__(self, text: str | bytes, /) -> Any: ...


loads: _Loads = msgspec.json.Decoder(Any).decode
"""The value of JSON text, integers of any size exactly."""


def fragment(text: str | bytes | None) -> Any:
    """JSON text that ``dumps`` puts into its output as it is; ``None`` is null."""
    return None if text is None else orjson.Fragment(text)


def error_object(error: BaseException) -> dict[str, str]:
    """An exception as clients see it: ``{"error": class name, "message": text}``.

    The text of a built-in kind of exception, or of one of langgraph's or Treadle's own, is
    shown; another class's may hold what is nobody's business, so it is left out.
    """
    kind = type(error)
    message = _text(error) if _is_told(kind) else "An internal error occurred"
    return {"error": kind.__name__, "message": message}


@lru_cache(maxsize=1024)
def _is_told(kind: type[BaseException]) -> bool:
    if kind in (Exception, BaseException):
        return True
    return any(
        base.__module__.partition(".")[0] in ("builtins", "langgraph", "treadle")
        for base in kind.__mro__
        if base not in (Exception, BaseException, object)
    )


# What orjson does not know -----------------------------------------------------------------------


def _default(value: Any) -> Any:
    """``value`` one level nearer to JSON."""
    try:
        return _converter(type(value))(value)
    except Exception:
        return _text(value)


def _brief_default(value: Any) -> Any:
    return _brief_message(value) if isinstance(value, BaseMessage) else _default(value)


@lru_cache(maxsize=2048)
def _converter(kind: type) -> Callable[[Any], Any]:
    """How values of a class are brought nearer to JSON."""
    if issubclass(kind, BaseModel):
        return _message if _is_plain_message(kind) else _model
    for base, convert in _CONVERTERS:
        if issubclass(kind, base):
            return convert
    if hasattr(kind, "tolist"):  # numpy, where orjson cannot, and its kin
        return lambda value: value.tolist()
    if hasattr(kind, "__attrs_attrs__"):
        return lambda value: {a.name: getattr(value, a.name) for a in value.__attrs_attrs__}
    return _text


def _tuple(value: Any) -> Any:
    return value._asdict() if hasattr(value, "_asdict") else list(value)


def _datetime(value: Any) -> str:
    return value.isoformat()


def _send(value: Send) -> dict[str, Any]:
    return {"node": value.node, "arg": value.arg}


def _base64(value: Any) -> str:
    return base64.b64encode(value).decode()


def _model(value: BaseModel) -> Any:
    return value.model_dump(warnings=False)


def _message(value: BaseMessage) -> dict[str, Any]:
    extra = value.__pydantic_extra__
    return {**vars(value), **extra} if extra else vars(value)


def _brief_message(value: BaseMessage) -> Any:
    """What is set in a message: no nulls, no empty lists, objects or flags beside its content."""
    long = _default(value)
    if not isinstance(long, dict):
        return long
    fields = cast("dict[str, Any]", long)
    brief = {"type": fields.get("type"), "content": fields.get("content"), "id": fields.get("id")}
    if brief["id"] is None:
        del brief["id"]
    for key, field in fields.items():
        if key not in brief and field is not None and field is not False:
            if isinstance(field, list | dict) and not field:
                continue
            brief[key] = field
    return brief


def _is_plain_message(kind: type[BaseModel]) -> bool:
    """Whether a class is a message whose attributes are just what its dump holds."""
    custom = kind.__pydantic_decorators__
    return issubclass(kind, BaseMessage) and not (
        custom.field_serializers
        or custom.model_serializers
        or custom.computed_fields
        or any(field.exclude for field in kind.model_fields.values())
    )


_CONVERTERS: tuple[tuple[Any, Callable[[Any], Any]], ...] = (
    (tuple, _tuple),
    ((set, frozenset, deque, KeysView, ValuesView, ItemsView), list),
    ((bytes, bytearray, memoryview), _base64),
    (float, float),
    (Decimal, float),
    (timedelta, timedelta.total_seconds),
    ((date, time), _datetime),  # datetime is a date
    (UUID, str),
    (Enum, lambda value: value.value),
    (BaseException, error_object),
    (Send, _send),
    (msgspec.Struct, msgspec.structs.asdict),
    (Mapping, dict),
    (type, lambda _: None),
)


def _text(value: object) -> str:
    try:
        return str(value)
    except Exception:
        return f"<{type(value).__name__}>"


# What orjson refuses -----------------------------------------------------------------------------


def _dumps_slowly(value: Any, default: Callable[[Any], Any]) -> bytes:
    """JSON of what orjson refuses: odd keys, huge integers, surrogates, odd zones, cycles."""
    try:
        return orjson.dumps(value, default, _ANY_KEYS)
    except (TypeError, RecursionError):
        plain = _simplify(value, default, frozenset())
        text = json.dumps(plain, ensure_ascii=False, separators=(",", ":"))
        return text.encode("utf-8", "replace")


def _simplify(value: Any, default: Callable[[Any], Any], above: frozenset[int]) -> Any:
    """``value`` in terms of what the ``json`` module writes.

    ``above`` has the ids of the values that this one is in: a cycle ends where it closes.
    """
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, Enum):
        return _simplify(value.value, default, above)
    if isinstance(value, str):
        return str(value)
    if isinstance(value, int):
        return int(value) if value.bit_length() <= MAX_INTEGER_BITS else hex(value)
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    if id(value) in above or len(above) >= MAX_DEPTH:
        return f"<{type(value).__name__}>"
    above |= {id(value)}
    if isinstance(value, dict):
        items = cast("dict[Any, Any]", value).items()
        return {_key(k): _simplify(v, default, above) for k, v in items}
    if isinstance(value, list):
        return [_simplify(v, default, above) for v in cast("list[Any]", value)]
    if isinstance(value, orjson.Fragment):
        return loads(orjson.dumps(value))
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {f.name: getattr(value, f.name, None) for f in dataclasses.fields(value)}
        return _simplify(fields, default, above)
    return _simplify(default(value), default, above)


def _key(key: Any) -> str:
    """A key as orjson writes it, and any other as its text."""
    if isinstance(key, Enum):
        return _key(key.value)
    if key is None:
        return "null"
    if isinstance(key, bool):
        return str(key).lower()
    if isinstance(key, datetime | date | time):
        return key.isoformat()
    return _text(key)


def _without_nul(data: bytes) -> bytes:
    """JSON with its escaped NULs (not: an escaped backslash before ``u0000``) as U+FFFD."""
    before = None
    while data != before:  # neighbours overlap in what they look at
        before, data = data, _NUL.sub(b"\\1\xef\xbf\xbd", data)
    return data
