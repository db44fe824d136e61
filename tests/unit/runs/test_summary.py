"""What a run leaves on its thread's row."""

from __future__ import annotations

from typing import Any

import pytest
from langgraph.checkpoint.memory import InMemorySaver

from treadle.runs.summary import summary_of
from treadle.serialization import loads


@pytest.fixture
def config() -> Any:
    return {"configurable": {"thread_id": "t"}}


async def test_nothing_yet(graphs, config):
    graphs.chain.checkpointer = InMemorySaver()
    summary = summary_of(await graphs.chain.aget_state(config))
    assert summary == ("idle", None, "{}")


async def test_an_end_and_a_question(graphs, config):
    for name, status, waiting in (("chain", "idle", False), ("question", "interrupted", True)):
        graph = getattr(graphs, name)
        graph.checkpointer = InMemorySaver()
        await graph.ainvoke({"gate": "g"}, config)
        summary = summary_of(await graph.aget_state(config))
        assert summary.status == status
        assert loads(summary.values)["gate"] == "g"
        assert bool(loads(summary.interrupts)) is waiting
