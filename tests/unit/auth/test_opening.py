"""Which way of authentication it is."""

from __future__ import annotations

from typing import Any

import pytest
from langgraph_sdk import Auth

from treadle.auth.authentication import CachedAuthentication, CustomAuthentication
from treadle.auth.key_authentication import KeyAuthentication
from treadle.auth.keys import KeyRing
from treadle.auth.opening import check_auth, open_authentication
from treadle.auth.rules import AuthRules, CacheRules
from treadle.auth.studio import StudioAuthentication
from treadle.errors import StartupError

KEYS = KeyRing({"ops": "0123456789abcdef"}, None)
RULES = AuthRules("./a.py:auth")


def asking() -> Auth:
    auth = Auth()

    @auth.authenticate
    async def authenticate(authorization: str) -> str:
        return authorization

    return auth


def opened(
    auth: Auth | None, keys: KeyRing | None = None, rules: AuthRules = RULES, studio: bool = False
) -> Any:
    return open_authentication(rules, auth, keys, None, studio=studio)


def test_without_anything_everyone_is_let_in():
    assert opened(None, rules=AuthRules()) is None
    assert opened(None, rules=AuthRules(disable_studio_auth=False), studio=True) is None


def test_one_of_two_says_who_calls():
    assert isinstance(opened(asking()), CustomAuthentication)
    assert isinstance(opened(None, KEYS), KeyAuthentication)
    assert isinstance(opened(Auth(), KEYS), KeyAuthentication)
    with pytest.raises(StartupError, match="only one of them"):
        opened(asking(), KEYS)


def test_handlers_without_an_authenticate_would_judge_nobody():
    with pytest.raises(StartupError, match=r"no @auth.authenticate"):
        opened(Auth())


def test_what_auth_path_names_is_an_auth():
    auth = Auth()
    assert check_auth(auth, "./a.py:auth") is auth
    with pytest.raises(StartupError, match=r"./a.py:auth is a dict.*langgraph_sdk.Auth"):
        check_auth({}, "./a.py:auth")


def test_it_remembers_if_told_so():
    rules = AuthRules("./a.py:auth", cache=CacheRules(["authorization"]))
    assert isinstance(opened(asking(), rules=rules), CachedAuthentication)


def test_studio_comes_in_only_if_both_say_so():
    wanted = AuthRules("./a.py:auth", disable_studio_auth=False)
    assert isinstance(opened(asking(), rules=wanted, studio=True), StudioAuthentication)
    assert isinstance(opened(asking(), rules=wanted, studio=False), CustomAuthentication)
    assert isinstance(opened(asking(), studio=True), CustomAuthentication)
