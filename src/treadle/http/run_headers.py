"""Picks headers: those that runs are told of, and those that are logged."""

from __future__ import annotations

import re
from collections.abc import Iterable
from contextvars import ContextVar
from fnmatch import translate

RUN_HEADERS: ContextVar[dict[str, str] | None] = ContextVar("run_headers", default=None)
"""Those of the request that is being answered, by lower-case names; None: none are wanted."""


class HeaderPatterns:
    """Names with ``*`` for anything; ``excludes`` wins."""

    def __init__(self, includes: Iterable[str], excludes: Iterable[str]) -> None:
        self._includes, self._excludes = _any_of(includes), _any_of(excludes)

    def of(self, headers: Iterable[tuple[bytes, bytes]]) -> dict[str, str]:
        """The headers that are meant, by their lower-case names."""
        found: dict[str, str] = {}
        for raw, value in headers:
            name = raw.decode("latin-1").lower()
            if self._includes.match(name) and not self._excludes.match(name):
                found[name] = value.decode("latin-1")
        return found


def _any_of(patterns: Iterable[str]) -> re.Pattern[str]:
    """What matches any of ``patterns``; nothing if there are none."""
    arms = [translate(pattern.lower().replace("[", "[[]")) for pattern in patterns]
    return re.compile("|".join(arms) or r"(?!)")
