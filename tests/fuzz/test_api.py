"""Whatever is sent, the server answers at once, never with a 5xx, and goes on working.

schemathesis makes requests of the server's own OpenAPI document, half of them valid and half of
them not. Most get the ids of things that exist, so that they come further than a 404.
``FUZZ_SEED`` and ``FUZZ_CASES`` (per operation) try other ones.
"""

from __future__ import annotations

import os
import random
import shlex
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from hypothesis.errors import Unsatisfiable
from schemathesis import GenerationMode

from .serving import Answer, Server
from .world import GRAPHS, World, complaint, settle

SEED = int(os.environ.get("FUZZ_SEED", "1"))
CASES = int(os.environ.get("FUZZ_CASES", "44"))
LEAST_CASES = 2000 if CASES >= 44 else 0


def enlivened(case: Any, world: World, chance: random.Random) -> None:
    """Let a case name what exists, mostly."""
    for name in case.path_parameters or {}:
        if chance.random() < 0.85 and (known := world.some(name, chance)):
            case.path_parameters[name] = known
    if isinstance(case.body, dict):
        for name in ("assistant_id", "graph_id", "thread_id", "checkpoint_id", "run_ids", "ids"):
            if (name in case.body or name == "assistant_id") and chance.random() < 0.8:
                known = world.some(name, chance)
                case.body[name] = [known] if name.endswith("ids") else known
        if "metadata" in case.body and chance.random() < 0.2:
            case.body["metadata"] = {"graph_id": chance.choice(GRAPHS)}


def send(server: Server, case: Any) -> tuple[str, Answer | str | None]:
    """The case as a curl command, and its answer; None if HTTP itself cannot carry it."""
    try:
        ready = requests.Request(**case.as_transport_kwargs(base_url="http://localhost")).prepare()
    except (ValueError, UnicodeError):
        return "", None
    url = urlsplit(ready.url or "")
    path = url.path + (f"?{url.query}" if url.query else "")
    body = ready.body.encode() if isinstance(ready.body, str) else ready.body
    shown = f"curl -X {ready.method} {shlex.quote(f'http://127.0.0.1:PORT{path}')}"
    if body:
        shown += f" -d {shlex.quote(bytes(body).decode('utf-8', 'backslashreplace'))[:3000]}"
    try:
        return shown, server.request(ready.method or "GET", path, body=body)
    except (ValueError, UnicodeError):
        return shown, None
    except OSError as error:
        return shown, repr(error)


def operations(server: Server) -> Iterator[Any]:
    schema = schemathesis.openapi.from_dict(server.request("GET", "/openapi.json").json)
    for found in schema.get_all_operations():
        yield found.ok()


@pytest.mark.timeout(300)
@pytest.mark.filterwarnings("default")
def test_no_request_hurts(world: World) -> None:
    sent = 0
    complaints: list[str] = []

    def run(operation: Any, mode: GenerationMode) -> None:
        @seed(SEED)
        @settings(
            max_examples=CASES // 2,
            database=None,
            deadline=None,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        @given(case=operation.as_strategy(generation_mode=mode), dice=st.integers(0, 2**32))
        def one(case: Any, dice: int) -> None:
            nonlocal sent
            chance = random.Random(dice + sent + SEED)
            enlivened(case, world, chance)
            shown, answer = send(world.server, case)
            if answer is None:
                return
            sent += 1
            if wrong := complaint(answer):
                complaints.append(f"{wrong}\n    {shown}")

        one()

    for operation in operations(world.server):
        world.furnish()
        for mode in (GenerationMode.POSITIVE, GenerationMode.NEGATIVE):
            try:
                run(operation, mode)
            except Unsatisfiable:  # there is no wrong way to send it
                continue

    assert not complaints, f"{len(complaints)} of {sent}:\n" + "\n".join(complaints[:20])
    assert sent >= LEAST_CASES
    settle(world.server)
    assert "unhandled error" not in world.server.log
    assert "could not be" not in world.server.log  # a run claimed, its end written, events kept
