"""The queue under ten thousand schedules, made the same way at each run of this test."""

from __future__ import annotations

import multiprocessing
import os
from concurrent.futures import ProcessPoolExecutor

import schedules

SCHEDULES = int(os.environ.get("TREADLE_SCHEDULES", "10000"))
"""How many of both kinds. They are other ones if there are more: a longer look is a wider one."""
SHARDS = 2
"""Processes that share the schedules of a kind."""


def test_no_schedule_breaks_the_rules_of_the_queue():
    kinds = [kind for kind in schedules.STEPS for _ in range(SHARDS)]
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(len(kinds), mp_context=spawn) as pool:
        ways = [SCHEDULES // len(kinds)] * len(kinds)
        wrong = list(pool.map(schedules.simulate_many, kinds, range(len(kinds)), ways))
    assert not any(wrong), "\n".join(filter(None, wrong))
