"""The providers of traces and metrics for this process, and what they are used for."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Awaitable, Callable, Mapping, Sequence
from importlib.metadata import entry_points
from typing import Any, cast

import structlog
from opentelemetry import metrics, propagate, trace
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import MetricReader, PeriodicExportingMetricReader
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from prometheus_client import Metric

from treadle import __version__
from treadle.errors import StartupError
from treadle.log_context import sources
from treadle.telemetry import EXTRA, Wanted
from treadle.telemetry.bridge import Bridge
from treadle.telemetry.run_spans import RunTrace

logger = structlog.get_logger("treadle.telemetry")

CLOSE_SECONDS = 5.0
SCOPE = "treadle"
_RUN_SECONDS = (0.01, 0.05, 0.1, 0.5, 1, 5, 10, 30, 60, 300, 600, 1800, 3600)
_MODEL_SECONDS = tuple(0.01 * 2**n for n in range(14))
_TOKENS = tuple(4**n for n in range(14))
"""Both as OpenTelemetry's conventions for generative AI have them."""


class Telemetry:
    """Spans and instruments of this process.

    ``open`` makes its providers OpenTelemetry's global ones, so that spans which users' code makes
    lie within those of its run; providers that are there already (of a program that embeds the
    server) are used as they are, and left to their owner at the end.
    """

    def __init__(
        self,
        tracers: trace.TracerProvider,
        meters: metrics.MeterProvider,
        owned: Sequence[TracerProvider | MeterProvider] = (),
    ) -> None:
        self.tracer = tracers.get_tracer(SCOPE, __version__)
        self.meter = meters.get_meter(SCOPE, __version__)
        self._owned = owned
        self._run_seconds = self.meter.create_histogram(
            "treadle.run.duration",
            "s",
            "How long runs were executed, by graph and outcome",
            explicit_bucket_boundaries_advisory=_RUN_SECONDS,
        )
        self._model_seconds = self.meter.create_histogram(
            "gen_ai.client.operation.duration",
            "s",
            "How long calls of models took",
            explicit_bucket_boundaries_advisory=_MODEL_SECONDS,
        )
        self._model_tokens = self.meter.create_histogram(
            "gen_ai.client.token.usage",
            "{token}",
            "Tokens that calls of models used",
            explicit_bucket_boundaries_advisory=_TOKENS,
        )

    @classmethod
    def open(cls, wanted: Wanted) -> Telemetry:
        """The telemetry that is wanted. Raises ``StartupError`` naming what is wrong."""
        try:
            resource = _resource()
            tracers, meters = trace.get_tracer_provider(), metrics.get_meter_provider()
            owned: list[TracerProvider | MeterProvider] = []
            if wanted.traces and not isinstance(tracers, TracerProvider):
                tracers = TracerProvider(resource=resource, shutdown_on_exit=False)
                for name in wanted.traces:
                    exporter = _exporter("opentelemetry_traces_exporter", name)
                    tracers.add_span_processor(BatchSpanProcessor(exporter()))
                trace.set_tracer_provider(tracers)
                owned.append(tracers)
            if wanted.metrics and not isinstance(meters, MeterProvider):
                exporters = [
                    _exporter("opentelemetry_metrics_exporter", name) for name in wanted.metrics
                ]
                readers: list[MetricReader] = [
                    PeriodicExportingMetricReader(exporter()) for exporter in exporters
                ]
                meters = MeterProvider(readers, resource=resource, shutdown_on_exit=False)
                metrics.set_meter_provider(meters)
                owned.append(meters)
        except (ValueError, TypeError) as error:
            raise StartupError(f"OpenTelemetry cannot be set up: {error}") from error
        return cls(tracers, meters, owned)

    def bind_logs(self) -> None:
        """Let lines of the log name the trace and the span that they are from."""
        sources.append(trace_fields)

    async def observe(self, figures: Callable[[], Awaitable[Sequence[Metric]]]) -> None:
        """Export the figures of ``/metrics`` as metrics; they are asked for on this loop."""
        await Bridge(figures, asyncio.get_running_loop()).open(self.meter)

    def origin(self) -> dict[str, str]:
        """What names the present span to other processes; empty if there is none."""
        carrier: dict[str, str] = {}
        propagate.inject(carrier)
        return carrier

    def start_run(self, attributes: Mapping[str, Any], origin: object) -> RunTrace:
        """Begin the span of one attempt at a run, below the request that ``origin`` names.

        What ``self.origin`` cannot have said names nothing.
        """
        said = cast("dict[Any, Any]", origin) if isinstance(origin, dict) else {}
        carrier = {name: value for name, value in said.items() if isinstance(value, str)}
        return RunTrace(
            self.tracer,
            attributes,
            propagate.extract(carrier),
            run_seconds=self._run_seconds,
            model_seconds=self._model_seconds,
            model_tokens=self._model_tokens,
        )

    async def close(self) -> None:
        """Export what is waiting, but not for longer than ``CLOSE_SECONDS``."""
        if trace_fields in sources:
            sources.remove(trace_fields)

        def shut_down() -> None:
            for provider in self._owned:
                provider.force_flush(int(CLOSE_SECONDS * 1000))
                provider.shutdown()

        try:
            async with asyncio.timeout(CLOSE_SECONDS):
                await asyncio.to_thread(shut_down)
        except TimeoutError:
            logger.warning("the last spans and metrics could not be exported in time")


def trace_fields() -> Mapping[str, Any]:
    """The ids of the present span, as lines of the log have them."""
    context = trace.get_current_span().get_span_context()
    if not context.is_valid:
        return {}
    return {"trace_id": f"{context.trace_id:032x}", "span_id": f"{context.span_id:016x}"}


def _resource() -> Resource:
    """This process; what the environment says of it wins."""
    defaults = {"service.version": __version__, "service.instance.id": str(uuid.uuid4())}
    given = OTELResourceDetector().detect()
    return Resource.create({"service.name": "treadle", **defaults}).merge(given)


def _exporter(group: str, name: str) -> Callable[[], Any]:
    found = next(iter(entry_points(group=group, name=name)), None)
    if found is None:
        known = ", ".join(sorted({point.name for point in entry_points(group=group)}))
        kind = group.split("_")[1]
        grpc = name == "otlp_proto_grpc"
        hint = "opentelemetry-exporter-otlp-proto-grpc" if grpc else EXTRA
        raise StartupError(
            f'There is no exporter of {kind} called "{name}" (there are: {known or "none"}):'
            f" install {hint}, or change OTEL_{kind.upper()}_EXPORTER."
        )
    return found.load()
