"""The user that ``authenticate`` found: one object for handlers, runs, factories and routes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import date, time
from decimal import Decimal
from enum import Enum
from typing import Any, cast
from uuid import UUID

from pydantic import BaseModel

EXPECTED = (
    'a string, a dict with "identity", or an object with .identity, which is a string and not empty'
)

_READ = frozenset(("identity", "display_name", "is_authenticated", "permissions"))
_PLAIN = (str, int, float, list, tuple, dict, set, frozenset, date, time, Decimal, UUID, Enum)


class UnusableUser(ValueError):
    """What ``authenticate`` has returned is no user; the message says why."""


class User(Mapping[str, Any]):
    """A user: fields by key, and the same by attribute.

    The keys are ``identity``, ``is_authenticated``, ``display_name`` and whatever else a dict
    that ``authenticate`` returned had. Of a user that was made of an object (``source``) its
    other attributes are there by attribute only. A run's user is what JSON keeps of all that
    (``plain_attributes``).
    """

    def __init__(
        self, fields: Mapping[str, Any], permissions: Sequence[str] = (), source: object = None
    ) -> None:
        self._fields, self._permissions, self._source = dict(fields), list(permissions), source

    @property
    def identity(self) -> str:
        return self._fields["identity"]

    @property
    def display_name(self) -> str:
        return self._fields.get("display_name", self.identity)

    @property
    def is_authenticated(self) -> bool:
        return self._fields.get("is_authenticated", True)

    @property
    def permissions(self) -> Sequence[str]:
        return self._permissions

    def __getitem__(self, key: str) -> Any:
        return self._fields[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._fields)

    def __len__(self) -> int:
        return len(self._fields)

    def __getattr__(self, name: str) -> Any:
        if not name.startswith("_"):
            if name in self._fields:
                return self._fields[name]
            if self._source is not None:
                return getattr(self._source, name)
        raise AttributeError(f"the user has no {name!r}")

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.identity!r})"


def plain_attributes(user: User) -> dict[str, Any]:
    """What JSON can keep of the attributes of the object that a user was made of."""
    source, found = vars(user)["_source"], dict[str, Any]()
    if source is None:
        return found
    for name in dir(source):
        if name.startswith("_") or name in _READ or hasattr(BaseModel, name):
            continue
        try:
            value = getattr(source, name)
        except Exception:  # a property's own affair
            continue
        if value is None or isinstance(value, _PLAIN):
            found[name] = value
    return found


def user_of(returned: object) -> User:
    """The user that ``authenticate`` has returned. Raises ``UnusableUser`` if it is none."""
    if isinstance(returned, str):
        return _user({"identity": returned})
    if isinstance(returned, Mapping):
        given = {str(key): value for key, value in cast("Mapping[Any, Any]", returned).items()}
        return _user(given)
    if (identity := getattr(returned, "identity", None)) is None:
        raise UnusableUser(_no_identity(returned))
    names = ("display_name", "is_authenticated", "permissions")
    given = {name: getattr(returned, name, None) for name in names}
    return _user({"identity": identity, **given}, returned)


def _user(given: dict[str, Any], source: object = None) -> User:
    """A user of these fields; of an object's, permissions are no field."""
    identity = given.get("identity")
    if isinstance(identity, int | UUID) and not isinstance(identity, bool):
        identity = str(identity)  # what a database has for an identity
    if not isinstance(identity, str) or not identity:
        raise UnusableUser(_no_identity(given))
    permissions = given.get("permissions")
    if permissions is None:
        permissions = ()
    elif not isinstance(permissions, list | tuple | set | frozenset):
        raise UnusableUser(
            f"the permissions of a user have to be a list, not {type(permissions).__name__}"
        )
    listed = [str(permission) for permission in cast("Sequence[Any]", permissions)]
    is_authenticated = given.get("is_authenticated")
    fields: dict[str, Any] = {
        "identity": identity,
        "is_authenticated": True if is_authenticated is None else bool(is_authenticated),
        "display_name": given.get("display_name") or identity,
    }
    if source is None:
        fields |= {key: value for key, value in given.items() if key not in fields}
        if "permissions" in given:
            fields["permissions"] = listed
    return User(fields, listed, source)


def _no_identity(returned: object) -> str:
    kind = "None" if returned is None else f"a {type(returned).__name__}"
    return f"authenticate returned {kind} without an identity: expected {EXPECTED}"
