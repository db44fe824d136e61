"""Distances between vectors on SQLite: by sqlite-vec, or slowly where it cannot be loaded."""

from __future__ import annotations

import math
import sqlite3
from array import array
from collections.abc import Callable, Sequence
from functools import lru_cache
from operator import mul

DISTANCE = "vec_distance_cosine"


def _product(one: Sequence[float], other: Sequence[float]) -> float:
    return sum(map(mul, one, other))


_sumprod: Callable[[Sequence[float], Sequence[float]], float] = getattr(math, "sumprod", _product)


def enable_vectors(connection: sqlite3.Connection) -> bool:
    """Give a connection the function ``DISTANCE`` of two vectors; whether it is sqlite-vec's.

    Many builds of Python cannot load extensions into SQLite (pyenv's, by default).
    """
    try:
        import sqlite_vec

        connection.enable_load_extension(True)
        try:
            sqlite_vec.load(connection)
        finally:
            connection.enable_load_extension(False)
        return True
    except (AttributeError, ImportError, sqlite3.Error):
        connection.create_function(DISTANCE, 2, distance, deterministic=True)
        return False


def distance(one: bytes, other: bytes) -> float:
    """The cosine distance of two vectors of length one."""
    return 1.0 - _sumprod(memoryview(one).cast("f").tolist(), _floats(other))


@lru_cache(maxsize=16)
def _floats(vector: bytes) -> list[float]:
    return array("f", vector).tolist()
