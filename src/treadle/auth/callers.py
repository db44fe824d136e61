"""A caller on the way to a run: what its configurable says of the user, what a cron keeps."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from treadle.auth import Caller, Policy
from treadle.auth.studio import StudioUser
from treadle.auth.users import User
from treadle.serialization import dump_text, loads

USER, USER_ID, PERMISSIONS = (
    "langgraph_auth_user",
    "langgraph_auth_user_id",
    "langgraph_auth_permissions",
)
AUTH_KEYS = frozenset((USER, USER_ID, PERMISSIONS))
"""The keys of a configurable that say who calls: no request has a say in them."""


def caller_of(user: User, policy: Policy | None) -> Caller:
    """The caller that a user is."""
    return Caller(user.identity, tuple(user.permissions), user, policy)


def auth_configurable(caller: Caller) -> dict[str, Any]:
    """What the configurable of a caller's run says of the user."""
    return {
        USER: caller.user,
        USER_ID: caller.identity,
        PERMISSIONS: list(caller.permissions),
    }


def user_in(configurable: Mapping[str, Any]) -> User | None:
    """The user of a run whose configurable comes from JSON."""
    fields = configurable[USER]
    return None if fields is None else User(fields, configurable[PERMISSIONS])


def without_auth_keys(given: Mapping[str, Any]) -> dict[str, Any]:
    """What a request gives, but for what would say who calls."""
    return {key: value for key, value in given.items() if key not in AUTH_KEYS}


def pack_caller(caller: Caller) -> str:
    """A caller as JSON text, for a row."""
    return dump_text(
        {
            "identity": caller.identity,
            "permissions": caller.permissions,
            "user": caller.user,
            "studio": isinstance(caller.user, StudioUser),
        }
    )


def unpack_caller(text: str, policy: Policy | None) -> Caller:
    """The caller of a row, under the ``policy`` that holds now."""
    packed = loads(text)
    fields, permissions = packed["user"], packed["permissions"]
    user = None if fields is None else User(fields, permissions)
    if packed.get("studio"):
        user = StudioUser()
    return Caller(packed["identity"], tuple(permissions), user, policy)
