"""Clients that are many, or slow, cost little and hold up nobody."""

from __future__ import annotations

import resource
import socket
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from promise_server import Server, asking, new_thread

MB = 2**20
STREAMS = 1000
BOUND = 50 * MB
SLOW = 300


@pytest.fixture
def many_files() -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, max(soft, 8192)), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def resident_bytes(server: Server) -> int:
    assert server.process is not None
    status = Path(f"/proc/{server.process.pid}/status").read_text()
    [line] = [line for line in status.splitlines() if line.startswith("VmRSS")]
    return int(line.split()[1]) * 1024


def connected(server: Server, sent: str) -> socket.socket:
    place = urlsplit(server.url)
    client = socket.create_connection((place.hostname, place.port))
    client.sendall(sent.encode())
    return client


async def test_a_thousand_idle_streams_are_light(own_server: Any, many_files: None) -> None:
    server: Server = own_server()
    async with server.client() as http:
        thread = await new_thread(http)
        await http.post(f"/threads/{thread}/runs/wait", json=asking())
        request = f"GET /threads/{thread}/stream HTTP/1.1\r\nhost: x\r\n\r\n"
        with ExitStack() as stack:
            clients = [stack.enter_context(connected(server, request)) for _ in range(20)]
            assert all(b" 200 " in client.recv(300) for client in clients)
            before = resident_bytes(server)
            clients = [stack.enter_context(connected(server, request)) for _ in range(STREAMS)]
            assert all(b" 200 " in client.recv(300) for client in clients)
            assert resident_bytes(server) - before < BOUND
            assert (await http.get("/ok")).status_code == 200


async def test_clients_that_never_finish_a_request_hold_up_nobody(
    own_server: Any, many_files: None
) -> None:
    server: Server = own_server()
    halves = (
        "POST /threads HTTP/1.1\r\nhost: x\r\nx-slow: ",
        "POST /threads HTTP/1.1\r\nhost: x\r\ncontent-length: 1000\r\n\r\n{",
        "",
    )
    async with server.client() as http:
        with ExitStack() as stack:
            for number in range(SLOW):
                stack.enter_context(connected(server, halves[number % len(halves)]))
            before = resident_bytes(server)
            thread = await new_thread(http)
            ended = await http.post(f"/threads/{thread}/runs/wait", json=asking())
            assert ended.status_code == 200
            assert resident_bytes(server) - before < BOUND
        assert await _count(http) == 1


async def _count(http: Any) -> int:
    return (await http.post("/threads/count", json={})).json()
