"""The distance of vectors, as sqlite-vec gives it and without it."""

from __future__ import annotations

import math
import sqlite3

import pytest

from treadle.database.sqlite_dialect import SQLiteDialect
from treadle.database.sqlite_vectors import DISTANCE, distance, enable_vectors

vector = SQLiteDialect().vector
ONE, HALF = vector([1.0, 0.0]), vector([math.sqrt(0.5), math.sqrt(0.5)])


@pytest.mark.parametrize(
    ("other", "expected"),
    [(ONE, 0), (HALF, 1 - math.sqrt(0.5)), (vector([0, 1]), 1), (vector([-1, 0]), 2)],
)
def test_distances_are_the_same_with_and_without_sqlite_vec(other, expected):
    connection = sqlite3.connect(":memory:")
    enable_vectors(connection)
    found = connection.execute(f"SELECT {DISTANCE}(?, ?)", (ONE, other)).fetchone()[0]
    connection.close()
    assert found == pytest.approx(expected, abs=1e-6)
    assert distance(ONE, other) == pytest.approx(expected, abs=1e-6)


def test_sqlite_vec_is_used_where_extensions_can_be_loaded():
    connection = sqlite3.connect(":memory:")
    assert enable_vectors(connection) == hasattr(connection, "enable_load_extension")
    connection.close()
