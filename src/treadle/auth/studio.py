"""Studio's way past authentication, for those who want it while they develop."""

from __future__ import annotations

from typing import Any

from langgraph_sdk.auth import types

from treadle.auth import Authenticate, Caller, Policy
from treadle.auth.users import User

STUDIO_IDENTITY = "langgraph-studio-user"
STUDIO_HEADER = (b"x-auth-scheme", b"langsmith")


class StudioUser(types.StudioUser, User):
    """Whoever calls from Studio, where that is allowed; ``Auth.types.StudioUser`` to handlers."""

    def __init__(self) -> None:
        types.StudioUser.__init__(self, STUDIO_IDENTITY)
        fields = {
            "identity": STUDIO_IDENTITY,
            "is_authenticated": False,
            "display_name": STUDIO_IDENTITY,
            "kind": "StudioUser",
        }
        User.__init__(self, fields)


class StudioAuthentication:
    """Lets everyone in as Studio's user who says so, and asks ``inner`` of all others."""

    def __init__(self, inner: Authenticate, policy: Policy | None) -> None:
        self._inner = inner
        self._studio = Caller(STUDIO_IDENTITY, user=StudioUser(), policy=policy)

    async def __call__(self, scope: Any) -> Caller:
        if STUDIO_HEADER in (tuple(pair) for pair in scope["headers"]):
            return self._studio
        return await self._inner(scope)
