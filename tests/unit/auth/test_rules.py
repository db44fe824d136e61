"""The ``auth`` section, from langgraph.json or the environment."""

from __future__ import annotations

import json
from typing import Any

import pytest

from treadle.auth.rules import AuthRules, CacheRules
from treadle.errors import StartupError


def read(section: Any, **environ: str) -> AuthRules:
    return AuthRules.read(section, environ)


def test_without_a_section_there_are_no_rules():
    assert read(None) == read({}) == AuthRules(None, True, None, None)


def test_studio_has_a_way_in_only_if_that_is_said():
    assert read({"path": "./a.py:auth"}).disable_studio_auth
    assert not read({"path": "./a.py:auth", "disable_studio_auth": False}).disable_studio_auth


def test_a_section_of_the_environment_wins():
    section = {"path": "/deps/app/auth.py:auth", "cache": {"cache_keys": ["authorization"]}}
    rules = read({"path": "./a.py:auth"}, LANGGRAPH_AUTH=json.dumps(section))
    assert rules.path == "/deps/app/auth.py:auth"
    assert rules.cache == CacheRules(["authorization"], 60, 1000)
    assert read({"path": "./a.py:auth"}, LANGGRAPH_AUTH=" ").path == "./a.py:auth"


@pytest.mark.parametrize(
    ("section", "problem"),
    [
        ({"pth": "./a.py:auth"}, "unknown field `pth`"),
        ({"path": 5}, r"\$.path"),
        ({"disable_studio_auth": "no"}, r"\$.disable_studio_auth"),
        ({"cache": {"cache_keys": []}}, r"\$.cache.cache_keys"),
        ({"cache": {"cache_keys": ["a"], "ttl_seconds": 0}}, r"\$.cache.ttl_seconds"),
        ({"cache": {"cache_keys": ["a"], "max_size": 0}}, r"\$.cache.max_size"),
        ({"openapi": {"security": {}}}, r"\$.openapi.security"),
    ],
)
def test_a_wrong_key_stops_the_start(section, problem):
    with pytest.raises(StartupError, match="auth in langgraph.json: .*" + problem):
        read(section)
    with pytest.raises(StartupError, match="LANGGRAPH_AUTH: .*" + problem):
        read(None, LANGGRAPH_AUTH=json.dumps(section))


@pytest.mark.parametrize("text", ["./auth.py:auth", "{"])
def test_a_section_of_the_environment_is_json(text: str):
    with pytest.raises(StartupError, match="LANGGRAPH_AUTH has to be JSON"):
        read(None, LANGGRAPH_AUTH=text)


def test_who_asks_langsmith_is_told_that_nobody_does():
    assert read(None, LANGGRAPH_AUTH_TYPE="noop") == AuthRules()
    with pytest.raises(StartupError, match="LANGGRAPH_AUTH_TYPE is langsmith"):
        read(None, LANGGRAPH_AUTH_TYPE="langsmith")
    with pytest.raises(StartupError, match='LANGGRAPH_AUTH_TYPE is "x"'):
        read(None, LANGGRAPH_AUTH_TYPE="x")
    assert read({"path": "./a.py:auth"}, LANGGRAPH_AUTH_TYPE="langsmith").path
