"""Secrets are not logged: what looks like one in a finished line becomes ``***``."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

HIDDEN = "***"
SHORTEST_VALUE = 12
"""A variable's value that is shorter is left alone: ``postgres`` may stand in any line."""

SECRET_NAME = re.compile(
    r"(?i)(api[_-]?keys?|access[_-]?key|private[_-]?key|aes[_-]?key|license[_-]?key|secret|passw(or)?d"
    r"|passphrase|token|credentials?|authorization|cookie)$"
)
"""Names of headers, fields and variables whose values are secret: ``x-api-key``, ``DB_PASSWORD``,
but not ``max_tokens``."""

_PASSWORD = re.compile(r"(://[^\s:/@\"'\\]*:)[^\s@/\"'\\]+(?=@)")
_NAMED = re.compile(
    r"(?i)((?:api[_-]?key|access[_-]?key|private[_-]?key|aes[_-]?key|license[_-]?key|secret"
    r"|passw(?:or)?d|passphrase|token|authorization|cookie)"
    r"(?:\\*[\"'])*\s*[:=,]\s*(?:b?\\*[\"'])*)"
    r"(?!(?:\d{1,9}|true|false|null|none)\b)"
    r"((?:(?:bearer|basic|digest)\s+)?[^\s\"'\\,;&)}\]{\[]+)"
)
_BEARER = re.compile(r"(?i)(bearer\s+)(?=[^\s\"']*[\d._-])[\w.~+/=-]{8,}")
_SHAPED = re.compile(
    r"()\b(?:sk-[\w-]{16,}|lsv2_\w{16,}|gh[pousr]_\w{20,}|xox[abps]-[\w-]{10,}"
    r"|AKIA[0-9A-Z]{16}|eyJ[\w-]{8,}\.[\w-]{8,}\.[\w-]*)"
)
_NAMES = ("key", "secret", "pass", "token", "authorization", "cookie")
_SHAPES = ("sk-", "lsv2_", "gh", "xox", "AKIA", "eyJ")


def scrubber(environ: Mapping[str, str]) -> Callable[[str], str]:
    """A function that hides the secrets in a line: those of ``environ``, whatever stands around
    them, and what has the name or the shape of one."""
    values = {
        value
        for name, value in environ.items()
        if SECRET_NAME.search(name) and len(value) >= SHORTEST_VALUE
    }
    longest_first = sorted(values, key=len, reverse=True)

    # Most lines have nothing to hide: looking for a few letters tells so in a microsecond.
    def scrub(line: str) -> str:
        for value in longest_first:
            if value in line:
                line = line.replace(value, HIDDEN)
        if "@" in line and "://" in line:
            line = _PASSWORD.sub(_KEPT, line)
        lowered = line.lower()
        for name in _NAMES:
            if name in lowered:
                line = _NAMED.sub(_KEPT, line)
                break
        if "bearer" in lowered:
            line = _BEARER.sub(_KEPT, line)
        for shape in _SHAPES:
            if shape in line:
                return _SHAPED.sub(_KEPT, line)
        return line

    return scrub


_KEPT = rf"\1{HIDDEN}"
"""What tells that there is a secret stays; the secret does not."""
