"""Who calls, and what they may see: the one gate that every operation passes."""

from __future__ import annotations

from typing import Any

import msgspec


class Caller(msgspec.Struct, frozen=True):
    """Who makes a request. Without custom auth everyone is ``ANYONE``."""

    identity: str = ""
    permissions: tuple[str, ...] = ()
    user: dict[str, Any] | None = None


ANYONE = Caller()

Filter = dict[str, Any]


async def authorize(caller: Caller, resource: str, action: str, value: Any) -> Filter | None:
    """What part of ``resource`` the caller may use for ``action``; ``None`` is all of it.

    ``resource`` is ``threads``, ``assistants``, ``crons`` or ``store``; ``action`` one of
    ``create``, ``read``, ``update``, ``delete``, ``search``, ``create_run``, ``put``, ``get``.
    A filter is a metadata pattern that the SQL applies: what it hides does not exist.
    """
    return None
