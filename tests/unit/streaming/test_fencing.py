"""Kept events are refused once their run has moved on."""

from __future__ import annotations

import pytest

from treadle.streaming.log import EventHub

RUN = """
INSERT INTO runs (run_id, thread_id, assistant_id, graph_id, status, created_at, updated_at,
                  metadata, kwargs, multitask_strategy, attempt)
VALUES ('r', 't', 'a', 'g', :status, 0, 0, '{}', '{}', 'enqueue', :attempt)
"""


async def kept(database, attempt: int) -> int:
    hub = EventHub(database)
    await hub.open()
    hub.log("t").append("r", "event", "values", b"{}", keep=True, attempt=attempt)
    await database.flush()
    return len(await database.scan("SELECT id FROM events"))


@pytest.mark.parametrize("status", ["running", "success"])
@pytest.mark.parametrize(("attempt", "count"), [(2, 1), (1, 0)])
async def test_only_the_attempt_that_has_the_run_keeps_events(database, status, attempt, count):
    await database.write(lambda tx: tx.execute(RUN, {"status": status, "attempt": 2}))
    assert await kept(database, attempt) == count


async def test_a_run_that_was_deleted_keeps_no_more_events(database):
    assert await kept(database, 1) == 0
