"""How long threads live."""

from __future__ import annotations

from typing import Any

from msgspec import UnsetType

from treadle.threads.models import Ttl, TtlRequest

MINUTE_US = 60_000_000
NO_TTL: dict[str, Any] = {"ttl_strategy": None, "ttl_minutes": None, "expires_at": None}


def ttl_columns(asked: TtlRequest | UnsetType, default: Ttl | None, now: int) -> dict[str, Any]:
    """The TTL columns of a thread: as the request has it, else as the server's default."""
    if isinstance(asked, UnsetType):
        if default is None:
            return NO_TTL
        minutes, strategy = default.minutes, default.strategy
    elif not isinstance(asked.ttl, UnsetType):
        minutes, strategy = asked.ttl, asked.strategy
    elif default is not None:
        minutes, strategy = default.minutes, asked.strategy
    else:
        return NO_TTL
    return {
        "ttl_strategy": strategy,
        "ttl_minutes": minutes,
        "expires_at": now + round(minutes * MINUTE_US),
    }
