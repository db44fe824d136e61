"""What there is on a server for requests to name, what may be wrong with them, and with answers."""

from __future__ import annotations

import random
import time
from typing import Any

from .serving import Answer, Server

SETTLE_SECONDS = 15

GRAPHS = (
    "echo", "steps", "boom", "approve", "twin", "show", "agent", "router", "functional", "factory",
    "factory_ctx", "typed", "nested", "storer",
)  # fmt: skip
"""Those of tests/conformance/runs that do not sleep."""

DEEP: Any = 1
for _ in range(240):
    DEEP = {"a": [DEEP]} if len(str(DEEP)) % 2 else [DEEP]

HOSTILE: tuple[Any, ...] = (
    None, True, 0, -1, 1.5, 5.0, 1e300, -1e300, 1e12, 2**63 - 1, 2**63, 2**64 - 1, 2**64, -(2**63),
    10**40, "", " ", "\x00", "a\x00b", "*", "__root__", "values", "\ud83d\ude00", "x" * 70_000,
    "http://" + "a" * 70 + ".com", "http://\x00", [], [5], [None], [[]], [{}], {}, {"\x00": "\x00"},
    {"$gt": 1}, {"__proto__": None}, DEEP, ["x"] * 3000, {f"k{i}": i for i in range(1200)},
)  # fmt: skip


class World:
    """What exists on the server, for requests to name."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.ids: dict[str, list[str]] = {}

    def furnish(self) -> None:
        """A thread that has run, one that waits, one that has yet to run; an assistant."""
        request = self.server.request
        created = request("POST", "/assistants", {"graph_id": "echo"})
        self.ids = {"assistant_id": [created.json["assistant_id"]], "thread_id": [], "run_id": []}
        self.ids["checkpoint_id"] = []
        for graph in ("echo", "nested", "echo"):
            thread_id = request("POST", "/threads", {"metadata": {"k": 1}}).json["thread_id"]
            run: dict[str, Any] = {"assistant_id": graph, "input": {"text": "hi"}}
            run["stream_resumable"] = True
            ended = request("POST", f"/threads/{thread_id}/runs/wait", run)
            state = request("GET", f"/threads/{thread_id}/state").json
            self.ids["thread_id"].append(thread_id)
            self.ids["run_id"].append(ended.headers["content-location"].rpartition("/")[2])
            self.ids["checkpoint_id"].append(state["checkpoint_id"])
        late = {**run, "after_seconds": 9e5}
        created = request("POST", f"/threads/{thread_id}/runs", late)
        self.ids["run_id"].append(created.json["run_id"])

    def some(self, name: str, chance: random.Random) -> str | None:
        known = self.ids.get(name.removesuffix("s")) or self.ids.get(name)
        if name == "assistant_id" and chance.random() < 0.7:
            return chance.choice(GRAPHS)
        if name == "graph_id":
            return chance.choice(GRAPHS)
        return chance.choice(known) if known else None


def complaint(answer: Answer | str) -> str | None:
    """What is wrong with an answer."""
    if isinstance(answer, str):
        return answer
    if answer.status >= 500:
        return f"{answer.status} {answer.body[:300]!r}"
    if answer.status in (404, 405) and not answer.body:
        return None  # MCP has neither sessions nor a stream of its own
    if answer.status >= 400:
        try:
            if answer.json.get("jsonrpc") == "2.0":
                return None if isinstance(answer.json["error"]["message"], str) else "no message"
            error = answer.json.get("error")
            if isinstance(error, str):  # what is no JSON-RPC
                return None
            if isinstance(error, dict):  # a card's
                return None if isinstance(error["message"], str) else "no message"
            told = (
                "message" if answer.json.get("type") == "error" else "detail"
            )  # a command's error
            if isinstance(answer.json[told], str):
                return None
        except (ValueError, LookupError, TypeError, AttributeError):
            pass
        return f"{answer.status} without a detail: {answer.body[:300]!r}"
    return None


def settle(server: Server) -> None:
    """What is in flight ends when it is told to: no run and no thread is stuck."""
    server.request("POST", "/runs/cancel", {"status": "all"})
    deadline = time.monotonic() + SETTLE_SECONDS
    while time.monotonic() < deadline:
        queue = server.request("GET", "/metrics?format=json").json["queue"]
        if queue["n_pending"] == queue["n_running"] == 0:
            break
        time.sleep(0.05)
    assert (queue["n_pending"], queue["n_running"]) == (0, 0)
    assert server.request("POST", "/threads/count", {"status": "busy"}).json == 0
    answer = server.request("POST", "/runs/wait", {"assistant_id": "echo", "input": {"text": "a"}})
    assert answer.status == 200
    assert "__error__" not in answer.json
