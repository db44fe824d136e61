"""Nothing leaves the machine unless the user configured it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from promise_server import Server, asking, events, new_thread

# uvloop connects without Python's knowledge, so this server does without it.
WATCH = """
import json, os, sys

sys.modules["uvloop"] = None


def watch(event, arguments):
    if event in ("socket.connect", "socket.sendto", "socket.sendmsg", "socket.getaddrinfo"):
        place = arguments[0 if event == "socket.getaddrinfo" else 1]
        with open(os.environ["CONNECTIONS"], "a") as file:
            file.write(json.dumps([event, repr(place)]) + "\\n")


sys.addaudithook(watch)
"""


async def test_no_surprise_traffic(own_server: Any, tmp_path: Path) -> None:
    hooks = tmp_path / "hooks"
    hooks.mkdir()
    (hooks / "sitecustomize.py").write_text(WATCH)
    connections = tmp_path / "connections"
    server: Server = own_server(PYTHONPATH=str(hooks), CONNECTIONS=str(connections))
    async with server.client() as http:
        thread = await new_thread(http)
        for graph in ("steps", "boom", "question", "talk"):
            body = asking(graph, stream_mode=["values", "updates", "messages", "events", "debug"])
            await events(http, "POST", f"/threads/{thread}/runs/stream", body)
        for path in ("/ok", "/info", "/docs", "/openapi.json", "/metrics"):
            assert (await http.get(path)).status_code == 200
        assert (await http.post("/assistants/search", json={})).status_code == 200
    server.stop()
    assert tmp_path.joinpath("hooks", "sitecustomize.py").exists()
    lines = connections.read_text().splitlines() if connections.exists() else []
    outside = [
        place
        for event, place in map(json.loads, lines)
        if not place.startswith(("'127.0.0.1'", "('127.0.0.1'", "'/", "b'/", "None"))
    ]
    assert outside == []
