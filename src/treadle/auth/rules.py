"""What langgraph.json and the environment say of ``auth``."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Annotated, Any

import msgspec

from treadle.errors import StartupError

SECTION_VARIABLE = "LANGGRAPH_AUTH"
TYPE_VARIABLE = "LANGGRAPH_AUTH_TYPE"

DEFAULT_CACHE_SECONDS = 60
DEFAULT_CACHE_SIZE = 1000


class CacheRules(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``auth.cache``: by which headers, how long and how many users are remembered."""

    cache_keys: Annotated[list[str], msgspec.Meta(min_length=1)]
    ttl_seconds: Annotated[float, msgspec.Meta(gt=0)] = DEFAULT_CACHE_SECONDS
    max_size: Annotated[int, msgspec.Meta(ge=1)] = DEFAULT_CACHE_SIZE


class OpenApiRules(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """``auth.openapi``: what ``/openapi.json`` says of authentication."""

    securitySchemes: dict[str, dict[str, Any]] = {}
    security: list[dict[str, list[str]]] = []
    paths: dict[str, dict[str, Any]] = {}


class AuthRules(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The ``auth`` section. Studio has no way in unless ``disable_studio_auth`` is false."""

    path: str | None = None
    disable_studio_auth: bool = True
    openapi: OpenApiRules | None = None
    cache: CacheRules | None = None

    @classmethod
    def read(cls, section: Mapping[str, Any] | None, environ: Mapping[str, str]) -> AuthRules:
        """The rules of a config; ``LANGGRAPH_AUTH`` is the section where it is set.

        Raises ``StartupError`` for a key that is not what it has to be: one that is misspelt must
        not leave a door open.
        """
        source = "auth in langgraph.json"
        if text := environ.get(SECTION_VARIABLE, "").strip():
            source = SECTION_VARIABLE
            try:
                section = json.loads(text)
            except ValueError as error:
                raise StartupError(
                    f"{source} has to be JSON, as auth in langgraph.json: {error}"
                ) from None
        try:
            rules = msgspec.convert({} if section is None else section, cls)
        except msgspec.ValidationError as error:
            raise StartupError(f"{source}: {error}") from None
        rules.check_type(environ.get(TYPE_VARIABLE, "").strip())
        return rules

    def check_type(self, kind: str) -> None:
        """Raise ``StartupError`` for a ``LANGGRAPH_AUTH_TYPE`` that this server doesn't have."""
        if kind in ("", "noop") or self.path is not None:
            return
        if kind == "langsmith":
            raise StartupError(
                f"{TYPE_VARIABLE} is langsmith: Treadle does not ask LangSmith who calls. Name an"
                " authentication of your own by auth.path in langgraph.json, or give out API keys"
                f" with TREADLE_API_KEYS, and take {TYPE_VARIABLE} out."
            )
        raise StartupError(f'{TYPE_VARIABLE} is "{kind}": it has to be noop.')
