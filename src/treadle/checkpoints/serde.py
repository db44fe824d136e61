"""How values of a graph's state become bytes, and which bytes become objects again."""

from __future__ import annotations

import dataclasses
import importlib
import sys
from collections import deque
from datetime import date, time, timedelta
from decimal import Decimal
from enum import Enum
from pathlib import PurePath
from typing import Any
from uuid import UUID

from langgraph.checkpoint.serde.jsonplus import (
    JsonPlusSerializer,
    _create_msgpack_ext_hook,  # pyright: ignore[reportPrivateUsage]
)

_PLAIN_CLASSES = (Enum, set, frozenset, deque, UUID, Decimal, PurePath, date, time, timedelta)
# What the serializer itself asks for before it writes an object by its data: Pydantic (2 and 1),
# named tuples, and secrets.
_DATA_METHODS = ("model_dump", "dict", "_asdict", "get_secret_value")


def state_serializer() -> JsonPlusSerializer:
    """The serializer of checkpoints: langgraph's msgpack, never pickle.

    A state may hold what JSON knows, bytes, dates, UUIDs, decimals, paths, sets, numpy arrays,
    LangChain messages and documents, langgraph's own types, and objects of the user's **data
    classes**: dataclasses, Pydantic models, enums, named tuples, subclasses of sets, whether or
    not a schema of the graph names them. Anything else is refused when it is put. Exceptions
    are kept as their ``repr``. The fields of a Pydantic model are made again by its validation,
    so an object in a field of type ``Any`` comes back as a dict.

    Reading makes an object only of a class of those kinds, in a module that the process has
    loaded or that belongs to a package it has loaded. Functions are never called and foreign
    packages never imported, so whoever can write to the database cannot make the server run
    code of their choice. A value whose class is not to be found any more (renamed, moved,
    defined in a function) comes back as its plain data.
    """
    return JsonPlusSerializer(
        pickle_fallback=False,
        allowed_msgpack_modules=True,  # our hook decides; nothing is left for graphs to add
        __unpack_ext_hook__=_create_msgpack_ext_hook(DataClasses()),
    )


class DataClasses(set[tuple[str, ...]]):
    """The allowlist of the serializer: holds ``(module, name)`` of every data class there is."""

    def __contains__(self, key: object) -> bool:
        if super().__contains__(key):
            return True
        module, name = key  # pyright: ignore[reportGeneralTypeIssues, reportUnknownVariableType]
        if not is_data_class(_find(module, name)):  # pyright: ignore[reportUnknownArgumentType]
            return False
        self.add(key)  # pyright: ignore[reportArgumentType]
        return True


def is_data_class(found: Any) -> bool:
    """Whether ``found`` is a class whose objects the serializer writes by their data."""
    return isinstance(found, type) and (
        dataclasses.is_dataclass(found)
        or issubclass(found, _PLAIN_CLASSES)
        or any(callable(getattr(found, method, None)) for method in _DATA_METHODS)
    )


def _find(module: str, name: str) -> Any:
    """The object of that name, without loading a package that nobody has loaded yet."""
    found = sys.modules.get(module)
    if found is None and module.partition(".")[0] in sys.modules:
        try:
            found = importlib.import_module(module)
        except ImportError:
            return None
    return getattr(found, name, None)
