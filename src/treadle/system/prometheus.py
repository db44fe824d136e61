"""Figures in Prometheus' text format."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import cache
from itertools import accumulate

from prometheus_client import (
    CollectorRegistry,
    GCCollector,
    Metric,
    PlatformCollector,
    ProcessCollector,
    generate_latest,
)
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
)
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

from treadle import __version__
from treadle.figures import Figure
from treadle.histogram import Histogram

Family = CounterMetricFamily | GaugeMetricFamily | HistogramMetricFamily


def page(figures: Iterable[Figure]) -> bytes:
    """The whole page: ``figures``, and those of the process and of Python."""
    return generate_latest(_Found(families(figures))) + generate_latest(_process())


def families(figures: Iterable[Figure]) -> list[Metric]:
    """The figures by name, as the Prometheus client has them."""
    found: dict[str, Family] = {}
    for figure in figures:
        family = found.get(figure.name)
        if family is None:
            family = found[figure.name] = _family(figure)
        _add(family, figure)
    return list(found.values())


def _family(figure: Figure) -> Family:
    kinds = {
        "counter": CounterMetricFamily,
        "gauge": GaugeMetricFamily,
        "histogram": HistogramMetricFamily,
    }
    return kinds[figure.kind](figure.name, figure.explained, labels=list(figure.labels))


def _add(family: Family, figure: Figure) -> None:
    labels, value = list(figure.labels.values()), figure.value
    if value is None:
        return
    if isinstance(value, Histogram):
        assert isinstance(family, HistogramMetricFamily)
        bounds = [*map(floatToGoString, value.bounds), "+Inf"]
        buckets = list(zip(bounds, accumulate(value.counts), strict=True))
        family.add_metric(labels, buckets, round(value.total, 6))
    else:
        assert not isinstance(family, HistogramMetricFamily)
        family.add_metric(labels, value)


class _Found(Collector):
    def __init__(self, metrics: Iterable[Metric]) -> None:
        self._metrics = metrics

    def collect(self) -> Iterator[Metric]:
        yield from self._metrics


@cache
def _process() -> CollectorRegistry:
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    PlatformCollector(registry=registry)
    GCCollector(registry=registry)
    target = InfoMetricFamily("target", "The program")
    target.add_metric([], {"service_name": "treadle", "service_version": __version__})
    registry.register(_Found([target]))
    return registry
