import json
import sys
import textwrap

import pytest

from treadle.config import load_config
from treadle.errors import StartupError
from treadle.graphs import GraphRegistry

PRELUDE = """
from contextlib import asynccontextmanager, contextmanager
from typing import Any
from typing_extensions import TypedDict
from langchain_core.runnables import RunnableConfig
from langgraph.func import entrypoint
from langgraph.graph import START, StateGraph
from langgraph_sdk.runtime import ServerRuntime

class Out(TypedDict, total=False):
    out: Any

def builder(text):
    async def say(state: Out) -> dict:
        return {"out": text}
    return StateGraph(Out).add_node(say).add_edge(START, "say")
"""


@pytest.fixture
def project(tmp_path, monkeypatch):
    """``project({"id": "./g.py:x"}, {"g.py": code})``: its registry, not loaded yet.

    Every Python file starts with PRELUDE. Modules and paths are put back at the end.
    """
    monkeypatch.setattr(sys, "path", list(sys.path))
    before = set(sys.modules)

    def project(graphs, files, **keys):
        for name, code in files.items():
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            head = PRELUDE if name.endswith(".py") else ""
            (tmp_path / name).write_text(head + textwrap.dedent(code))
        (tmp_path / "langgraph.json").write_text(json.dumps({"graphs": graphs} | keys))
        config = load_config(tmp_path / "langgraph.json")
        config.enter()
        return GraphRegistry(config)

    yield project
    for name in set(sys.modules) - before:
        if str(tmp_path) in str(getattr(sys.modules[name], "__file__", "")):
            del sys.modules[name]


@pytest.fixture
def refusal(project):
    def refusal(source, files=None, **keys) -> str:
        registry = project({"shop": source}, files or {}, **keys)
        with pytest.raises(StartupError) as raised:
            registry.load()
        return str(raised.value)

    return refusal
