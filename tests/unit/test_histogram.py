"""Histograms count each value in the first bucket that holds it."""

from __future__ import annotations

from treadle.histogram import Histogram


def test_values_at_a_bound_belong_below_it():
    histogram = Histogram((1, 10))
    for value in (0, 1, 1.5, 10, 11, 1000):
        histogram.observe(value)
    assert histogram.counts == [2, 2, 2]
    assert histogram.total == 1023.5
