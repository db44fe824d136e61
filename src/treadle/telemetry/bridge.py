"""The figures of ``/metrics`` as OpenTelemetry's instruments."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from time import monotonic

import structlog
from opentelemetry.metrics import CallbackOptions, Meter, Observation
from prometheus_client import Metric

logger = structlog.get_logger("treadle.telemetry")

FRESH_SECONDS = 1.0
WAIT_SECONDS = 5.0

Figures = Callable[[], Awaitable[Sequence[Metric]]]


class Bridge:
    """Lets gauges and counters be observed under the names that they have on ``/metrics``.

    Histograms are not among them: those OpenTelemetry has to record by itself. The exporter asks
    from a thread of its own; the figures are put together on the server's loop, once for all
    instruments.
    """

    def __init__(self, figures: Figures, loop: asyncio.AbstractEventLoop) -> None:
        self._figures, self._loop = figures, loop
        self._found: dict[str, Metric] = {}
        self._asked_at = float("-inf")

    async def open(self, meter: Meter) -> None:
        """Make an instrument of each figure that there is."""
        for metric in await self._figures():
            if metric.type in ("gauge", "counter"):
                kind = "gauge" if metric.type == "gauge" else "counter"
                make = getattr(meter, f"create_observable_{kind}")
                make(metric.name, [self._observer(metric.name)], description=metric.documentation)

    def _observer(self, name: str) -> Callable[[CallbackOptions], Iterable[Observation]]:
        def observe(_: CallbackOptions) -> Iterable[Observation]:
            metric = self._all().get(name)
            samples = [] if metric is None else metric.samples
            return [Observation(sample.value, sample.labels) for sample in samples]

        return observe

    def _all(self) -> dict[str, Metric]:
        if monotonic() - self._asked_at > FRESH_SECONDS:
            asked = asyncio.run_coroutine_threadsafe(self._ask(), self._loop)
            try:
                self._found = {metric.name: metric for metric in asked.result(WAIT_SECONDS)}
            except Exception as error:
                asked.cancel()
                self._found = {}
                logger.warning("the figures could not be put together", error=repr(error))
            self._asked_at = monotonic()
        return self._found

    async def _ask(self) -> Sequence[Metric]:
        return await self._figures()
