"""The HTTP side of the system: probes, versions, figures, documentation. All of it is public."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

from treadle.http.endpoint import Endpoint, Handler
from treadle.http.openapi import document
from treadle.http.request import Request
from treadle.http.response import JSON_TYPE, Body, Response, json_response
from treadle.serialization import dumps
from treadle.system.models import Health, HealthQuery, Info, MetricsQuery
from treadle.system.page import docs_page
from treadle.system.prometheus import CONTENT_TYPE
from treadle.system.service import SystemService

TAG = "System"
_HTML = (b"content-type", b"text/html; charset=utf-8")
_PROMETHEUS = (b"content-type", CONTENT_TYPE)


def routes(service: SystemService, api: Sequence[Endpoint]) -> list[Endpoint]:
    """The system's endpoints. ``api`` is everything else that is served: it is documented."""
    served = tuple(api)

    @cache
    def openapi_bytes() -> bytes:
        return dumps(document([*served, *own]))

    @cache
    def docs_bytes() -> bytes:
        return docs_page(openapi_bytes())

    async def ok(request: Request) -> Response:
        if request.query(HealthQuery).check_db:
            services = await service.services()
            down = {name: False for name, is_well in services.items() if not is_well}
            # Without Redis all goes on, only slower.
            ok = services["database"]
            return json_response({"ok": ok, "services": down}, 200 if ok else 500)
        return json_response({"ok": True, "services": {}})

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
        probe("/info", info, "Versions and features", answer=Info),
        probe("/metrics", figures, "Figures", query=MetricsQuery, media_type="text/plain"),
        probe("/openapi.json", openapi, "The OpenAPI document", answer=dict[str, Any]),
        probe("/docs", docs, "The API, to read", media_type="text/html"),
    ]
    return own
