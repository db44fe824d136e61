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


async def test_waiting_is_measured_from_when_a_run_was_due(house):
    thread = await house.thread()
    await house.run(thread)
    figures = house.rooms.figures
    assert sum(figures.waits["chain"].counts) == 1
    assert figures.waits["chain"].total < 5


async def test_a_run_that_is_cancelled_before_it_began_has_ended_too(house):
    thread = await house.thread()
    run = await house.create(thread, after_seconds=100)
    await house.cancel(run)
    figures = house.rooms.figures
    assert figures.ended == {("chain", "interrupted"): 1}
    assert "chain" not in figures.durations


def test_what_has_not_happened_yet_is_told_of_all_the_same():
    names = {figure.name for figure in RunFigures().figures()}
    assert {"treadle_runs_created_total", "treadle_runs_ended_total"} <= names
