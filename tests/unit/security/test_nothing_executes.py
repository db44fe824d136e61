"""What comes in, from clients or from the database, is data: it never names code to run."""

from __future__ import annotations

import ast
import importlib
import json
import pkgutil
import sys
from pathlib import Path
from typing import Any

import pytest
from auth_house import House, owner

import treadle
from treadle.checkpoints.serde import state_serializer

SOURCE = Path(treadle.__file__).parent
UNSAFE = {"pickle", "_pickle", "cPickle", "dill", "cloudpickle", "marshal", "shelve", "joblib"}
ALICE = owner("alice")


def crafted(mark: Path) -> list[Any]:
    """JSON that langchain's and langgraph's serializers have words for."""
    touch = f"touch {mark}"
    return [
        {"lc": 2, "type": "constructor", "id": ["os", "system"], "args": [touch]},
        {"lc": 2, "type": "constructor", "id": ["subprocess", "run"], "method": [None],
         "kwargs": {"args": touch, "shell": True}},
        {"lc": 2, "type": "constructor", "id": ["builtins", "exec"],
         "args": [f"open({str(mark)!r}, 'w')"]},
        {"lc": 2, "type": "constructor", "id": ["antigravity", "fly"], "args": []},
        {"lc": 1, "type": "constructor", "id": ["os", "system"], "kwargs": {"command": touch}},
        {"lc": 1, "type": "constructor", "id": ["langchain_community", "x", "Y"], "kwargs": {}},
        {"lc": 1, "type": "secret", "id": ["TREADLE_TEST_SECRET"]},
        {"__type__": "os.system", "py/reduce": [{"py/function": "os.system"}, [touch]]},
    ]  # fmt: skip


@pytest.fixture
def mark(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TREADLE_TEST_SECRET", "told-by-nobody")
    return tmp_path / "executed"


def test_a_value_written_as_json_makes_nothing(mark: Path):
    serde = state_serializer()
    for value in crafted(mark):
        try:
            back = serde.loads_typed(("json", json.dumps(value).encode()))
        except (ValueError, NotImplementedError):
            continue
        assert "told-by-nobody" not in str(back)
        assert back is None or isinstance(back, dict)
    assert not mark.exists()
    assert "antigravity" not in sys.modules


async def test_what_clients_send_stays_data(house: House, mark: Path):
    for value in crafted(mark):
        metadata = {"x": value}
        thread = await house.gives(ALICE, "POST", "/threads", {"metadata": metadata})
        assert thread["metadata"]["x"] == value
        path = f"/threads/{thread['thread_id']}"
        run = {"assistant_id": "echo", "input": {"note": value, "messages": []},
               "metadata": metadata, "config": {"configurable": {"given": value}},
               }  # fmt: skip
        ended = await house.gives(ALICE, "POST", f"{path}/runs/wait", run)
        assert ended["note"] == value
        await house.gives(ALICE, "POST", f"{path}/state", {"values": {"note": value}})
        state = await house.gives(ALICE, "GET", f"{path}/state")
        assert state["values"]["note"] == value
        asked = {**run, "assistant_id": "approval", "input": {"messages": ["x"]}}
        await house.gives(ALICE, "POST", f"{path}/runs/wait", asked)
        answer = {"assistant_id": "approval", "command": {"resume": value}}
        await house.gives(ALICE, "POST", f"{path}/runs/wait", answer)
        item = {"namespace": ["n"], "key": "k", "value": {"x": value}}
        await house.gives(ALICE, "PUT", "/store/items", item)
        kept = await house.gives(ALICE, "GET", "/store/items?namespace=n&key=k")
        assert kept["value"]["x"] == value
    assert not mark.exists()  # noqa: ASYNC240
    assert "antigravity" not in sys.modules


def modules() -> list[str]:
    return [one.name for one in pkgutil.walk_packages([str(SOURCE)], "treadle.")]


def test_no_module_of_ours_imports_pickle():
    for path in SOURCE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names: list[str] = []
            if isinstance(node, ast.Import):
                names = [one.name for one in node.names]
            elif isinstance(node, ast.ImportFrom):
                names = [node.module or "", *(one.name for one in node.names)]
            elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                assert node.func.id not in ("eval", "exec"), path
            assert not {name.partition(".")[0] for name in names} & UNSAFE, path
    for name in modules():
        if name.endswith("__main__"):
            continue
        loaded = vars(importlib.import_module(name)).values()
        held = {one.__name__ for one in loaded if isinstance(one, type(sys))}
        assert not held & UNSAFE, name


def test_keys_are_compared_in_constant_time():
    """No ``==`` has a digest on either side, and the one that compares is hmac's."""
    tree = ast.parse((SOURCE / "auth" / "keys.py").read_text())
    compared = [ast.unparse(node) for node in ast.walk(tree) if isinstance(node, ast.Compare)
                and any(isinstance(one, ast.Eq | ast.NotEq) for one in node.ops)]  # fmt: skip
    assert not [text for text in compared if "digest" in text or "secret" in text]
    calls = [ast.unparse(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)]
    assert "hmac.compare_digest" in calls


def test_pickles_in_the_database_are_not_read(mark: Path):
    code = f"cos\nsystem\n(S'touch {mark}'\ntR.".encode()
    for kind in ("pickle", "msgpack", "json"):
        try:
            state_serializer().loads_typed((kind, code))
        except Exception:
            continue
    assert not mark.exists()
