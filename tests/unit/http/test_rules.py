"""What langgraph.json says of http."""

import pytest

from treadle.errors import StartupError
from treadle.http.groups import enabled, group_of
from treadle.http.merging import with_app
from treadle.http.rules import HttpRules
from treadle.http.run_headers import HeaderPatterns

from .test_application import ENDPOINTS


def test_nothing_given():
    rules = HttpRules.read(None)
    assert rules.disabled == frozenset()
    assert rules.run_headers() is None


@pytest.mark.parametrize(
    ("section", "words"),
    [
        ({"disable_runs": "yes"}, ["disable_runs", "bool"]),
        ({"middleware_order": "last"}, ["middleware_order", "last"]),
        ({"mount_prefix": "api"}, ["mount_prefix", "api"]),
        ({"cors": {"allow_origins": "x"}}, ["cors.allow_origins", "array"]),
        ({"cors": {"allow_origin_regex": "("}}, ["allow_origin_regex", "("]),
        ({"configurable_headers": {"include": []}}, ["include"]),
    ],
)
def test_a_value_that_cannot_be_is_named(section, words):
    with pytest.raises(StartupError) as error:
        HttpRules.read(section)
    assert all(word in str(error.value) for word in words)


@pytest.mark.parametrize(
    ("path", "group"),
    [
        ("/threads/{thread_id}/runs/wait", "runs"),
        ("/threads/{thread_id}/commands", "runs"),
        ("/threads/{thread_id}/stream/events", "runs"),
        ("/runs/crons/search", "runs"),
        ("/store/items", "store"),
        ("/.well-known/agent-card.json", "a2a"),
        ("/openapi.json", "meta"),
        ("/ok", None),
        ("/", None),
    ],
)
def test_groups(path, group):
    assert group_of(path) == group


def test_disabled_groups_are_left_out():
    assert enabled(ENDPOINTS, frozenset({"threads"})) == ENDPOINTS
    rules = HttpRules.read({"disable_meta": True, "disable_mcp": True})
    assert rules.disabled == {"meta", "mcp"}


def test_patterns_of_headers():
    patterns = HeaderPatterns(["X-*", "user-agent"], ["*KEY*"])
    given = [(b"X-Tier", b"gold"), (b"x-key-1", b"no"), (b"user-agent", b"me"), (b"accept", b"a")]
    assert patterns.of(given) == {"x-tier": "gold", "user-agent": "me"}
    assert HeaderPatterns(["x-[ab]"], []).of([(b"x-a", b"1"), (b"x-[ab]", b"2")]) == {"x-[ab]": "2"}


def test_two_documents_become_one():
    ours = {
        "info": {"title": "Treadle", "version": "1"},
        "tags": [{"name": "T"}],
        "paths": {"/a": {"get": 1, "post": 2}, "/b": {"get": 3}},
        "components": {"schemas": {"Thread": {"type": "object"}, "Same": {}}},
    }
    theirs = {
        "info": {"title": "Mine"},
        "paths": {"/a": {"get": {"$ref": "#/components/schemas/Thread"}}},
        "components": {"schemas": {"Thread": {"type": "string"}, "Same": {}}},
    }
    merged = with_app(ours, theirs)
    assert merged["info"] == {"title": "Mine", "version": "1"}
    assert merged["paths"]["/a"] == {"get": {"$ref": "#/components/schemas/AppThread"}, "post": 2}
    assert merged["paths"]["/b"] == {"get": 3}
    assert merged["components"]["schemas"].keys() == {"Thread", "AppThread", "Same"}
