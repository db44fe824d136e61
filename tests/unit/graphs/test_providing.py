"""A user's own store or checkpointer, in each form in which a config may name it."""

from __future__ import annotations

from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from langgraph.store.base import BaseStore

from treadle.config import load_config
from treadle.errors import StartupError
from treadle.graphs.providing import open_provided

SOURCE = """
import contextlib
from langgraph.store.memory import InMemoryStore

closed = []
store = InMemoryStore()

def function():
    return InMemoryStore()

async def coroutine():
    return InMemoryStore()

@contextlib.contextmanager
def manager():
    yield InMemoryStore()
    closed.append("manager")

@contextlib.asynccontextmanager
async def async_manager():
    yield InMemoryStore()
    closed.append("async_manager")

async def generator():
    yield InMemoryStore()

def fails():
    raise OSError("no database")

number = 5
"""


@pytest.fixture
def config(tmp_path: Path):
    (tmp_path / "own_store.py").write_text(SOURCE)
    (tmp_path / "langgraph.json").write_text('{"graphs": {"a": "./a.py:a"}}')
    return load_config(tmp_path / "langgraph.json")


@pytest.mark.parametrize(
    "name", ["store", "function", "coroutine", "InMemoryStore", "manager", "async_manager"]
)
async def test_forms(config, name):
    async with AsyncExitStack() as stack:
        found = await open_provided(
            stack, config, f"./own_store.py:{name}", "store.path", BaseStore
        )
        await found.aput(("a",), "k", {"v": 1})
        assert await found.aget(("a",), "k") is not None
    if name.endswith("manager"):
        import sys

        modules = [m for n, m in sys.modules.items() if n.endswith("own_store")]
        assert any(name in module.closed for module in modules)


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("number", "gives int. It has to be a BaseStore"),
        ("generator", "decorate it with @contextlib.asynccontextmanager"),
        ("fails", "no database"),
        ("missing", 'there is no "missing"'),
    ],
)
async def test_what_cannot_be_used_is_told(config, name, told):
    async with AsyncExitStack() as stack:
        with pytest.raises(StartupError, match=told):
            await open_provided(stack, config, f"./own_store.py:{name}", "store.path", BaseStore)
