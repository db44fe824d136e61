"""What got a 2xx survives ``kill -9`` at any instant."""

from __future__ import annotations

import asyncio
import random
from typing import Any

import httpx
from promise_server import Server, asking, new_thread, output

KILLS = 2
CLIENTS = 8


class Client:
    """Does one thing after the other, and remembers what was acknowledged."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.threads: list[str] = []
        self.runs: list[tuple[str, str]] = []
        self.states: list[tuple[str, str]] = []
        self.items: list[str] = []
        self.deleted: list[str] = []

    async def work(self, http: httpx.AsyncClient) -> None:
        """Until the server is gone."""
        try:
            while True:
                await self._visit(http)
        except httpx.TransportError:
            return

    async def _visit(self, http: httpx.AsyncClient) -> None:
        thread = await new_thread(http)
        self.threads.append(thread)
        run = (await http.post(f"/threads/{thread}/runs", json=asking())).json()["run_id"]
        self.runs.append((thread, run))
        key = f"{self.number}-{len(self.items)}"
        item = {"namespace": ["kept"], "key": key, "value": {"n": len(self.items)}}
        assert (await http.put("/store/items", json=item)).is_success
        self.items.append(key)
        edited = await new_thread(http)
        body = {"values": {"log": [key]}, "as_node": "a"}
        await http.patch(f"/threads/{edited}", json={"metadata": {"graph_id": "steps"}})
        if (await http.post(f"/threads/{edited}/state", json=body)).is_success:
            self.states.append((edited, key))
        gone = await new_thread(http)
        assert (await http.delete(f"/threads/{gone}")).is_success
        self.deleted.append(gone)

    async def check(self, http: httpx.AsyncClient) -> None:
        """Everything is there, and what had been accepted comes to its end."""
        for thread in self.threads:
            assert (await http.get(f"/threads/{thread}")).status_code == 200
        for thread, run in self.runs:
            assert await output(http, thread, run) == {"log": ["a", "b", "c"]}
            shown = (await http.get(f"/threads/{thread}/runs/{run}")).json()
            assert shown["status"] == "success"
        for thread, key in self.states:
            state = (await http.get(f"/threads/{thread}/state")).json()
            assert state["values"]["log"] == [key]
        for number, key in enumerate(self.items):
            place = {"namespace": "kept", "key": key}
            assert (await http.get("/store/items", params=place)).json()["value"] == {"n": number}
        for thread in self.deleted:
            assert (await http.get(f"/threads/{thread}")).status_code == 404


async def test_nothing_acknowledged_is_lost(own_server: Any) -> None:
    server: Server = own_server()
    clients = [Client(number) for number in range(CLIENTS)]
    for _ in range(KILLS):
        async with server.client() as http:
            before = [len(client.runs) for client in clients]
            work = asyncio.gather(*(client.work(http) for client in clients))
            while any(len(client.runs) == had for client, had in zip(clients, before, strict=True)):  # noqa: ASYNC110
                await asyncio.sleep(0.01)
            await asyncio.sleep(random.uniform(0, 0.2))  # the instant does not matter
            server.kill()
            await work
        server.start()
    async with server.client() as http:
        await asyncio.gather(*(client.check(http) for client in clients))
