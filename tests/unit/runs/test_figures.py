"""What is counted of runs."""

from __future__ import annotations

from treadle.runs.figures import RunFigures


def test_durations_are_never_below_nothing():
    figures = RunFigures()
    figures.count_ended("agent", "success", -5)
    assert figures.durations["agent"].counts[0] == 1
    assert figures.durations["agent"].total == 0


async def test_runs_are_counted_by_graph_and_outcome(house):
    thread = await house.thread()
    await house.run(thread)
    await house.run(thread, "boom")
    figures = house.rooms.figures
    assert figures.created == {"chain": 1, "boom": 1}
    assert figures.ended == {("chain", "success"): 1, ("boom", "error"): 1}
    assert sum(figures.durations["chain"].counts) == 1
