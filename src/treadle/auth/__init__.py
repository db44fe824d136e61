"""Who calls, and what they may see: the one gate that every operation passes."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Protocol

import msgspec

from treadle.auth.filters import Filter, condition, narrowed
from treadle.auth.users import User


class Policy(Protocol):
    """What callers may do."""

    async def decide(self, caller: Caller, resource: str, action: str, value: Any) -> Filter | None:
        """See ``authorize``."""
        ...


class Caller(msgspec.Struct, frozen=True):
    """Who makes a request. Without custom auth everyone is ``ANYONE``.

    ``policy`` decides what they may do; ``None`` allows everything.
    """

    identity: str = ""
    permissions: tuple[str, ...] = ()
    user: User | None = None
    policy: Policy | None = None


ANYONE = Caller()

Authenticate = Callable[[Any], Awaitable[Caller]]
"""Gets the scope of a request or a WebSocket and says who calls, or raises ``RequestError``."""


async def authorize(caller: Caller, resource: str, action: str, value: Any) -> Filter | None:
    """What part of ``resource`` the caller may use for ``action``; ``None`` is all of it.

    ``resource`` is ``threads``, ``assistants``, ``crons`` or ``store``; ``action`` one of
    ``create``, ``read``, ``update``, ``delete``, ``search``, ``create_run``, ``put``, ``get``.
    A filter is on the resource's metadata; the SQL applies it (``condition``): what it hides
    does not exist. ``value`` is a dict that tells what is to be done; a handler may change it.
    """
    if caller.policy is None:
        return None
    return await caller.policy.decide(caller, resource, action, value)


__all__ = [
    "ANYONE",
    "Authenticate",
    "Caller",
    "Filter",
    "Policy",
    "authorize",
    "condition",
    "narrowed",
]
