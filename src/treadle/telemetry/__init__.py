"""Traces and metrics for OpenTelemetry, by its standard environment variables.

Nothing of it is imported unless a variable asks for it. What asks: an endpoint
(``OTEL_EXPORTER_OTLP_ENDPOINT``, or that of a signal), or an exporter by name
(``OTEL_TRACES_EXPORTER``, ``OTEL_METRICS_EXPORTER``); ``OTEL_SDK_DISABLED=true`` keeps all of it
off. Everything else (sampler, headers, batches, resource) the SDK reads for itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Literal

import msgspec

from treadle.errors import StartupError

if TYPE_CHECKING:
    from treadle.telemetry.telemetry import Telemetry

Signal = Literal["traces", "metrics"]
EXTRA = "treadle[otel]"
PROTOCOLS = {"http/protobuf": "otlp_proto_http", "grpc": "otlp_proto_grpc"}


class Wanted(msgspec.Struct, frozen=True):
    """The exporters that the environment asks for, by their names as entry points."""

    traces: tuple[str, ...] = ()
    metrics: tuple[str, ...] = ()

    @classmethod
    def read(cls, environ: Mapping[str, str]) -> Wanted:
        """Raises ``StartupError`` for a protocol that there is no exporter for."""
        if environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
            return cls()
        return cls(traces=_exporters(environ, "traces"), metrics=_exporters(environ, "metrics"))


def open_telemetry(environ: Mapping[str, str]) -> Telemetry | None:
    """The telemetry that ``environ`` asks for; None if it asks for none.

    Raises ``StartupError`` if that cannot be had: packages are missing, or a value is wrong.
    """
    wanted = Wanted.read(environ)
    if not wanted.traces and not wanted.metrics:
        return None
    try:
        from treadle.telemetry.telemetry import Telemetry
    except ImportError as error:
        asking = ", ".join(sorted(name for name in environ if name.startswith("OTEL_")))
        raise StartupError(
            f"The environment asks for OpenTelemetry ({asking}), which is not installed"
            f' ("{error.name}" is missing): install {EXTRA}, or set OTEL_SDK_DISABLED=true.'
        ) from None
    return Telemetry.open(wanted)


def _exporters(environ: Mapping[str, str], signal: Signal) -> tuple[str, ...]:
    def given(name: str) -> str:
        return environ.get(name, "").strip()

    upper = signal.upper()
    endpoint = given(f"OTEL_EXPORTER_OTLP_{upper}_ENDPOINT") or given("OTEL_EXPORTER_OTLP_ENDPOINT")
    named = given(f"OTEL_{upper}_EXPORTER") or ("otlp" if endpoint else "none")
    found: list[str] = []
    for name in filter(None, (part.strip() for part in named.split(","))):
        if name == "none":
            continue
        if name == "otlp":
            name = _otlp(environ, upper)
        found.append(name)
    return tuple(dict.fromkeys(found))


def _otlp(environ: Mapping[str, str], upper: str) -> str:
    for variable in (f"OTEL_EXPORTER_OTLP_{upper}_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL"):
        if protocol := environ.get(variable, "").strip():
            if protocol not in PROTOCOLS:
                raise StartupError(
                    f'{variable} is "{protocol}": it has to be one of {", ".join(PROTOCOLS)}.'
                )
            return PROTOCOLS[protocol]
    return PROTOCOLS["http/protobuf"]
