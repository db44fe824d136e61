"""The log of a whole server, from its first line to its last."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from served import SAY, Served

Serve = Callable[..., Served]


@pytest.mark.parametrize("isolated", ["false", "true"])
def test_every_line_is_json_and_says_whose_it_is(serve: Serve, isolated: str) -> None:
    served = serve(BG_JOB_ISOLATED_LOOPS=isolated, DD_API_KEY="x", PYTHONWARNINGS="always").ready()
    with served.client() as http:
        thread = http.post("/threads", json={}).json()["thread_id"]
        made: dict[str, Any] = {}
        for graph in ("chat", "boom"):
            made[graph] = http.post(
                f"/threads/{thread}/runs",
                json={"assistant_id": graph, "input": SAY},
                headers={"x-request-id": f"request-of-{graph}"},
            ).json()
            http.get(f"/threads/{thread}/runs/{made[graph]['run_id']}/join")
        assert http.get("/nowhere%0a/x").status_code == 404
    served.stop()
    lines = served.lines()
    assert all({"event", "level", "timestamp", "logger"} <= line.keys() for line in lines)
    assert any("DD_API_KEY" in line["event"] for line in lines)
    theirs = {line["event"]: line for line in lines if line["logger"] == "users.agent"}
    for event in ("thinking", "replying"):
        line = theirs[event]
        assert line["run_id"] == made["chat"]["run_id"]
        assert line["assistant_id"] == made["chat"]["assistant_id"]
        assert (line["thread_id"], line["request_id"]) == (thread, "request-of-chat")
    [failed] = [line for line in lines if line["event"] == "run failed"]
    assert (failed["run_id"], failed["request_id"]) == (made["boom"]["run_id"], "request-of-boom")
    assert "kaboom" in failed["exception"]
    [nowhere] = [line for line in lines if line.get("status") == 404]
    assert nowhere["path"] == "/nowhere%0a/x"


@pytest.mark.parametrize("arguments", [["--config", "none.json"], ["--bogus"], ["--port", "x"]])
def test_a_start_that_fails_is_one_line_of_json(tmp_path: Path, arguments: list[str]) -> None:
    command = [sys.executable, "-m", "treadle", "serve", *arguments]
    ended = subprocess.run(
        command, cwd=tmp_path, env={"LOG_JSON": "true"}, capture_output=True, text=True, timeout=60
    )
    assert ended.returncode != 0
    [line] = ended.stderr.splitlines()
    assert json.loads(line)["level"] == "error"
