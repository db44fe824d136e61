"""Between the shared SQL with its Python values and what PostgreSQL's protocol carries.

Parameters go as text of a type that the server infers, bytes in binary; results come in binary.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from functools import lru_cache
from struct import Struct
from typing import Any, NamedTuple

from psycopg.pq import Format
from psycopg.pq.abc import PGresult

from treadle.database import Params

_TEXT, _BINARY = Format.TEXT, Format.BINARY

_TOKEN = re.compile(
    r"""
      '(?:[^']|'')*'                    # a literal
    | "(?:[^"]|"")*"                    # a name in quotes
    | --[^\n]*                          # a comment
    | /\*postgres\s(?P<own>.*?)\*/      # what is PostgreSQL's own
    | /\*.*?\*/                         # any other comment
    | ::                                # a cast
    | :(?P<name>[A-Za-z_][A-Za-z_0-9]*) # a parameter
    """,
    re.VERBOSE | re.DOTALL,
)


class Sql(NamedTuple):
    """A statement as PostgreSQL takes it: ``$1`` is the parameter ``names[0]``."""

    text: bytes
    names: tuple[str, ...]


@lru_cache(maxsize=4096)
def translate(sql: str) -> Sql:
    """``:names`` as ``$numbers``, and ``/*postgres ...*/`` uncovered. Once for each text."""
    names: dict[str, str] = {}

    def replace(found: re.Match[str]) -> str:
        if (name := found["name"]) is not None:
            return names.setdefault(name, f"${len(names) + 1}")
        own = found["own"]
        return found[0] if own is None else _TOKEN.sub(replace, own)

    text = _TOKEN.sub(replace, sql)
    return Sql(text.encode(), tuple(names))


# -- parameters -------------------------------------------------------------------------------


def encode(names: Sequence[str], params: Params) -> tuple[list[bytes | None], list[int] | None]:
    """The values for ``$1``, ``$2``, ... and their formats, None if all are text."""
    values: list[bytes | None] = []
    formats: list[int] | None = None
    for name in names:
        value = params[name]
        kind = type(value)
        if kind is str:
            values.append(_text(value))
        elif kind is int:
            values.append(b"%d" % value)
        elif value is None:
            values.append(None)
        elif kind is bytes:
            if formats is None:
                formats = [int(_TEXT)] * len(names)
            formats[len(values)] = _BINARY
            values.append(value)
        else:
            values.append(_encode_rare(value))
    return values, formats


def without_nul(value: str) -> str:
    """PostgreSQL's text cannot hold NUL: it becomes U+FFFD, as it does in all JSON."""
    return value.replace("\0", "\ufffd") if "\0" in value else value


def _text(value: str) -> bytes:
    return without_nul(value).encode()


def _encode_rare(value: Any) -> bytes:
    if isinstance(value, bool):
        return b"t" if value else b"f"
    if isinstance(value, list | tuple):
        return b"{%b}" % b",".join([_element(element) for element in value])
    if isinstance(value, str):
        return _text(value)
    if isinstance(value, int | float):
        return repr(value).encode()
    raise TypeError(f"a parameter cannot be a {type(value).__name__}")


def _element(value: Any) -> bytes:
    if isinstance(value, str):
        return b'"%b"' % _text(value).replace(b"\\", b"\\\\").replace(b'"', b'\\"')
    return b"%d" % value


# -- results ----------------------------------------------------------------------------------

Loader = Callable[[bytes], Any]
Columns = tuple[tuple[str, Loader], ...]


def _integer(data: bytes) -> int:
    return int.from_bytes(data, "big", signed=True)


def _float(unpack: Callable[[bytes], tuple[Any, ...]]) -> Loader:
    return lambda data: unpack(data)[0]


_LOADERS: dict[int, Loader] = {
    16: b"\1".__eq__,
    17: bytes,
    18: bytes.decode,
    19: bytes.decode,
    20: _integer,
    21: _integer,
    23: _integer,
    26: _integer,
    25: bytes.decode,
    114: bytes.decode,
    700: _float(Struct(">f").unpack),
    701: _float(Struct(">d").unpack),
    1043: bytes.decode,
    3802: lambda data: data[1:].decode(),  # jsonb, as JSON text
}
"""By the number of the type. JSON columns read as JSON text, like all over Treadle."""


def columns_of(result: PGresult) -> Columns:
    """The names and loaders of a result's columns."""
    return tuple(
        ((result.fname(index) or b"").decode(), _loader(result.ftype(index)))
        for index in range(result.nfields)
    )


def _loader(oid: int) -> Loader:
    try:
        return _LOADERS[oid]
    except KeyError:
        raise TypeError(f"a column of PostgreSQL's type number {oid} cannot be read") from None


def load_rows(result: PGresult, columns: Columns) -> list[dict[str, Any]]:
    """All rows of a result."""
    get = result.get_value
    rows: list[dict[str, Any]] = []
    for number in range(result.ntuples):
        row: dict[str, Any] = {}
        for index, (name, load) in enumerate(columns):
            value = get(number, index)
            row[name] = None if value is None else load(value)
        rows.append(row)
    return rows
