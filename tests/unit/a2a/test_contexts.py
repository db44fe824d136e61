"""Whose tasks are found."""

from __future__ import annotations

import pytest

from treadle.a2a.contexts import Contexts
from treadle.a2a.errors import RpcError
from treadle.auth import ANYONE, Caller
from treadle.auth.filters import Equals

THREAD, RUN = "0197c3c8-9d6f-7bd0-8a5e-6f9a5f0f3c11", "0197c3c8-9d6f-7bd0-8a5e-6f9a5f0f3c12"
INSERT_THREAD = """
INSERT INTO threads (thread_id, created_at, updated_at, state_updated_at, metadata, config)
VALUES (:thread_id, 1, 1, 1, '{"owner":"alice"}', '{}')
"""
INSERT_RUN = """
INSERT INTO runs (run_id, thread_id, assistant_id, graph_id, status, created_at, updated_at,
                  metadata, kwargs, multitask_strategy)
VALUES (:run_id, :thread_id, 'chat', 'chat', 'success', 1, 1, '{}', '{}', 'enqueue')
"""


class OwnThreads:
    """Everyone sees their own threads."""

    async def decide(self, caller, resource, action, value):
        return Equals("owner", caller.identity)


@pytest.fixture
async def contexts(database):
    async def write(transaction):
        ids = {"thread_id": THREAD, "run_id": RUN}
        await transaction.execute(INSERT_THREAD, ids)
        await transaction.execute(INSERT_RUN, ids)

    await database.write(write)
    return Contexts(database)


@pytest.mark.parametrize("task_id", [f"{THREAD}:{RUN}", RUN])
async def test_tasks_of_others_are_not_there(contexts, task_id):
    for caller in (ANYONE, Caller("alice", policy=OwnThreads())):
        found = await contexts.find(caller, "chat", task_id)
        assert (found.id, found.state) == (f"{THREAD}:{RUN}", "completed")
    with pytest.raises(RpcError, match=f"Task not found: {task_id}") as refused:
        await contexts.find(Caller("bob", policy=OwnThreads()), "chat", task_id)
    assert refused.value.code == -32001
    assert await contexts.read(Caller("bob", policy=OwnThreads()), THREAD) is None
