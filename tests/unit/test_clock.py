"""Time as it is stored and shown."""

from __future__ import annotations

import time
from datetime import UTC, datetime

import pytest

from treadle import clock
from treadle.clock import SECOND_US, iso, now_us


def test_now_is_in_microseconds():
    before = time.time_ns() // 1000
    assert before <= now_us() <= before + SECOND_US


def test_now_follows_the_wall_clock_forward_and_goes_on_where_that_goes_back(monkeypatch):
    wall_s, monotonic_s = 1000, 5
    monkeypatch.setattr(clock, "_start_ns", 0)
    monkeypatch.setattr(time, "time_ns", lambda: wall_s * 10**9)
    monkeypatch.setattr(time, "monotonic_ns", lambda: monotonic_s * 10**9)
    assert now_us() == 1000 * SECOND_US
    wall_s, monotonic_s = 1003, 8
    assert now_us() == 1003 * SECOND_US
    wall_s, monotonic_s = 2000, 9
    assert now_us() == 2000 * SECOND_US
    wall_s, monotonic_s = 1500, 10
    assert now_us() == 2001 * SECOND_US
    wall_s, monotonic_s = 1600, 110
    assert now_us() == 2101 * SECOND_US


@pytest.mark.parametrize(
    ("us", "shown"),
    [
        (0, "1970-01-01T00:00:00.000000+00:00"),
        (1, "1970-01-01T00:00:00.000001+00:00"),
        (1_795_250_979_934_567, "2026-11-21T08:49:39.934567+00:00"),
        (951_782_400 * SECOND_US, "2000-02-29T00:00:00.000000+00:00"),
        (-1, "1969-12-31T23:59:59.999999+00:00"),
    ],
)
def test_times_are_shown_with_six_decimals(us, shown):
    assert iso(us) == shown
    parsed = datetime.fromisoformat(shown)
    assert parsed.tzinfo == UTC
    assert round((parsed - datetime(1970, 1, 1, tzinfo=UTC)).total_seconds() * SECOND_US) == us


def test_texts_sort_as_times_do():
    times = [now_us() + step for step in (0, 1, 999, SECOND_US, 60 * SECOND_US, 10**14)]
    assert [iso(us) for us in times] == sorted(iso(us) for us in times)
