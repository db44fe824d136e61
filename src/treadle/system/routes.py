"""The HTTP side of the system: probes, versions, figures, documentation. All of it is public."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Any

import msgspec

from treadle.errors import Refused
from treadle.http.endpoint import Endpoint, Handler
from treadle.http.merging import with_app
from treadle.http.openapi import document, with_security
from treadle.http.request import Request
from treadle.http.response import JSON_TYPE, Body, Response, json_response
from treadle.serialization import dumps
from treadle.system.models import Health, HealthQuery, Info, MetricsQuery
from treadle.system.page import docs_page
from treadle.system.service import SystemService

TAG = "System"
_INTEGER = re.compile(r"\s*[+-]?\d{1,18}\s*")
_HTML = (b"content-type", b"text/html; charset=utf-8")
_PROMETHEUS = (b"content-type", b"text/plain; version=1.0.0; charset=utf-8")


def routes(
    service: SystemService,
    api: Sequence[Endpoint],
    security: Mapping[str, Any] | None = None,
    *,
    custom: Callable[[], dict[str, Any] | None] | None = None,
    prefix: str = "",
) -> list[Endpoint]:
    """The system's endpoints. ``api`` is everything else that is served: it is documented.

    ``security`` is what the documentation is to say of authentication (see ``with_security``),
    ``custom`` gives what the project's own app says of itself, and all paths are below ``prefix``.
    """
    served = tuple(api)

    @cache
    def openapi_bytes() -> bytes:
        endpoints = [*served, *own]
        found = document(endpoints)
        if security is not None:
            found = with_security(found, endpoints, security)
        if custom is not None and (more := custom()) is not None:
            found = with_app(found, more)
        if prefix:
            found["servers"] = [{"url": prefix}]
        return dumps(found)

    @cache
    def docs_bytes() -> bytes:
        return docs_page(openapi_bytes())

    async def ok(request: Request) -> Response:
        if not service.has_meta:
            return json_response({"ok": True})
        if not _wants_check(request.query(HealthQuery).check_db):
            return json_response({"ok": True, "services": {}})
        health = await service.health()
        return json_response(msgspec.to_builtins(health), 200 if health.ok else 500)

    async def info(request: Request) -> Response:
        return json_response(service.info({endpoint.tag for endpoint in served}))

    async def figures(request: Request) -> Response:
        if request.query(MetricsQuery).format == "json":
            return json_response(await service.figures())
        return Body(await service.prometheus(), 200, (_PROMETHEUS,))

    async def openapi(request: Request) -> Response:
        return Body(openapi_bytes(), 200, (JSON_TYPE,))

    async def docs(request: Request) -> Response:
        return Body(docs_bytes(), 200, (_HTML,))

    def probe(path: str, handler: Handler, summary: str, **more: Any) -> Endpoint:
        return Endpoint(
            "GET", path, handler, TAG, summary, public=True, counted=False, errors=(), **more
        )

    own = [
        probe("/ok", ok, "Is the server well?", query=HealthQuery, answer=Health),
        probe("/", ok, "Is the server well?", query=HealthQuery, answer=Health),
    ]
    if not service.has_meta:
        return own
    own += [
        probe("/info", info, "Versions and features", answer=Info),
        probe("/metrics", figures, "Figures", query=MetricsQuery, media_type="text/plain"),
        probe("/openapi.json", openapi, "The OpenAPI document", answer=dict[str, Any]),
        probe("/docs", docs, "The API, to read", media_type="text/html"),
    ]
    return own


def _wants_check(text: str) -> bool:
    """What ``check_db`` says: true, false, or an integer, as the reference server has it."""
    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    if _INTEGER.fullmatch(text):
        return int(text) != 0
    raise Refused(f"check_db is {text[:100]!r}, but it has to be true, false, 0 or 1")
