"""Extract paths of a search: ``values.messages[-1].content`` and the like."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, cast

from treadle.errors import Invalid
from treadle.threads.queries import FIELD_COLUMNS

ROOTS = ("config", "interrupts", "metadata", "values")
RESERVED = frozenset(FIELD_COLUMNS) - {"error"}

_ALIAS = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_ROOT = re.compile(r"(?:" + "|".join(ROOTS) + r")(?=[.\[]|$)")
_STEP = re.compile(r"\.([^.\[\]]+)|\[(-?[0-9]{1,9})\]")

Path = tuple[str | int, ...]
NOWHERE: Path = ()
"""What a path of unknown syntax leads to: always null."""


def parse_extracts(extract: Mapping[str, str]) -> dict[str, Path]:
    """Alias → path. A path starts with its root; raises ``Invalid`` for a bad alias or root."""
    if taken := sorted(RESERVED & extract.keys()):
        raise Invalid(f"Extract keys cannot use reserved field names: {taken}")
    paths: dict[str, Path] = {}
    for alias, text in extract.items():
        if not _ALIAS.fullmatch(alias):
            raise Invalid(
                f"Extract key '{alias}' must be a valid identifier (letters, digits, underscores)"
            )
        if not text.strip():
            raise Invalid(f"Extract path for '{alias}' must be a non-empty string")
        root = _ROOT.match(text)
        if root is None:
            raise Invalid(f"Extract path '{text}' must start with one of: {', '.join(ROOTS)}")
        paths[alias] = _parse(root[0], text[root.end() :])
    return paths


def _parse(root: str, rest: str) -> Path:
    path: list[str | int] = [root]
    end = 0
    while step := _STEP.match(rest, end):
        path.append(step[1] if step[1] is not None else int(step[2]))
        end = step.end()
    return tuple(path) if end == len(rest) else NOWHERE


def resolve(path: Path, roots: Mapping[str, Any]) -> Any:
    """What ``path`` leads to, or None."""
    if path == NOWHERE:
        return None
    found: Any = roots
    for step in path:
        if isinstance(step, str):
            if not isinstance(found, dict | Mapping) or step not in found:
                return None
            found = cast("Mapping[str, Any]", found)[step]
        else:
            if not isinstance(found, list):
                return None
            items = cast("list[Any]", found)
            if not -len(items) <= step < len(items):
                return None
            found = items[step]
    return found
