"""A span for each request, over the whole application. Imported only with OpenTelemetry."""

from __future__ import annotations

from time import perf_counter
from typing import Any

from opentelemetry import context as contexts
from opentelemetry import propagate, trace
from opentelemetry.context import Context
from opentelemetry.metrics import Meter
from opentelemetry.propagators.textmap import Getter
from opentelemetry.trace import Span, SpanKind, Status, StatusCode, Tracer

from treadle.http.response import Receive, Send

UNTRACED = ("/ok", "/metrics")
"""What is asked for all the time, by those who watch the server."""

_IDS = ("thread_id", "run_id", "assistant_id", "cron_id")
DURATION_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10)


class _Headers(Getter[dict[str, str]]):
    def get(self, carrier: dict[str, str], key: str) -> list[str] | None:
        value = carrier.get(key.lower())
        return None if value is None else [value]

    def keys(self, carrier: dict[str, str]) -> list[str]:
        return list(carrier)


class TracedApp:
    """``app`` with a server span for each request and WebSocket, below the caller's span if the
    request names one (``traceparent``), and with the histogram of their durations.

    A span ends with the answer: that of an event stream when the stream does.
    """

    def __init__(self, app: Any, tracer: Tracer, meter: Meter) -> None:
        self._app, self._tracer = app, tracer
        self._seconds = meter.create_histogram(
            "http.server.request.duration",
            "s",
            "How long requests took",
            explicit_bucket_boundaries_advisory=DURATION_SECONDS,
        )

    async def __call__(self, scope: Any, receive: Receive, send: Send) -> None:
        kind: str = scope["type"]
        if kind == "lifespan" or scope["path"].endswith(UNTRACED):
            await self._app(scope, receive, send)
            return
        headers = {
            name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]
        }
        caller = propagate.extract(headers, Context(), _Headers())
        method: str = scope.get("method", "GET")
        attributes = _asked(scope, method, headers)
        span = self._tracer.start_span(method, caller, SpanKind.SERVER, attributes)
        contexts.attach(trace.set_span_in_context(span, caller))
        status = 0
        begun = perf_counter()

        async def watched(message: Any) -> None:
            nonlocal status
            if message["type"].endswith("response.start"):
                status = message["status"]
            elif message["type"] == "websocket.accept":
                status = 101
            await send(message)

        try:
            await self._app(scope, receive, watched)
        except BaseException as error:
            span.record_exception(error)
            raise
        finally:
            known = _answered(span, scope, method, status)
            self._seconds.record(perf_counter() - begun, known)
            span.end()


def _asked(scope: Any, method: str, headers: dict[str, str]) -> dict[str, Any]:
    """What is known of a request before it is answered; its query is nobody's business."""
    attributes: dict[str, Any] = {
        "http.request.method": method,
        "url.path": scope["path"],
        "url.scheme": scope.get("scheme", "http"),
        "network.protocol.version": scope.get("http_version", "1.1"),
    }
    if (client := scope.get("client")) is not None:
        attributes["client.address"] = client[0]
    if (server := scope.get("server")) is not None:
        attributes["server.address"], attributes["server.port"] = server
    for header, name in (
        ("user-agent", "user_agent.original"),
        ("x-request-id", "treadle.request_id"),
    ):
        if header in headers:
            attributes[name] = headers[header]
    return attributes


def _answered(span: Span, scope: Any, method: str, status: int) -> dict[str, Any]:
    """Complete a span with what became of its request; what the histogram knows of it."""
    found = scope.get("route")  # a template, or the route itself of a FastAPI app
    route: str = found if isinstance(found, str) else getattr(found, "path", "")
    known: dict[str, Any] = {"http.request.method": method}
    known["url.scheme"] = scope.get("scheme", "http")
    if route:
        known["http.route"] = route
        span.update_name(f"{method} {route}")
    if status:
        known["http.response.status_code"] = status
    if status >= 500:
        known["error.type"] = str(status)
        span.set_status(Status(StatusCode.ERROR))
    span.set_attributes(known)
    for name in _IDS:
        if (value := (scope.get("path_params") or {}).get(name)) is not None:
            span.set_attribute(f"treadle.{name}", value)
    return known
