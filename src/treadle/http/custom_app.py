"""A user's own Starlette or FastAPI app, which the built-in API is put into.

The app's middleware wraps everything; its routes are tried before the built-in ones.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Iterable
from contextlib import AbstractAsyncContextManager
from typing import Any, Protocol

from starlette.applications import Starlette
from starlette.responses import JSONResponse
from starlette.routing import BaseRoute, Host, Match, Mount

from treadle.errors import StartupError
from treadle.http.response import Receive, Send

Asgi = Callable[[Any, Receive, Send], Awaitable[None]]

_OURS = frozenset({"/ok"})
_FASTAPI_PAGES = {
    "/docs": ("docs_url", "redoc_url"),
    "/openapi.json": ("openapi_url",),
}
_CATCHES_ALL = re.compile(r"(/\{\w+:path\}|/)?")


class BuiltIn(Protocol):
    """What the app is put around."""

    async def serve(self, scope: Any, receive: Receive, send: Send) -> None:
        """Answer, with 404 at worst."""
        ...

    def knows(self, scope: Any) -> bool:
        """Whether there is such a path, whatever its methods."""
        ...

    async def let_in(self, scope: Any, receive: Receive, send: Send) -> bool:
        """Find out who calls; if nobody who may, answer so, and return False."""
        ...


class CustomApp:
    """The app of ``http.app`` in langgraph.json; ``is_protected``: its routes need a caller.

    ``/ok`` stays the server's, and so do FastAPI's own pages where they are at ``/docs`` and
    ``/openapi.json``: these describe all there is. A route or mount at the root that takes
    every path comes after the built-in routes.
    """

    def __init__(self, app: Any, source: str = "http.app", *, is_protected: bool = False) -> None:
        if not isinstance(app, Starlette):
            raise StartupError(
                f"http.app: {source} is a {type(app).__name__}. It has to be a Starlette or FastAPI"
                " app."
            )
        self.app = app
        self.is_protected = is_protected
        self._ours = _OURS | {
            path
            for path, names in _FASTAPI_PAGES.items()
            if any(getattr(app, name, None) == path for name in names)
        }

    def around(self, built_in: BuiltIn) -> Asgi:
        """The app with ``built_in`` inside. Raises what a middleware's constructor raises."""
        router = self.app.router
        own = router.middleware_stack

        async def choose(scope: Any, receive: Receive, send: Send) -> None:
            template = self.template(scope)
            if template is None and (self.is_ours(scope) or built_in.knows(scope)):
                await built_in.serve(scope, receive, send)
                return
            if template is not None:
                scope["treadle.exchange"].template = template
                if self.is_protected and not await built_in.let_in(scope, receive, send):
                    return
            # Without a template: a wrong method, a slash too many, or nobody's path at all.
            await own(scope, receive, send)

        router.default = built_in.serve
        router.middleware_stack = choose
        if not self.app.exception_handlers.keys() & {500, Exception}:
            self.app.add_exception_handler(Exception, _failed)
        self.app.middleware_stack = self.app.build_middleware_stack()
        return self.app

    def lifespan(self) -> AbstractAsyncContextManager[Any]:
        """The app's own lifespan: entered before the first request, left on shutdown."""
        return self.app.router.lifespan_context(self.app)

    def is_ours(self, scope: Any) -> bool:
        """Whether the built-in API answers, whatever routes the app has."""
        path: str = scope["path"].removeprefix(scope.get("root_path", ""))
        return path in self._ours or scope["treadle.exchange"].is_outside

    def template(self, scope: Any) -> str | None:
        """The path template of the app's route for this request; None if it has none."""
        return None if self.is_ours(scope) else _template(self.app.router.routes, scope)

    def openapi(self) -> dict[str, Any] | None:
        """The OpenAPI document of a FastAPI app."""
        describe = getattr(self.app, "openapi", None)
        return None if describe is None else describe()


def _template(routes: Iterable[BaseRoute], scope: Any, before: str = "") -> str | None:
    """The template of the first route that takes the request, and not merely every path.

    A mount takes it if one of its routes does; without routes it is as opaque as static files.
    """
    for route in routes:
        match, found = route.matches(scope)
        if match is not Match.FULL:
            continue
        path = str(getattr(route, "path", ""))
        if isinstance(route, Mount | Host) and route.routes:
            inside = _template(route.routes, {**scope, **found}, before + path)
            if inside is not None:
                return inside
        elif before or not _CATCHES_ALL.fullmatch(path) or _is_exact(route, path):
            return before + path
    return None


def _is_exact(route: BaseRoute, path: str) -> bool:
    """Whether ``/`` is just that path, and no mount."""
    return path == "/" and not isinstance(route, Mount | Host)


async def _failed(request: Any, error: Exception) -> JSONResponse:
    request_id = request.scope["treadle.exchange"].request_id
    text = f"Internal Server Error. The server's log tells more of request {request_id}"
    return JSONResponse({"detail": text}, 500)


def joined_headers(
    given: Iterable[tuple[bytes, bytes]], own: Iterable[tuple[bytes, bytes]]
) -> list[tuple[bytes, bytes]]:
    """An app's headers and the server's: of CORS the server's count, of the id the app's."""
    given, own = list(given), list(own)
    names = {name.lower() for name, _ in given}
    ours = {name for name, _ in own}
    kept = [
        (name, value)
        for name, value in given
        if not (name.lower().startswith(b"access-control-") and name.lower() in ours)
    ]
    varies = any(n.lower() == b"vary" and b"origin" in v.lower() for n, v in given)
    added = [
        (name, value)
        for name, value in own
        if not ((name == b"vary" and varies) or (name == b"x-request-id" and name in names))
    ]
    return [*kept, *added]
