"""Vectors of store items go with a copy, where PostgreSQL has pgvector, and are the same there."""

from __future__ import annotations

import random
from array import array
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from uuid import uuid4

import psycopg
import pytest

from postgres_server import PREFIX, drop_databases, make_database, vectors_uri
from treadle.database import copying, maintenance
from treadle.database.copying import Copy, Report
from treadle.database.maintenance import VECTORS, Maintenance
from treadle.errors import StartupError
from treadle.settings import Settings

ODD = [0.1, -0.0, 1e-40, 3.4028235e38, -1.1754944e-38, 1 / 3]
ROWS = "SELECT namespace, key, position, dims, vector FROM store_vectors ORDER BY 1, 2, 3"


@pytest.fixture
def upgraded(tmp_path: Path) -> Iterator[Callable[[str], str]]:
    """``upgraded("sqlite")``: the URI of a database with Treadle's tables, and with pgvector."""
    with ExitStack() as stack:

        def upgraded(engine: str) -> str:
            name = f"{PREFIX}vectors_{uuid4().hex[:12]}"
            uri = f"sqlite:///{tmp_path / name}.db"
            if engine == "postgres":
                uri = make_database(name, server=vectors_uri())
                stack.callback(drop_databases, name, vectors_uri())
            maintenance.upgrade(Settings(database_uri=uri), Path())
            return uri

        yield upgraded


def opened(uri: str) -> closing[Maintenance]:
    return closing(maintenance.open_maintenance(uri, Path(), writes=True))


def copy(source: str, target: str) -> Report:
    with closing(Copy(source, target)) as work:
        work.prepare()
        return work.run(lambda step: None)


def fill(uri: str, count: int) -> None:
    values = random.Random(3)
    vectors = [ODD, *([values.uniform(-1, 1) for _ in range(6)] for _ in range(count - 1))]
    rows = [
        ("ünd.er", f"k{n}", n % 2, 6, array("f", vector).tobytes())
        for n, vector in enumerate(vectors)
    ]
    with opened(uri) as place:
        assert place.make_vectors() is None
        place.insert(VECTORS, ["namespace", "key", "position", "dims", "vector"], rows)


def vectors(uri: str) -> list[tuple[object, ...]]:
    with opened(uri) as place:
        place.tables()  # now it knows how to read them
        return list(place.stream(ROWS))


PAIRS = [("sqlite", "postgres"), ("postgres", "sqlite"), ("sqlite", "sqlite"), ("postgres",) * 2]


@pytest.mark.parametrize(("here", "there"), PAIRS)
def test_vectors_are_the_same_on_the_copy_and_on_its_copy(upgraded, monkeypatch, here, there):
    monkeypatch.setattr(copying, "BATCH_ROWS", 7)
    source, target, back = upgraded(here), upgraded(there), upgraded(here)
    fill(source, 20)
    assert copy(source, target).rows[VECTORS] == 20
    assert copy(target, back).rows[VECTORS] == 20
    assert vectors(source) == vectors(target) == vectors(back)
    assert array("f", vectors(target)[0][4]) == array("f", ODD)


def test_a_vector_that_differs_is_noticed(upgraded):
    source, target = upgraded("sqlite"), upgraded("postgres")
    fill(source, 3)

    def change(step: copying.Step) -> None:
        with psycopg.connect(target) as connection:
            connection.execute("UPDATE store_vectors SET vector = '[1,0,0,0,0,0]' WHERE key = 'k1'")

    with closing(Copy(source, target)) as work:
        work.prepare()
        with pytest.raises(StartupError, match="copy of store_vectors differs: 3 rows"):
            work.run(lambda step: change(step) if step.table == VECTORS else None)


def test_items_are_ranked_on_the_copy(upgraded):
    source, target = upgraded("sqlite"), upgraded("postgres")
    fill(source, 5)
    copy(source, target)
    query = str(array("f", vectors(target)[3][4]).tolist())
    with psycopg.connect(target) as connection:
        ranked = connection.execute(
            "SELECT key FROM store_vectors ORDER BY vector <=> %s::vector", [query]
        )
        assert ranked.fetchone() == ("k3",)


def test_without_vectors_no_extension_is_made(upgraded):
    source, target = upgraded("sqlite"), upgraded("postgres")
    report = copy(source, target)
    assert VECTORS not in report.rows
    assert report.without_vectors is None
    with opened(target) as place:
        assert not place.has_table(VECTORS)


def test_vectors_that_cannot_be_had_stay_behind_and_are_told(upgraded):
    source, target = upgraded("sqlite"), upgraded("postgres")
    fill(source, 3)
    with psycopg.connect(target) as connection:  # as langgraph's own store makes it
        connection.execute("CREATE TABLE store_vectors (prefix text, key text, embedding text)")
    report = copy(source, target)
    assert VECTORS not in report.rows
    assert report.without_vectors is not None
    assert "another program" in report.without_vectors
