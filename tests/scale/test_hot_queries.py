"""The hottest queries read a few pages by an index, however many rows there are.

What they read is asserted, not how long they take: plans, and pages of PostgreSQL's buffers. Both
kinds of plans are tried, since the server makes plans for all values of a statement after a while.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import psycopg
import pytest
from million import BUSIEST, NOW, ROWS, WORKER, thread_id

from treadle.checkpoints import queries as checkpoints
from treadle.database.postgres_dialect import PostgresDialect
from treadle.database.postgres_sql import translate
from treadle.database.sqlite import SQLiteDatabase
from treadle.runs import queries as runs
from treadle.streaming import queries as events
from treadle.threads.models import ThreadSearch
from treadle.threads.queries import Search

LARGE = {"threads", "runs", "checkpoints", "events"}
MOST_PAGES = 120
"""Of 8 KiB; the smallest of the large tables has ten thousand."""
ONE, BUSY = thread_id(ROWS // 2), thread_id(BUSIEST)

Plan = dict[str, Any]
Statement = tuple[str, Mapping[str, Any]]


def search(metadata: dict[str, Any], dialect: Any, found: list[int] | None = None) -> Statement:
    """What a search by metadata asks first, or then."""
    wanted = Search(dialect, ThreadSearch(metadata=metadata), (), None)
    if found is None:
        return wanted.probe, wanted.params
    return wanted.page_of(dialect, found)


def statements(dialect: Any) -> dict[str, Statement]:
    page = {"after": 0, "until": 2**62, "limit": 20, "most_bytes": 2**20}
    own = {"thread_id": ONE, "run_id": f"01b{ONE[3:]}"}
    claim = {"now": NOW, "owner": WORKER, "limit": 16}
    listed = {"status": None, "limit": 10, "offset": 0}
    return {
        "claim": (runs.CLAIM, claim),
        "claim of stopped runs": (runs.CLAIM_STOPPED, claim),
        "thread search": search({"user": f"u{ROWS // 3}"}, dialect),
        "thread search's page": search({"user": "u7"}, dialect, [7]),
        "run list": (runs.LIST_RUNS, {**listed, "thread_id": ONE}),
        "run list of a busy thread": (runs.LIST_RUNS, {**listed, "thread_id": BUSY}),
        "latest checkpoint": (checkpoints.LATEST_CHECKPOINT, {**own, "checkpoint_ns": ""}),
        "latest checkpoint of a busy thread": (
            checkpoints.LATEST_CHECKPOINT,
            {"thread_id": BUSY, "checkpoint_ns": ""},
        ),
        "events of a thread": (events.REPLAY_THREAD, {**own, **page}),
        "events of a run": (events.REPLAY_RUN, {**own, **page}),
        "numbered events": (events.REPLAY_NUMBERED, {**own, **page}),
        "events of a busy thread": (
            events.REPLAY_THREAD,
            {**page, "thread_id": BUSY, "after": ROWS - 200},
        ),
    }


NAMES = list(statements(PostgresDialect()))


@pytest.fixture(scope="module")
def connection(million: str) -> Iterator[psycopg.Connection[Any]]:
    with psycopg.connect(million) as connection:
        yield connection


@pytest.mark.parametrize("mode", ["force_custom_plan", "force_generic_plan"])
@pytest.mark.parametrize("name", NAMES)
def test_a_hot_query_reads_a_few_pages_by_an_index(
    connection: psycopg.Connection[Any], name: str, mode: str
) -> None:
    text, params = statements(PostgresDialect())[name]
    plan = explain(connection, text, params, mode)
    scans = [node for node in nodes(plan) if node.get("Relation Name") in LARGE]
    assert scans
    assert not [node for node in scans if node["Node Type"] == "Seq Scan"], plan
    assert pages_read(plan) < most_pages(name), plan


def most_pages(name: str) -> int:
    """A run that is claimed is looked for, read, and written into each of its indexes."""
    return MOST_PAGES * 10 if name == "claim" else MOST_PAGES


def test_what_many_threads_share_is_read_no_further_than_it_is_counted(
    connection: psycopg.Connection[Any],
) -> None:
    text, params = search({"customer": 3}, PostgresDialect())
    plan = explain(connection, text, params, "force_custom_plan")
    assert plan["Actual Rows"] == 1000
    assert {node["Node Type"] for node in nodes(plan)} >= {"Bitmap Index Scan"}
    assert not [node for node in nodes(plan) if node["Node Type"] == "Seq Scan"], plan


def test_a_page_of_what_all_threads_share_is_read_alone(
    connection: psycopg.Connection[Any],
) -> None:
    wanted = Search(PostgresDialect(), ThreadSearch(metadata={"graph_id": "agent"}), (), None)
    page = explain(connection, wanted.page, wanted.params, "force_custom_plan")
    assert pages_read(page) < MOST_PAGES, page


async def test_sqlite_looks_all_of_it_up(tmp_path: Path) -> None:
    """Its plans do not depend on how much there is: it never gathers statistics."""
    database = SQLiteDatabase(tmp_path / "treadle.db")
    await database.open()
    for name, (text, params) in statements(database.dialect).items():
        plan = await database.read_all(f"EXPLAIN QUERY PLAN {text}", params)
        steps = [row["detail"] for row in plan]
        assert any(step.startswith("SEARCH") for step in steps), (name, steps)
        assert [step for step in steps if _is_scan(step)] == [], name
    await database.close()


def _is_scan(step: str) -> bool:
    """Whether a step goes through the whole of a large table, or of one of its indexes."""
    return step.startswith("SCAN ") and step.split()[1] in {*LARGE, "thread_labels", *"roe"}


def explain(
    connection: psycopg.Connection[Any], text: str, params: Mapping[str, Any], mode: str
) -> Plan:
    """The plan of a statement that was prepared as the server does it, and what it has read."""
    translated = translate(text)
    values = [params[name] for name in translated.names]
    literals = ", ".join(
        psycopg.sql.Literal(value if value is None else as_text(value)).as_string(connection)
        for value in values
    )
    try:
        connection.execute(f"SET LOCAL plan_cache_mode = {mode}".encode())
        connection.execute(b"PREPARE hot AS " + translated.text)
        explain = f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) EXECUTE hot ({literals})"
        connection.execute(explain.encode())  # now the catalogue is known
        row = connection.execute(explain.encode()).fetchone()
    finally:
        connection.rollback()
        connection.execute(b"DEALLOCATE ALL")
    assert row is not None
    return row[0][0]["Plan"]


def pages_read(plan: Plan) -> int:
    return plan["Shared Hit Blocks"] + plan["Shared Read Blocks"]


def as_text(value: Any) -> str:
    return f"{{{','.join(map(str, value))}}}" if isinstance(value, list) else str(value)


def nodes(plan: Plan) -> Iterator[Plan]:
    yield plan
    for part in plan.get("Plans", ()):
        yield from nodes(part)
