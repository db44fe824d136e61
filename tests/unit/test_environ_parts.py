"""The parts of langgraph.json that variables carry."""

import json
from pathlib import Path

import pytest

from treadle.config import load_config
from treadle.errors import StartupError

GRAPHS = json.dumps({"agent": "./agent.py:graph"})


def test_variables_take_the_place_of_the_file(tmp_path: Path):
    path = tmp_path / "langgraph.json"
    environ = {"LANGSERVE_GRAPHS": GRAPHS, "LANGGRAPH_HTTP": '{"mount_prefix": "/x"}'}
    config = load_config(path, environ)
    assert [spec.graph_id for spec in config.graphs] == ["agent"]
    assert config.mount_prefix == "/x"


def test_variables_win_over_the_file(tmp_path: Path):
    path = tmp_path / "langgraph.json"
    path.write_text('{"graphs": {"a": "./a.py:graph"}, "http": {"mount_prefix": "/a"}}')
    environ = {"LANGGRAPH_HTTP": '{"mount_prefix": "/b"}', "LANGGRAPH_STORE": " "}
    assert load_config(path, environ).mount_prefix == "/b"
    assert load_config(path, {}).mount_prefix == "/a"


def test_configs_of_default_assistants(tmp_path: Path):
    config = {"agent": {"configurable": {"model": "small"}, "recursion_limit": 7}}
    environ = {"LANGSERVE_GRAPHS": GRAPHS, "LANGGRAPH_CONFIG": json.dumps(config)}
    [spec] = load_config(tmp_path / "langgraph.json", environ).graphs
    assert spec.config == config["agent"]


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("LANGGRAPH_HTTP", "{", ["LANGGRAPH_HTTP", "JSON"]),
        ("LANGGRAPH_STORE", "[]", ["LANGGRAPH_STORE", "object"]),
        ("LANGGRAPH_HTTP", '{"mount_prefix": "x"}', ["mount_prefix"]),
        ("LANGGRAPH_CONFIG", '{"shop": {}}', ["LANGGRAPH_CONFIG", "shop", "agent"]),
        ("LANGGRAPH_CONFIG", '{"agent": 5}', ["LANGGRAPH_CONFIG", "agent"]),
        ("LANGGRAPH_CONFIG", '{"agent": {"configurable": 5}}', ["LANGGRAPH_CONFIG", "agent"]),
    ],
)
def test_what_cannot_be_is_named(tmp_path: Path, name: str, text: str, words: list[str]):
    with pytest.raises(StartupError) as error:
        load_config(tmp_path / "langgraph.json", {"LANGSERVE_GRAPHS": GRAPHS, name: text})
    assert all(word in str(error.value) for word in words)
