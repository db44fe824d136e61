"""The queue under ten thousand schedules, the same ones at each run of this test.

``TREADLE_SCHEDULES=100000`` has a longer look, at other ones.
"""

from __future__ import annotations

import multiprocessing
import os
from concurrent.futures import ProcessPoolExecutor

import schedules

SCHEDULES = int(os.environ.get("TREADLE_SCHEDULES", "10000"))
SHARES = 4
"""Into how many shares the schedules of each kind are cut, for all cores to be busy."""


def test_no_schedule_breaks_the_rules_of_the_queue():
    kinds = [kind for kind in schedules.STEPS for _ in range(SHARES)]
    share = SCHEDULES // len(kinds)
    # Each in a process of its own: time and threads are replaced there, and forking one that has
    # threads is not safe.
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(os.cpu_count(), mp_context=spawn) as pool:
        found = pool.map(schedules.simulate_many, kinds, range(len(kinds)), [share] * len(kinds))
        wrong = [failure for failure in found if failure is not None]
    assert not wrong, "\n".join(wrong)
