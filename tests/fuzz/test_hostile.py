"""Every field of every body and every parameter, with every hostile value: never a 5xx."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import pytest

from .world import HOSTILE, World, complaint, settle

TEXTS = (
    "", " ", "-1", "0", "1.5", "1e3", "9" * 18, "9" * 19, "9" * 5000, "+1", "0x1", "abc", "null",
    "true", "\x00", "\x80", "%", "%zz", "\u0663", "\U0001f600", "a,b,,", "..", "/", "a/b", "*",
    "a\r\nb: c", "x" * 5000, "00000000-0000-0000-0000-000000000000", "{}", "[]", "$", "'", '"',
)  # fmt: skip

CHECKPOINT = ("checkpoint_id", "checkpoint_ns", "checkpoint_map", "thread_id")
INSIDE: dict[str, tuple[str, ...]] = {
    "checkpoint": CHECKPOINT,
    "before": CHECKPOINT,
    "command": ("resume", "update", "goto"),
    "config": ("tags", "recursion_limit", "configurable", "metadata", "callbacks"),
    "configurable": (*CHECKPOINT, "user_id", "run_id", "__pregel_task_id"),
    "goto": ("node", "input"),
    "input": ("text",),
    "metadata": ("graph_id", "thread_id", "k"),
    "filter": ("k", "$gt"),
    "values": ("text", "__root__"),
    "extract": ("a",),
    "ttl": ("ttl", "strategy"),
}
"""Names inside of objects that the document leaves open."""

STATE = {"as_node": "say", "values": {"text": "a"}}
RUN = {"assistant_id": "echo", "input": {"text": "hi"}}
BODIES: dict[tuple[str, str], Any] = {
    ("post", "/threads"): {
        "metadata": {"graph_id": "echo"},
        "supersteps": [{"updates": [STATE]}],
    },
    ("post", "/threads/{thread_id}/state"): {"values": {"text": "a"}},
    ("post", "/threads/{thread_id}/state/checkpoint"): {"checkpoint": {}},
    ("post", "/threads/prune"): {"thread_ids": []},
    ("post", "/threads/{thread_id}/runs"): RUN,
    ("post", "/runs/wait"): RUN,
    ("post", "/assistants"): {"graph_id": "factory"},
    ("post", "/assistants/{assistant_id}/latest"): {"version": 1},
    ("put", "/store/items"): {"namespace": ["a"], "key": "k", "value": {}},
    ("delete", "/store/items"): {"namespace": ["a"], "key": "k"},
}
SAME_AS_ANOTHER = {
    "/threads/{thread_id}/runs/wait",
    "/threads/{thread_id}/runs/stream",
    "/runs",
    "/runs/stream",
    "/runs/batch",
}


def paths_into(names: Any, depth: int = 0) -> Iterator[tuple[str, ...]]:
    """The names of fields, and of those inside of them."""
    for name in names:
        yield (name,)
        if depth < 2:
            for inner in paths_into(INSIDE.get(name, ()), depth + 1):
                yield (name, *inner)


def with_value(body: Any, path: tuple[str, ...], value: Any, checkpoint_id: str) -> Any:
    """``body`` with ``value`` at ``path``; beside a part of a checkpoint's address is its id."""
    name, *rest = path
    holder: dict[str, Any] = dict(body) if isinstance(body, dict) else {}
    if name in ("checkpoint_ns", "checkpoint_map"):
        holder["checkpoint_id"] = checkpoint_id
    inner = with_value(holder.get(name), tuple(rest), value, checkpoint_id) if rest else value
    return {**holder, name: inner}


def fields_of(schema: dict[str, Any], document: dict[str, Any]) -> list[str]:
    name = schema.get("$ref", "").rpartition("/")[2]
    return list(document["components"]["schemas"].get(name, {}).get("properties", {}))


def filled(path: str, world: World) -> str:
    for name in ("thread_id", "run_id", "assistant_id", "checkpoint_id"):
        path = path.replace(f"{{{name}}}", world.ids[name][0])
    return path.replace("{namespace}", "a")


@pytest.mark.timeout(300)
def test_no_value_hurts(world: World) -> None:
    server = world.server
    document = server.request("GET", "/openapi.json").json
    complaints: list[str] = []
    sent = 0

    def send(method: str, path: str, body: bytes | None = None) -> None:
        nonlocal sent
        sent += 1
        try:
            wrong = complaint(server.request(method.upper(), path, body=body))
        except OSError as error:
            wrong = repr(error)
        if wrong:
            complaints.append(f"{method} {path[:200]} {(body or b'')[:200]!r}\n    {wrong}")

    for template, methods in document["paths"].items():
        for method, operation in methods.items():
            world.furnish()
            names = [p["name"] for p in operation.get("parameters", ()) if p["in"] == "path"]
            for name in names:
                for text in TEXTS:
                    path = template.replace(f"{{{name}}}", quote(text, safe=""))
                    send(method, filled(path, world), b"{}" if "requestBody" in operation else None)
            names = [p["name"] for p in operation.get("parameters", ()) if p["in"] == "query"]
            for name in names:
                others = "".join(f"&{other}=a" for other in names if other != name)
                for text in TEXTS:
                    query = f"?{name}={quote(text, safe='')}"
                    for more in ("", others) if template == "/store/items" else ("",):
                        body = b'{"status": "pending"}' if "requestBody" in operation else None
                        send(method, filled(template, world) + query + more, body)
            if "requestBody" not in operation or template in SAME_AS_ANOTHER:
                continue
            schema = operation["requestBody"]["content"]["application/json"]["schema"]
            base = BODIES.get((method, template), {})
            for at in paths_into(fields_of(schema, document)):
                world.furnish()
                path, checkpoint_id = filled(template, world), world.ids["checkpoint_id"][0]
                for value in HOSTILE:
                    body = with_value(base, at, value, checkpoint_id)
                    send(method, path, json.dumps(body).encode())
                send("get", f"/threads/{world.ids['thread_id'][0]}/state")
                send("get", f"/threads/{world.ids['thread_id'][0]}/history?limit=100")

    assert not complaints, f"{len(complaints)} of {sent}:\n" + "\n".join(complaints[:30])
    settle(server)
    assert "unhandled error" not in server.log
