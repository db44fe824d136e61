"""A figure that a room tells of itself: what ``/metrics`` shows, and OpenTelemetry exports."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, NamedTuple

from treadle.histogram import Histogram


class Figure(NamedTuple):
    """One value under a name. All with the same name have the same kind and the same labels.

    Without a value it only tells that there is such a figure, and what its labels are.
    """

    name: str
    kind: Literal["gauge", "counter", "histogram"]
    explained: str
    value: float | Histogram | None
    labels: Mapping[str, str] = {}
