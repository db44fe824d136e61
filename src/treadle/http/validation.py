"""From the bytes of a request to a struct, and from what is wrong with them to a 422."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from functools import cache
from itertools import accumulate
from typing import Any

import msgspec

from treadle.errors import Invalid, Refused
from treadle.http.schemas import schema_of

INVALID_JSON = "Invalid JSON in request body"
MAX_DEPTH = 250
MAX_PARSED_DEPTH = 1000
MAX_DETAIL_CHARACTERS = 4000

_decode_anything = msgspec.json.Decoder(Any).decode

_NUL = b"\\u0000"
_ESCAPED_NUL = re.compile(rb"(?<!\\)((?:\\\\)*)\\u0000")
_STRINGS = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"', re.DOTALL)
_DIGITS_TO_ZERO = bytes.maketrans(b"123456789", b"000000000")
_LONG_NUMBER = b"0" * 19
_NO_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))
_DEEPER_OR_HIGHER = bytes.maketrans(b"[{]}", b"\x01\x01\xff\xff")


def body_decoder(kind: Any) -> Callable[[bytes], Any]:
    """A function from a request's body to a ``kind``, which raises ``Invalid`` or ``Refused``.

    Unknown fields are ignored, ``5.0`` is an integer, ``\\u0000`` becomes U+FFFD. Every struct,
    list and value that comes out can be written as JSON again.
    """
    decode = msgspec.json.Decoder(kind).decode

    def decode_body(raw: bytes) -> Any:
        if _NUL in raw:
            raw = _ESCAPED_NUL.sub(rb"\1\\ufffd", raw)
        if raw.count(b"[") + raw.count(b"{") > MAX_DEPTH:
            _check_depth(raw)
        if _LONG_NUMBER in raw.translate(_DIGITS_TO_ZERO):
            _check_integers(raw)
        try:
            if not raw.isascii():
                raw.decode()
            return decode(raw)
        except msgspec.ValidationError as error:
            return _second_look(kind, raw, error)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            raise Invalid(INVALID_JSON) from None

    return decode_body


def _parse(raw: bytes) -> Any:
    """``raw`` as plain values; ``Invalid`` if it is no strict JSON."""
    try:
        return _decode_anything(raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise Invalid(INVALID_JSON) from None


def _second_look(kind: Any, raw: bytes, error: msgspec.ValidationError) -> Any:
    """The value if only integers were written as ``5.0``, else a refusal that explains."""
    value = _parse(raw)
    if (schema_error := _schema_error(kind, value)) is not None:
        raise Invalid(schema_error) from None
    try:
        # What the schema lets through and msgspec does not is whole numbers written as floats.
        return msgspec.convert(value, kind, strict=False)
    except msgspec.ValidationError:
        raise Invalid(own_words(error)) from None


def _schema_error(kind: Any, value: Any) -> str | None:
    """What JSON schema has to say against ``value``."""
    import jsonschema_rs

    try:
        _validator(kind).validate(value)
    except jsonschema_rs.ValidationError as error:
        text = str(error)
        if len(text) <= MAX_DETAIL_CHARACTERS:
            return text
        where = "".join(f"[{json.dumps(step)}]" for step in error.instance_path)
        return f"{error.message[: MAX_DETAIL_CHARACTERS // 4]} …\n\nOn instance{where}"
    return None


@cache
def _validator(kind: Any) -> Any:
    import jsonschema_rs

    return jsonschema_rs.validator_for(schema_of(kind))


_PATH = re.compile(r"- at `\$(.*)`$")


def own_words(error: msgspec.ValidationError) -> str:
    """A message of msgspec with the path in the place where people look for it."""
    text = str(error)
    match = _PATH.search(text)
    return f"{match[1].lstrip('.')}: {text[: match.start()].strip()}" if match else text


def _check_depth(raw: bytes) -> None:
    """Refuse JSON that is nested deeper than what can be written again.

    Beyond ``MAX_PARSED_DEPTH`` it counts as no JSON, whatever this Python's stack can bear.
    """
    steps = memoryview(_STRINGS.sub(b"", raw).translate(_DEEPER_OR_HIGHER, _NO_BRACKETS))
    depth = max(accumulate(steps.cast("b")), default=0)
    if depth > MAX_PARSED_DEPTH:
        raise Invalid(INVALID_JSON)
    if depth > MAX_DEPTH:
        _parse(raw)
        raise Refused("Recursion limit reached")


def _check_integers(raw: bytes) -> None:
    """Refuse integers that JSON readers with 64 bits cannot hold, naming the first."""
    waiting: list[tuple[str, Any]] = [("", _parse(raw))]
    while waiting:
        path, value = waiting.pop()
        if isinstance(value, dict):
            waiting.extend((f"{path}.{key}", child) for key, child in value.items())
        elif isinstance(value, list):
            waiting.extend((f"{path}[{i}]", child) for i, child in enumerate(value))
        elif isinstance(value, int) and not -(2**63) <= value < 2**64:
            where = path.lstrip(".") or "body"
            raise Invalid(f"{where}: the integer {value} does not fit into 64 bits")
