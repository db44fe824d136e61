"""A project with ``encryption.path``: what it says at the start, and through all rooms."""

from __future__ import annotations

import json
import sqlite3
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import pytest
from structlog.testing import capture_logs

from treadle.config import load_config
from treadle.errors import StartupError
from treadle.server import Server
from treadle.settings import Settings

SECRET = "Schnurrbert"

AGENT = """
import operator
from typing import Annotated, TypedDict

from langgraph.graph import START, StateGraph
from langgraph.types import interrupt


class State(TypedDict, total=False):
    log: Annotated[list[str], operator.add]
    last: str


def ask(state: State) -> State:
    return {"log": [interrupt("well?")]}


graph = StateGraph(State).add_node(ask).add_edge(START, "ask").compile()
"""

SCRAMBLE = """
import json
import warnings
from pathlib import Path

from langgraph_sdk import Auth, Encryption

auth = Auth()
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    encryption = Encryption()
tenants = Path(__file__).with_name("tenants")


@auth.authenticate
async def authenticate(headers: dict[bytes, bytes]) -> str:
    return headers[b"x-tenant"].decode()


@encryption.context
async def context(user, ctx):
    return {**ctx.metadata, "tenant": user.identity}


def scramble(ctx, blob):
    key = len(ctx.metadata["tenant"])
    return bytes(byte ^ key for byte in blob)


@encryption.encrypt.blob
async def encrypt(ctx, blob):
    with tenants.open("a") as file:
        file.write(ctx.metadata["tenant"] + " ")
    return scramble(ctx, blob)


@encryption.decrypt.blob
async def decrypt(ctx, blob):
    return scramble(ctx, blob)
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A project. Its modules are forgotten afterwards: the next test's have the same names."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    (tmp_path / "agent.py").write_text(AGENT)
    (tmp_path / "scramble.py").write_text(SCRAMBLE)
    before = set(sys.modules)
    with capture_logs():
        yield tmp_path
    for name in set(sys.modules) - before:
        if str(tmp_path) in str(getattr(sys.modules[name], "__file__", "")):
            del sys.modules[name]


def server_of(folder: Path, **keys: Any) -> Server:
    path = folder / "langgraph.json"
    path.write_text(json.dumps({"graphs": {"agent": "./agent.py:graph"}, **keys}))
    return Server(load_config(path), Settings(log_level="ERROR"))


HANDLERS = {"encryption": {"path": "./scramble.py:encryption"}}
AUTH = {"auth": {"path": "./scramble.py:auth"}}


async def wait_for(http: httpx.AsyncClient, thread: str, **asked: Any) -> Any:
    body = {"assistant_id": "agent", "input": None, **asked}
    return (await http.post(f"/threads/{thread}/runs/wait", json=body)).json()


async def test_runs_and_updates_are_encrypted_on_behalf_of_their_user(folder: Path):
    async with server_of(folder, **HANDLERS, **AUTH).open() as app:
        transport = httpx.ASGITransport(app)
        headers = {"x-tenant": "ada"}
        async with httpx.AsyncClient(
            transport=transport, base_url="http://test", headers=headers
        ) as http:
            thread = (await http.post("/threads", json={})).json()["thread_id"]
            await wait_for(http, thread, input={"log": [SECRET], "last": SECRET})
            update = {"values": {"log": [SECRET], "last": SECRET}}
            answer = await http.post(
                f"/threads/{thread}/state", json=update, headers={"x-tenant": "barbara"}
            )
            assert answer.status_code == 200, answer.text
            state = (await http.get(f"/threads/{thread}/state")).json()
            assert state["values"] == {"log": [SECRET, SECRET], "last": SECRET}
            history = (await http.get(f"/threads/{thread}/history")).json()
            assert history[0]["values"] == state["values"]
            copied = (await http.post(f"/threads/{thread}/copy")).json()["thread_id"]
            for one in (thread, copied):
                output = await wait_for(http, one, command={"resume": "fine"})
                assert output["log"] == [SECRET, SECRET, "fine"]
            runs = (await http.get(f"/threads/{thread}/runs")).json()
            gone = await http.delete(f"/threads/{thread}/runs/{runs[0]['run_id']}")
            assert gone.status_code == 204
            pruned = {"thread_ids": [copied], "strategy": "keep_latest"}
            assert (await http.post("/threads/prune", json=pruned)).status_code == 200
            state = (await http.get(f"/threads/{copied}/state")).json()
            assert state["values"]["log"] == [SECRET, SECRET, "fine"]
    assert set((folder / "tenants").read_text().split()) == {"ada", "barbara"}
    with closing(sqlite3.connect(folder / ".treadle" / "treadle.db")) as connection:
        for table, column in (
            ("checkpoints", "checkpoint"),
            ("checkpoint_values", "value"),
            ("checkpoint_writes", "value"),
        ):
            rows = connection.execute(f"SELECT {column} FROM {table}").fetchall()
            assert rows
            assert not any(SECRET.encode() in value for (value,) in rows)


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"encryption": {"path": "./scramble.py:auth"}}, "has to be a langgraph_sdk.Encryption"),
        ({"encryption": {"path": "./scramble.py:none"}}, "encryption.path: there is no"),
        ({"encryption": {}}, 'has no "path"'),
        ({"encryption": {"path": 1}}, "encryption.path"),
        ({**HANDLERS, "checkpointer": {"path": "./agent.py:x"}}, "exclude each other"),
    ],
)
async def test_what_cannot_be_honoured_stops_the_start(folder: Path, keys: Any, said: str):
    with pytest.raises(StartupError, match=said):
        async with server_of(folder, **keys).open():
            pass
