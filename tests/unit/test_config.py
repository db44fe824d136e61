"""langgraph.json: what it may say, and what is said of what it may not."""

import json
import os
import sys
from pathlib import Path

import pytest

from treadle.config import (
    IN_EFFECT,
    NO_MATTER,
    NOT_YET,
    GraphSpec,
    StoreIndex,
    StoreTtl,
    ThreadTtl,
    load_config,
)
from treadle.errors import StartupError

GRAPHS = {"agent": "./agent.py:graph"}


@pytest.fixture
def load(tmp_path):
    def load(**keys):
        path = tmp_path / "langgraph.json"
        path.write_text(json.dumps({"graphs": GRAPHS} | keys))
        return load_config(path)

    return load


@pytest.fixture
def refusal(load):
    def refusal(**keys) -> str:
        with pytest.raises(StartupError) as raised:
            load(**keys)
        return str(raised.value)

    return refusal


@pytest.fixture
def restored(monkeypatch):
    """sys.path and the environment are put back after the test."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(os, "environ", os.environ.copy())


def test_graphs_keep_the_order_of_the_file(load):
    config = load(graphs={"b": "./b.py:graph", "a": {"path": "pkg.mod:g", "description": "A."}})
    assert config.graphs == (
        GraphSpec("b", "./b.py:graph"),
        GraphSpec("a", "pkg.mod:g", "A."),
    )
    assert (config.graphs[1].location, config.graphs[1].attribute) == ("pkg.mod", "g")


def test_a_minimal_config_needs_nothing_but_graphs(load, tmp_path):
    config = load()
    assert config.dependencies == (".",)
    assert config.folder == tmp_path
    assert config.warnings == ()


def test_no_file_says_how_to_name_or_make_one(tmp_path):
    with pytest.raises(StartupError) as raised:
        load_config(tmp_path / "nope.json")
    for word in ("nope.json", "--config", '{"graphs"'):
        assert word in str(raised.value)


def test_bad_json_shows_the_place(tmp_path):
    path = tmp_path / "langgraph.json"
    path.write_text('{\n  "graphs": {"a": ./a.py}\n}')
    with pytest.raises(StartupError) as raised:
        load_config(path)
    message = str(raised.value)
    assert "line 2, column 19" in message
    assert '"graphs": {"a": ./a.py}' in message
    assert message.splitlines()[-1].index("^") == len("  ") + 18


@pytest.mark.parametrize("text", ["", "[]", "null", "{"])
def test_anything_but_an_object_is_refused(tmp_path, text):
    path = tmp_path / "langgraph.json"
    path.write_text(text)
    with pytest.raises(StartupError):
        load_config(path)


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({"graphs": {}}, ["no graphs", '{"graphs"']),
        ({"graphs": None}, ["no graphs"]),
        ({"graphs": []}, ['"graphs"', "an object", "an array"]),
        ({"graphs": {"shop": 5}}, ['"graphs.shop"', "a string", "a number", "5"]),
        ({"graphs": {"shop": {"path": None}}}, ['"graphs.shop.path"', "null"]),
        ({"graphs": {"shop": {"path": "a:b", "description": 1}}}, ["graphs.shop.description"]),
        ({"graphs": {"shop": "./shop.py"}}, ["graphs.shop", "./shop.py", "./agent.py:graph"]),
        ({"graphs": {"shop": "./shop.py:"}}, ["graphs.shop"]),
        ({"graphs": {"shop": "not a module:graph"}}, ["graphs.shop"]),
        ({"dependencies": "."}, ['"dependencies"', "an array"]),
        ({"dependencies": [".", 1]}, ["dependencies[1]"]),
        ({"env": ["A"]}, ['"env"', "an object or a string"]),
        ({"env": {"A": {}}}, ['"env.A"']),
        ({"env": "./missing.env"}, ["missing.env", '"env"']),
        ({"http": {"app": 1}}, ['"http.app"']),
        ({"http": {"mount_prefix": "api"}}, ["mount_prefix", "api", "/api/v1"]),
        ({"http": {"mount_prefix": "/api/"}}, ["mount_prefix"]),
        ({"python_version": "3.9"}, ["3.9", "3.11"]),
        ({"python_version": 3.12}, ['"python_version"', "a string"]),
    ],
)
def test_what_cannot_work_is_refused_by_name(refusal, keys, words):
    message = refusal(**keys)
    for word in words:
        assert word in message


def ttl(section, **fields):
    return {section: {"ttl": fields}}


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({"checkpointer": {"ttl": 5}}, ['"checkpointer.ttl"', "an object", "5"]),
        ({"store": {"ttl": []}}, ['"store.ttl"', "an object"]),
        (ttl("checkpointer", default_ttl="x"), ["checkpointer.ttl.default_ttl", '"x"', "minutes"]),
        (ttl("checkpointer", default_ttl=0), ["checkpointer.ttl.default_ttl", "above 0"]),
        (ttl("checkpointer", default_ttl=1e12), ["at most"]),
        (ttl("checkpointer", strategy="keep"), ['"delete" or "keep_latest"', '"keep"']),
        (ttl("checkpointer", sweep_interval_minutes=-1), ["ttl.sweep_interval_minutes", "above 0"]),
        (ttl("checkpointer", sweep_limit=1.5), ["ttl.sweep_limit", "a whole number", "1.5"]),
        (ttl("checkpointer", sweep_limit=0), ["1 or more"]),
        (ttl("store", default_ttl=True), ["store.ttl.default_ttl", "true", "minutes"]),
        (ttl("store", default_ttl=[1]), ["[1]"]),
        (ttl("store", refresh_on_read=1), ["store.ttl.refresh_on_read", "true or false"]),
        (ttl("store", sweep_interval_minutes="1"), ["store.ttl.sweep_interval_minutes"]),
    ],
    ids=str,
)
def test_a_ttl_that_cannot_work_is_refused_by_name(refusal, keys, words):
    message = refusal(**keys)
    for word in (*words, "langgraph.json"):
        assert word in message


def test_ttls(load):
    config = load(
        checkpointer={
            "ttl": {
                "strategy": "keep_latest",
                "default_ttl": 43200,
                "sweep_interval_minutes": 0.5,
                "sweep_limit": 7,
            }
        },
        store={"ttl": {"default_ttl": 1.5, "refresh_on_read": False, "sweep_interval_minutes": 2}},
    )
    assert config.thread_ttl == ThreadTtl("keep_latest", 43200, 0.5, 7)
    assert config.store_ttl == StoreTtl(1.5, False, 2)
    assert config.warnings == ()


def test_without_ttls_nothing_expires_by_itself_but_sweeps_go_on(load):
    nulls = {"default_ttl": None, "sweep_interval_minutes": None}
    for keys in ({}, {"checkpointer": {}, "store": None}, {"checkpointer": {"ttl": nulls}}):
        config = load(**keys)
        assert config.thread_ttl == ThreadTtl("delete", None, 5, 1000)
        assert config.store_ttl == StoreTtl(None, True, 5)


def test_unknown_keys_of_a_ttl_are_named(load):
    config = load(checkpointer={"ttl": {"default": 1}}, store={"ttl": {"sweep_limit": 1}})
    assert set(config.unknown) == {"checkpointer.ttl.default", "store.ttl.sweep_limit"}
    assert config.unknown["checkpointer.ttl.default"] == "checkpointer.ttl.default_ttl"


def test_python_version_may_have_a_patch_or_a_flavour(load):
    load(python_version="3.12-slim")
    load(python_version="3.13.1")


def test_env_object_may_hold_plain_values(load):
    assert load(env={"A": "1", "B": 2, "C": True}).env == {"A": "1", "B": "2", "C": "true"}


def test_env_file_is_read_as_dotenv(load, tmp_path):
    (tmp_path / "x.env").write_text('# c\nA=1\nexport B="with spaces"\nC=\nNOTHING\n')
    assert load(env="./x.env").env == {"A": "1", "B": "with spaces", "C": ""}


@pytest.mark.usefixtures("restored")
def test_the_environment_wins_over_env(load):
    os.environ["TREADLE_TEST_A"] = "from outside"
    load(env={"TREADLE_TEST_A": "from the file", "TREADLE_TEST_B": "b"}).enter()
    assert os.environ["TREADLE_TEST_A"] == "from outside"
    assert os.environ["TREADLE_TEST_B"] == "b"


@pytest.mark.usefixtures("restored")
def test_local_dependencies_are_importable_and_the_folder_comes_first(load, tmp_path):
    (tmp_path / "lib").mkdir()
    config = load(dependencies=["./lib", "langchain-openai"])
    config.enter()
    config.enter()
    assert sys.path[:2] == [str(tmp_path), str(tmp_path / "lib")]
    assert sys.path.count(str(tmp_path)) == 1


def test_a_missing_dependency_folder_is_warned_of(load):
    assert "gone" in load(dependencies=["./gone"]).warnings[0]


def test_unknown_keys_are_named_with_the_nearest_known_one(load):
    config = load(
        htpp={}, http={"mount_prefx": "/x"}, zzz=1, graphs={"a": {"path": "a:b", "descr": "x"}}
    )
    assert config.unknown == {
        "htpp": "http",
        "http.mount_prefx": "http.mount_prefix",
        "zzz": None,
        "graphs.a.descr": "description",
    }
    assert any('"htpp"' in line and 'did you mean "http"?' in line for line in config.warnings)


def test_keys_that_wait_for_a_later_release_are_reported(load):
    config = load(priority={"path": "./a.py:priority"}, checkpointer={"serde": {}})
    assert set(config.not_yet) == {"priority", "checkpointer.serde"}
    assert any("in the order in which they came" in line for line in config.warnings)


def test_pickle_is_refused(load):
    load(checkpointer={"serde": {"pickle_fallback": False}})
    with pytest.raises(StartupError, match=r'"checkpointer\.serde\.pickle_fallback"'):
        load(checkpointer={"serde": {"pickle_fallback": True}})


def test_encryption_names_its_handlers(load):
    assert load().encryption is None
    assert load(encryption={"path": "./a.py:e"}).encryption == "./a.py:e"
    for empty in ({}, {"path": ""}, {"path": None}):
        with pytest.raises(StartupError, match='has no "path"'):
            load(encryption=empty)


def test_store_index(load):
    index = {"embed": "./e.py:embed", "dims": 3, "fields": ["text"], "model": "x"}
    config = load(store={"index": index})
    assert config.store_index == StoreIndex("./e.py:embed", 3, ["text"])
    assert list(config.unknown) == ["store.index.model"]
    assert load(store={"index": {"embed": "a:b", "dims": 1, "fields": None}}).store_index


@pytest.mark.parametrize(
    ("index", "named"),
    [
        ({"dims": 3}, '"store.index.embed"'),
        ({"embed": 5, "dims": 3}, '"store.index.embed"'),
        ({"embed": "a:b"}, '"store.index.dims"'),
        ({"embed": "a:b", "dims": 0}, '"store.index.dims"'),
        ({"embed": "a:b", "dims": "3"}, '"store.index.dims"'),
        ({"embed": "a:b", "dims": 3, "fields": "text"}, '"store.index.fields"'),
        ([], '"store.index"'),
    ],
    ids=str,
)
def test_a_bad_store_index_is_named(load, index, named):
    with pytest.raises(StartupError, match=named):
        load(store={"index": index})


def test_what_is_for_treadles_own_store_is_told_beside_another(load):
    config = load(store={"path": "./s.py:store", "ttl": {"default_ttl": 1}})
    assert any('"store.ttl" is not in effect' in line for line in config.warnings)


def test_keys_for_image_building_are_left_alone(load):
    config = load(python_version="3.12", dockerfile_lines=["RUN true"], base_image="x")
    assert config.warnings == ()
    assert config.others["base_image"] == "x"


def test_each_known_key_is_either_in_effect_or_not():
    assert not set(NOT_YET) & (NO_MATTER | IN_EFFECT)
    assert not NO_MATTER & IN_EFFECT


def test_a_relative_path_is_made_absolute(monkeypatch, tmp_path, load):
    load()
    monkeypatch.chdir(tmp_path)
    assert load_config(Path("langgraph.json")).folder == tmp_path
