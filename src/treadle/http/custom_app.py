"""A user's own Starlette or FastAPI app, whose routes are tried before the built-in ones."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from typing import Any

from starlette.applications import Starlette
from starlette.routing import Match

from treadle.errors import StartupError

_KEPT = frozenset({"/ok"})
_FASTAPI_PAGES = ("openapi_url", "docs_url", "redoc_url", "swagger_ui_oauth2_redirect_url")


class CustomApp:
    """The app of ``http.app`` in langgraph.json. ``/ok``, ``/docs`` and the like stay ours."""

    def __init__(self, app: Any) -> None:
        if not isinstance(app, Starlette):
            raise StartupError(
                f"http.app has to be a Starlette or FastAPI app, but it is a {type(app).__name__}"
            )
        self.app = app
        pages = {getattr(app, name, None) for name in _FASTAPI_PAGES}
        self._kept = _KEPT | {page for page in pages if page}

    def lifespan(self) -> AbstractAsyncContextManager[Any]:
        """The app's own lifespan: entered before the first request, left on shutdown."""
        return self.app.router.lifespan_context(self.app)

    def template(self, scope: Any) -> str | None:
        """The path template of the app's route for this request; None if it has none."""
        if scope["path"] in self._kept:
            return None
        for route in self.app.router.routes:
            match, _ = route.matches(scope)
            if match is Match.FULL:
                return str(getattr(route, "path", ""))
        return None
