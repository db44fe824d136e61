"""How files and modules are imported, and what is said when they cannot be."""

import sys

import pytest

from treadle.config import load_config
from treadle.graphs import GraphRegistry
from treadle.graphs.importing import import_module


def test_a_file_that_has_an_ordinary_name_is_imported_by_it(project):
    registry = project(
        {"a": "./graphs_here.py:a", "b": "other:b"},
        {"graphs_here.py": "a = builder('a')\n", "other.py": "from graphs_here import a as b\n"},
    )
    registry.load()
    assert sys.modules["graphs_here"].a is sys.modules["other"].b


def test_relative_imports_work_in_folders(project):
    registry = project(
        {"a": "./src/agent/graph.py:a"},
        {"src/agent/graph.py": "from .text import T\na = builder(T)\n", "src/agent/text.py": "T=1"},
    )
    registry.load()
    assert "src.agent.graph" in sys.modules


def test_files_of_the_same_name_do_not_meet(project):
    files = {f"{name}-agent/graph.py": f"from helper_{name} import g\n" for name in "xy"}
    files |= {f"{name}-agent/helper_{name}.py": f"g = builder('{name}')\n" for name in "xy"}
    registry = project({n: f"./{n}-agent/graph.py:g" for n in "xy"}, files)
    registry.load()
    assert registry.static("x").builder is not registry.static("y").builder


def test_a_file_that_shadows_a_library_keeps_to_itself(project):
    project({"a": "./json.py:a"}, {"json.py": "a = builder('a')\n"}).load()
    assert hasattr(sys.modules["json"], "loads")


def test_a_file_is_imported_once_for_all_its_graphs(project):
    code = "import sys\nsys.times = getattr(sys, 'times', 0) + 1\na = b = builder('a')\n"
    project({"a": "./my-graphs.py:a", "b": "./my-graphs.py:b"}, {"my-graphs.py": code}).load()
    assert sys.__dict__.pop("times") == 1


def test_projects_of_one_process_do_not_meet(project, tmp_path):
    project({"a": "./my-graphs.py:a"}, {"my-graphs.py": "a = builder('a')\n"}).load()
    for name in ("my-graphs.py", "langgraph.json"):
        (tmp_path / "other").mkdir(exist_ok=True)
        (tmp_path / "other" / name).write_text((tmp_path / name).read_text() + "\n")
    other = load_config(tmp_path / "other" / "langgraph.json")
    GraphRegistry(other).load()
    module = import_module(other, "./my-graphs.py", "Graph")
    assert module.__file__ == str(tmp_path / "other" / "my-graphs.py")


def test_type_hints_find_the_module_of_a_file_with_an_odd_name(project):
    code = """
    from typing import get_type_hints
    class State(TypedDict):
        out: "Inner"
    class Inner(TypedDict):
        n: int
    a = StateGraph(State).add_node("n", lambda state: state).add_edge(START, "n")
    assert get_type_hints(State) == {"out": Inner}
    """
    project({"a": "./my-graphs.py:a"}, {"my-graphs.py": code}).load()


def test_local_dependencies_are_found(project):
    registry = project(
        {"a": "./a.py:a"},
        {"lib/of_lib.py": "T = 'x'\n", "a.py": "from of_lib import T\na = builder(T)\n"},
        dependencies=[".", "./lib"],
    )
    registry.load()


@pytest.mark.parametrize(
    ("source", "code", "words"),
    [
        ("./nope.py:x", "", ["nope.py", "bad.py"]),
        ("./bad.py:nope", "a = builder('a')\n", ['"nope"', "a."]),
        ("./bad.py:nope", "def make(): ...\n", ["no graphs", "make"]),
        ("./bad.py:x", "import no_such_xyz\n", ["no_such_xyz", "Install", "bad.py"]),
        ("./bad.py:x", "def broken(:\n", ["SyntaxError", "bad.py"]),
        ("./bad.py:x", "raise ValueError('boom')\n", ["ValueError: boom", "raise ValueError"]),
        ("./bad.py:x", "raise SystemExit(3)\n", ["SystemExit"]),
        ("no_such_mod:x", "", ["no_such_mod"]),
        ("./agent.ts:x", "", ["JavaScript or TypeScript", "agent.ts"]),
        ("./bad.py:x", "x = 5\n", ["bad.py:x", "an int", "StateGraph"]),
        ("./bad.py:x", "x = StateGraph(Out)\n", ["compiled", "bad.py:x"]),
        ("./bad.py:x", "def x(a, b, c): ...\n", ["x", "(a, b, c)", "RunnableConfig"]),
        ("./bad.py:x", "def x(n: int): ...\n", ["(n)", "ServerRuntime"]),
    ],
)
def test_what_cannot_be_loaded_is_named(refusal, source, code, words):
    message = refusal(source, {"bad.py": code})
    for word in ["shop", *words]:
        assert word in message


def test_tracebacks_show_no_frames_but_the_projects_own(refusal):
    message = refusal(
        "./bad.py:x", {"bad.py": "from deep import f\nf()\n", "deep.py": "def f():\n    1 / 0\n"}
    )
    assert "bad.py" in message
    assert "deep.py" in message
    assert "importlib" not in message
    assert "treadle/graphs" not in message
