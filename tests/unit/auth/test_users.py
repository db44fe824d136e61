"""The user object, and what becomes of what ``authenticate`` returns."""

from __future__ import annotations

import copy
import pickle
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any
from uuid import UUID

import pytest
from langgraph_sdk.auth.types import BaseUser

from treadle.auth.users import UnusableUser, User, plain_attributes, user_of
from treadle.serialization import dumps, loads


@dataclass
class Person:
    identity: str
    display_name: str = "Ann Object"
    is_authenticated: bool = True
    permissions: list[str] = field(default_factory=lambda: ["read"])
    email: str = "ann@example.com"


class Minimal:
    @property
    def identity(self) -> str:
        return "minimal"


DEFAULTS = ["identity", "is_authenticated", "display_name"]


def test_a_string_is_an_identity():
    user = user_of("ann")
    assert dict(user) == {"identity": "ann", "is_authenticated": True, "display_name": "ann"}
    assert user.permissions == []


def test_a_dict_keeps_its_other_keys():
    user = user_of({"email": "a@b.c", "identity": "ann", "permissions": ("read", "write")})
    assert list(user) == [*DEFAULTS, "email", "permissions"]
    assert user.email == user["email"] == "a@b.c"
    assert "email" in user
    assert "phone" not in user
    assert user.permissions == user["permissions"] == ["read", "write"]


def test_a_dict_without_permissions_has_no_such_key():
    user = user_of({"identity": "ann", "is_authenticated": False, "display_name": "Ann"})
    assert dict(user) == {"identity": "ann", "is_authenticated": False, "display_name": "Ann"}
    assert user.permissions == []


def test_an_object_has_three_keys_and_all_its_attributes():
    user = user_of(Person("ann"))
    assert dict(user) == {"identity": "ann", "is_authenticated": True, "display_name": "Ann Object"}
    assert (user.permissions, user.email) == (["read"], "ann@example.com")
    assert "email" not in user
    assert user_of(Minimal()).display_name == "minimal"


def test_what_json_can_keep_of_an_object_is_told():
    class Row(Person):
        role = "admin"

        @property
        def team(self) -> str:
            return "red"

        @property
        def broken(self) -> str:
            raise RuntimeError("no database")

        def method(self) -> str:
            return "called"

    row = Row("ann")
    vars(row)["connection"] = object()
    expected = {"email": "ann@example.com", "role": "admin", "team": "red"}
    assert plain_attributes(user_of(row)) == expected
    assert plain_attributes(user_of({"identity": "ann", "email": "x"})) == {}


def test_a_missing_field_is_missing_either_way():
    for user in (user_of("ann"), user_of(Person("ann"))):
        with pytest.raises(AttributeError, match="nope"):
            _ = user.nope
        with pytest.raises(KeyError):
            user["nope"]
        assert user.get("nope", 5) == 5


def test_an_identity_from_a_database_becomes_text():
    assert user_of({"identity": 42})["identity"] == "42"
    assert user_of(SimpleNamespace(identity=UUID(int=1))).identity == str(UUID(int=1))


@pytest.mark.parametrize(
    "returned",
    [None, {}, {"name": "x"}, {"identity": None}, {"identity": ""}, "", 5, {"identity": True},
     {"identity": ["ann"]}, object()],
)  # fmt: skip
def test_nobody_is_no_user(returned: Any):
    with pytest.raises(UnusableUser, match="without an identity"):
        user_of(returned)


def test_permissions_are_a_list():
    with pytest.raises(UnusableUser, match=r"permissions .* list, not str"):
        user_of({"identity": "ann", "permissions": "admin"})


def test_it_is_what_the_sdk_calls_a_user():
    assert isinstance(user_of("ann"), BaseUser)


def test_it_survives_json_copies_and_logs():
    user = user_of({"identity": "ann", "token": "secret", "born": UUID(int=5)})
    again = User(loads(dumps({"u": user}))["u"], user.permissions)
    assert dict(again) == {**user, "born": str(UUID(int=5))}
    assert copy.deepcopy(user) == pickle.loads(pickle.dumps(user)) == user
    assert "secret" not in repr(user)
