"""A caller on the way to a run: what its configurable says of the user, what a cron keeps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import SimpleNamespace
from typing import Any

from treadle.auth import Caller, Policy
from treadle.auth.studio import StudioUser
from treadle.auth.users import User, plain_attributes
from treadle.serialization import dump_text, fragment, loads

USER, USER_ID, PERMISSIONS = (
    "langgraph_auth_user",
    "langgraph_auth_user_id",
    "langgraph_auth_permissions",
)
ATTRIBUTES = "__langgraph_auth_user_attributes__"
"""The key, in a run's configurable, of what else an object was that its user was made of."""
AUTH_KEYS = frozenset((USER, USER_ID, PERMISSIONS, ATTRIBUTES))
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


def run_auth_configurable(caller: Caller) -> dict[str, Any]:
    """The same, as it is kept for a run."""
    said = auth_configurable(caller)
    if caller.user is not None and (attributes := plain_attributes(caller.user)):
        said[ATTRIBUTES] = attributes
    return said


def user_in(configurable: Mapping[str, Any]) -> User | None:
    """The user of a run whose configurable comes from JSON."""
    return _user(configurable[USER], configurable[PERMISSIONS], configurable.get(ATTRIBUTES))


def _user(
    fields: Mapping[str, Any] | None, permissions: Sequence[str], attributes: Any
) -> User | None:
    if fields is None:
        return None
    return User(fields, permissions, SimpleNamespace(**attributes) if attributes else None)


def shown_kwargs(text: str) -> Any:
    """The ``kwargs`` of a run for an answer: without attributes, which no ``dict(user)`` has."""
    if ATTRIBUTES not in text:
        return fragment(text)
    kwargs = loads(text)
    kwargs["config"]["configurable"].pop(ATTRIBUTES, None)
    return kwargs


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
            "attributes": None if caller.user is None else plain_attributes(caller.user),
            "studio": isinstance(caller.user, StudioUser),
        }
    )


def unpack_caller(text: str, policy: Policy | None) -> Caller:
    """The caller of a row, under the ``policy`` that holds now."""
    packed = loads(text)
    permissions = packed["permissions"]
    user = _user(packed["user"], permissions, packed.get("attributes"))
    if packed.get("studio"):
        user = StudioUser()
    return Caller(packed["identity"], tuple(permissions), user, policy)
