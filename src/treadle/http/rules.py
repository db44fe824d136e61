"""What langgraph.json says of ``http``."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Literal

import msgspec

from treadle.config import check_mount_prefix
from treadle.errors import StartupError
from treadle.http.access_log import AccessLog
from treadle.http.cors import CorsSettings
from treadle.http.run_headers import HeaderPatterns

GROUPS = ("assistants", "threads", "runs", "store", "mcp", "a2a", "meta")


class Patterns(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Names of headers, with ``*`` for anything; ``excludes`` wins."""

    includes: tuple[str, ...] = ()
    excludes: tuple[str, ...] = ()


class HttpRules(msgspec.Struct, frozen=True):
    """The ``http`` section; keys that it doesn't know are told of elsewhere."""

    app: str | None = None
    mount_prefix: str | None = None
    cors: CorsSettings | None = None
    configurable_headers: Patterns | None = None
    logging_headers: Patterns | None = None
    middleware_order: Literal["middleware_first", "auth_first"] | None = None
    enable_custom_route_auth: bool = False
    disable_assistants: bool = False
    disable_threads: bool = False
    disable_runs: bool = False
    disable_store: bool = False
    disable_mcp: bool = False
    disable_a2a: bool = False
    disable_meta: bool = False
    disable_webhooks: bool = False

    @classmethod
    def read(cls, section: Mapping[str, Any] | None) -> HttpRules:
        """The rules of a config. Raises ``StartupError`` naming the key that cannot be."""
        given = {key: value for key, value in (section or {}).items() if value is not None}
        try:
            rules = msgspec.convert(given, cls)
        except msgspec.ValidationError as error:
            raise StartupError(f"http in langgraph.json: {error}") from None
        if rules.mount_prefix is not None:
            check_mount_prefix(rules.mount_prefix, "http.mount_prefix in langgraph.json")
        if rules.cors is not None:
            _check_cors(rules.cors)
        return rules

    @property
    def disabled(self) -> frozenset[str]:
        """The groups of routes that are not served."""
        return frozenset(group for group in GROUPS if getattr(self, f"disable_{group}"))

    def run_headers(self) -> HeaderPatterns | None:
        """The headers that runs are told of."""
        return _picked(self.configurable_headers)

    def access_log(self) -> AccessLog:
        """The log of requests."""
        return AccessLog(_picked(self.logging_headers))


def _picked(patterns: Patterns | None) -> HeaderPatterns | None:
    if patterns is None or not patterns.includes:
        return None
    return HeaderPatterns(patterns.includes, patterns.excludes)


def _check_cors(cors: CorsSettings) -> None:
    try:
        re.compile(cors.allow_origin_regex or "")
    except re.error as error:
        raise StartupError(
            f'http.cors.allow_origin_regex in langgraph.json is "{cors.allow_origin_regex}", '
            f"which is no regular expression: {error}"
        ) from None
