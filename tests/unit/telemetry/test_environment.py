"""Which variables ask for OpenTelemetry, and what cannot be had."""

from __future__ import annotations

import sys

import pytest

from treadle.errors import StartupError
from treadle.telemetry import Wanted, open_telemetry

ENDPOINT = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:4318"}
HTTP = "otlp_proto_http"


@pytest.mark.parametrize(
    ("environ", "traces", "metrics"),
    [
        ({}, (), ()),
        ({"OTEL_SERVICE_NAME": "alone"}, (), ()),
        (ENDPOINT, (HTTP,), (HTTP,)),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://x"}, (HTTP,), ()),
        ({"OTEL_EXPORTER_OTLP_METRICS_ENDPOINT": "http://x"}, (), (HTTP,)),
        ({"OTEL_TRACES_EXPORTER": "otlp"}, (HTTP,), ()),
        ({"OTEL_TRACES_EXPORTER": "otlp, console"}, (HTTP, "console"), ()),
        ({**ENDPOINT, "OTEL_METRICS_EXPORTER": "none"}, (HTTP,), ()),
        ({**ENDPOINT, "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}, ("otlp_proto_grpc",), None),
        ({**ENDPOINT, "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL": "grpc"}, ("otlp_proto_grpc",), (HTTP,)),
        ({**ENDPOINT, "OTEL_SDK_DISABLED": "true"}, (), ()),
        ({**ENDPOINT, "OTEL_SDK_DISABLED": "false"}, (HTTP,), (HTTP,)),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": " "}, (), ()),
    ],
)
def test_what_asks_for_which_exporter(environ, traces, metrics):
    expected = traces if metrics is None else metrics
    assert Wanted.read(environ) == Wanted(traces, expected)


def test_without_a_wish_there_is_nothing():
    assert open_telemetry({"OTEL_SERVICE_NAME": "alone"}) is None


def test_an_unknown_protocol_stops_the_start():
    with pytest.raises(StartupError, match=r'PROTOCOL is "http/json".*http/protobuf, grpc'):
        open_telemetry({**ENDPOINT, "OTEL_EXPORTER_OTLP_PROTOCOL": "http/json"})


@pytest.mark.parametrize(
    ("environ", "said"),
    [
        ({"OTEL_TRACES_EXPORTER": "zipkin"}, '"zipkin".*OTEL_TRACES_EXPORTER'),
        ({"OTEL_METRICS_EXPORTER": "nope"}, '"nope".*OTEL_METRICS_EXPORTER'),
    ],
)
def test_an_exporter_that_is_not_installed_stops_the_start(environ, said):
    with pytest.raises(StartupError, match=said):
        open_telemetry(environ)


def test_the_extra_is_named_if_it_is_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk.trace", None)
    for name in [name for name in sys.modules if name.startswith("treadle.telemetry.t")]:
        monkeypatch.delitem(sys.modules, name)
    with pytest.raises(StartupError) as raised:
        open_telemetry(ENDPOINT)
    for word in ("treadle[otel]", "OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_SDK_DISABLED"):
        assert word in str(raised.value)
