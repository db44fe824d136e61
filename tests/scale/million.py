"""A database as large as a system that has been used for years, made by SQL in seconds.

A million threads, each with a run, a checkpoint and an event that is kept; the newest runs wait in
the queue. Row ``n`` of each table is about thread ``n``, so a test knows what it looks for.
"""

from __future__ import annotations

import psycopg
from psycopg import sql

ROWS = 1_000_000
PENDING = 10_000
"""As many of the runs wait in the queue, each on a thread of its own."""
BUSIEST = 1
"""The thread that has many runs, checkpoints and events."""
BUSY_ROWS = 10_000
SHARED = 1_000
"""As many different values has the metadata's ``customer``: each is that of a thousand threads."""
WORKER = "some worker"
NOW = 1_800_000_000_000_000


def thread_id(number: int) -> str:
    return f"01a00000-0000-7000-8000-{number:012d}"


_ID = "'{}-0000-7000-8000-' || lpad({}::text, 12, '0')"
_THREAD = _ID.format("01a00000", "n")
_RUN = _ID.format("01b00000", "n")
_OF_BUSIEST = f"'{thread_id(BUSIEST)}'"

_FILL = f"""
INSERT INTO threads (thread_id, created_at, updated_at, state_updated_at, metadata)
SELECT {_THREAD}, {NOW} - 1000000 * n::bigint, {NOW} - 1000000 * n::bigint, {NOW},
       '{{"graph_id": "agent", "user": "u' || n || '", "customer": ' || n % {SHARED} || '}}'
FROM generate_series(1, {ROWS}) AS n;

INSERT INTO runs (run_id, thread_id, assistant_id, graph_id, status, created_at, updated_at,
                  metadata, kwargs, multitask_strategy)
SELECT {_RUN}, CASE WHEN n <= {ROWS - BUSY_ROWS} THEN {_THREAD} ELSE {_OF_BUSIEST} END,
       'a', 'agent',
       CASE WHEN n > 1 AND n <= {PENDING} + 1 THEN 'pending' ELSE 'success' END,
       {NOW} - n, {NOW} - n, '{{}}', '{{"resumable": true}}', 'enqueue'
FROM generate_series(1, {ROWS}) AS n;

INSERT INTO checkpoints (thread_id, checkpoint_ns, checkpoint_id, run_id, metadata, type,
                         checkpoint)
SELECT CASE WHEN n <= {ROWS - BUSY_ROWS} THEN {_THREAD} ELSE {_OF_BUSIEST} END, '',
       {_ID.format("01c00000", "n")}, {_RUN}, '{{}}', 'json', '{{}}'
FROM generate_series(1, {ROWS}) AS n;

INSERT INTO events (thread_id, id, run_id, kind, name, data, seq)
SELECT CASE WHEN n <= {ROWS - BUSY_ROWS} THEN {_THREAD} ELSE {_OF_BUSIEST} END,
       n, {_RUN}, 'values', 'values', '{{"n": 1}}', n
FROM generate_series(1, {ROWS}) AS n;

INSERT INTO workers (owner, lease_until) VALUES ('{WORKER}', {NOW});
"""

_TABLES = ("threads", "runs", "checkpoints", "events")


def fill(uri: str) -> None:
    """Fill a database that has Treadle's schema and nothing else.

    Indexes are built at the end, and triggers stand still: that is what makes it quick.
    """
    with psycopg.connect(uri, autocommit=True) as connection:
        connection.execute("SET session_replication_role = replica")
        connection.execute("SET maintenance_work_mem = '256MB'")
        connection.execute("SET synchronous_commit = off")
        indexes = connection.execute(
            "SELECT i.indexname, i.indexdef FROM pg_indexes AS i LEFT JOIN pg_constraint AS c"
            " ON c.conname = i.indexname WHERE i.tablename = ANY(%s) AND c.conname IS NULL"
            " AND i.schemaname = current_schema()",
            (list(_TABLES),),
        ).fetchall()
        with connection.transaction():
            for name, _ in indexes:
                connection.execute(sql.SQL("DROP INDEX {}").format(sql.Identifier(name)))
            connection.execute(_FILL.encode())
            for _, definition in indexes:
                connection.execute(definition.encode())
        for table in _TABLES:
            connection.execute(sql.SQL("VACUUM (ANALYZE) {}").format(sql.Identifier(table)))
