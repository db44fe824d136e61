"""What all rooms' tests share."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest

from treadle.database import Database

OF_NO_THREAD = "SELECT count(*) AS n FROM {} WHERE thread_id NOT IN (SELECT thread_id FROM threads)"
ORPHANS = {
    **{
        table: OF_NO_THREAD.format(table)
        for table in (
            "runs",
            "events",
            "trimmed_events",
            "checkpoints",
            "checkpoint_values",
            "checkpoint_writes",
        )
    },
    "thread_labels": "SELECT count(*) AS n FROM thread_labels"
    " WHERE thread_seq NOT IN (SELECT seq FROM threads)",
    "writes of no checkpoint": "SELECT count(*) AS n FROM checkpoint_writes WHERE"
    " (thread_id, checkpoint_ns, checkpoint_id) NOT IN"
    " (SELECT thread_id, checkpoint_ns, checkpoint_id FROM checkpoints)",
    "values of no checkpoint": "SELECT count(*) AS n FROM checkpoint_values WHERE"
    " (thread_id, checkpoint_ns) NOT IN (SELECT thread_id, checkpoint_ns FROM checkpoints)",
    "deleted_threads": "SELECT count(*) AS n FROM deleted_threads",
}


@pytest.fixture
def orphans() -> Callable[[Database], Awaitable[dict[str, int]]]:
    """``await orphans(database)``: how many rows belong to nothing, by table; {} if all is well."""

    async def orphans(database: Database) -> dict[str, int]:
        await database.flush()
        found = {name: await database.read_one(sql) for name, sql in ORPHANS.items()}
        return {name: row["n"] for name, row in found.items() if row is not None and row["n"]}

    return orphans
