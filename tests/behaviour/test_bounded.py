"""A slow or dead client never slows a run, and no buffer grows without a bound in bytes."""

from __future__ import annotations

import json
import socket
from typing import Any
from urllib.parse import urlsplit

from promise_server import Server, asking, new_thread, output

MB = 2**20
TOLD = 200 * MB
BOUND = 500 * MB  # the interpreter and its libraries, one reader's limit, and what is under way


def never_reads(server: Server, path: str) -> socket.socket:
    """A client that asks for a stream, and then is silent."""
    place = urlsplit(server.url)
    client = socket.create_connection((place.hostname, place.port))
    client.sendall(f"GET {path} HTTP/1.1\r\nhost: x\r\n\r\n".encode())
    return client


async def test_clients_that_never_read_hold_up_nothing(own_server: Any) -> None:
    server: Server = own_server()
    async with server.client() as http:
        thread = await new_thread(http)
        body = asking(
            "talk",
            input={"events": TOLD // (MB // 2), "size": MB // 2, "seconds": 0.001},
            stream_mode="custom",
            after_seconds=0.2,
        )
        run = (await http.post(f"/threads/{thread}/runs", json=body)).json()["run_id"]
        paths = [f"/threads/{thread}/runs/{run}/stream", f"/threads/{thread}/stream"] * 3
        clients = [never_reads(server, path) for path in paths]
        assert await output(http, thread, run) == {
            "events": TOLD // (MB // 2),
            "size": MB // 2,
            "seconds": 0.001,
            "log": ["said"],
        }
        assert server.memory_bytes() < BOUND
        for client in clients:
            client.close()
        assert (await http.get("/ok")).status_code == 200


async def test_clients_that_leave_leave_nothing_behind(server: Server) -> None:
    """Many come and go while a run talks; the run and the server go on."""
    async with server.client() as http:
        thread = await new_thread(http)
        body = asking("talk", input={"events": 200, "seconds": 0.002}, stream_mode="custom")
        run = (await http.post(f"/threads/{thread}/runs", json=body)).json()["run_id"]
        for _ in range(50):
            never_reads(server, f"/threads/{thread}/runs/{run}/stream").close()
        shown = await output(http, thread, run)
        assert json.dumps(shown["log"]) == '["said"]'
