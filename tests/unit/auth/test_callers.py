"""Callers in configurables and rows."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from langgraph_sdk import Auth

from treadle.auth import ANYONE, Caller
from treadle.auth.callers import (
    auth_configurable,
    caller_of,
    pack_caller,
    run_auth_configurable,
    shown_kwargs,
    unpack_caller,
    user_in,
)
from treadle.auth.studio import StudioUser
from treadle.auth.users import user_of
from treadle.serialization import dump_text, dumps, loads


class Allowing:
    async def decide(self, caller: Caller, resource: str, action: str, value: Any) -> None:
        return None


def test_nobody_is_nobody_in_a_configurable():
    assert auth_configurable(ANYONE) == {
        "langgraph_auth_user": None,
        "langgraph_auth_user_id": "",
        "langgraph_auth_permissions": [],
    }
    assert user_in(auth_configurable(ANYONE)) is None


def test_a_run_has_its_user_back_from_json():
    user = user_of({"identity": "ann", "permissions": ["read"], "team": {"name": "red"}})
    configurable = loads(dumps(auth_configurable(caller_of(user, None))))
    found = user_in(configurable)
    assert found == user
    assert found is not None
    assert (found.team, found.permissions) == ({"name": "red"}, ["read"])


def test_attributes_of_an_object_come_back_and_are_not_shown():
    caller = caller_of(user_of(SimpleNamespace(identity="ann", email="ann@example.com")), None)
    kwargs = {"config": {"configurable": run_auth_configurable(caller)}, "input": {}}
    found = user_in(loads(dumps(kwargs))["config"]["configurable"])
    assert found is not None
    assert (found.email, "email" in found) == ("ann@example.com", False)
    shown = loads(dumps(shown_kwargs(dump_text(kwargs))))
    assert shown == {"config": {"configurable": auth_configurable(caller)}, "input": {}}
    kept = unpack_caller(pack_caller(caller), None).user
    assert kept is not None
    assert kept.email == "ann@example.com"


def test_a_row_has_its_caller_back_under_the_policy_of_today():
    policy = Allowing()
    caller = caller_of(user_of({"identity": "ann", "permissions": ["read"]}), policy)
    text = pack_caller(caller)
    assert "policy" not in loads(text)
    assert unpack_caller(text, policy) == caller
    assert unpack_caller(pack_caller(ANYONE), None) == ANYONE


def test_studio_stays_studio_but_nobody_becomes_it_by_a_field():
    studio = Caller("langgraph-studio-user", user=StudioUser())
    assert isinstance(unpack_caller(pack_caller(studio), None).user, Auth.types.StudioUser)
    posing = caller_of(user_of({"identity": "eve", "kind": "StudioUser", "studio": True}), None)
    found = unpack_caller(pack_caller(posing), None)
    assert not isinstance(found.user, Auth.types.StudioUser)


def test_rows_of_before_there_were_users():
    text = '{"identity": "", "permissions": [], "user": null, "policy": null}'
    assert unpack_caller(text, None) == ANYONE
