"""A thread's events in protocol v2: cut off anywhere, a client misses nothing and gets all once."""

from __future__ import annotations

import asyncio
import json
import uuid
from collections.abc import Callable
from typing import Any

import httpx
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from promise_server import Server

ALL = ["values", "updates", "messages", "lifecycle", "input", "custom", "checkpoints"]
END = '"event":"completed"'


class Client:
    """Reads a thread's events over many connections, each from where the last was cut off."""

    def __init__(self, http: httpx.AsyncClient, thread: str, channels: list[str]) -> None:
        self._http, self._path = http, f"/threads/{thread}/stream/events"
        self._channels = channels
        self.events: dict[str, str] = {}
        self.since: int | None = None

    @property
    def done(self) -> bool:
        return any(END in data for data in self.events.values())

    async def read(self, most_bytes: int, until: str = END) -> None:
        """Read so much, or up to the end of the run; a frame that is cut in two is lost."""
        body: dict[str, Any] = {"channels": self._channels}
        if self.since is not None:
            body["since"] = self.since
        text = b""
        async with self._http.stream("POST", self._path, json=body) as answer:
            assert answer.status_code == 200, await answer.aread()
            async for chunk in answer.aiter_raw():
                text += chunk
                if len(text) >= most_bytes or until.encode() in text:
                    break
        for frame in text[:most_bytes].split(b"\r\n\r\n")[:-1]:
            self._take(frame.decode())

    def _take(self, frame: str) -> None:
        fields = dict(line.split(": ", 1) for line in frame.split("\r\n") if line[0] != ":")
        if "data" not in fields:
            return
        event = json.loads(fields["data"])
        known = self.events.setdefault(event["event_id"], fields["data"])
        assert known == fields["data"], "an event has two faces"
        self.since = max(self.since or 0, event["seq"])


async def start(http: httpx.AsyncClient, thread: str, graph: str = "speech", **given: Any) -> None:
    params = {"assistant_id": graph, "input": given}
    body = {"id": 1, "method": "run.start", "params": params}
    answer = await http.post(f"/threads/{thread}/commands", json=body)
    assert answer.json()["type"] == "success"


async def whole(http: httpx.AsyncClient, thread: str, channels: list[str]) -> dict[str, str]:
    client = Client(http, thread, channels)
    await client.read(2**40)
    return client.events


@settings(
    max_examples=40,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(
    cuts=st.lists(st.integers(1, 20_000), min_size=1, max_size=12),
    channels=st.lists(st.sampled_from(ALL), min_size=1, unique=True).map(
        lambda found: [*found, "lifecycle"]
    ),
)
def test_a_stream_may_be_cut_at_any_byte(server: Server, cuts: list[int], channels: list[str]):
    asyncio.run(_cut_at(server, cuts, channels))


_threads: dict[str, str] = {}


async def _cut_at(server: Server, cuts: list[int], channels: list[str]) -> None:
    async with server.client() as http:
        if server.url not in _threads:
            thread = _threads[server.url] = str(uuid.uuid4())
            await start(http, thread, events=100)
            await whole(http, thread, ["lifecycle"])
        thread = _threads[server.url]
        expected = await whole(http, thread, channels)
        client = Client(http, thread, channels)
        for most_bytes in cuts:
            if not client.done:
                await client.read(most_bytes)
        if not client.done:
            await client.read(2**40)
        assert client.events == expected
        assert list(client.events) == list(expected), "in the same order"


async def test_while_a_run_goes_on(server: Server) -> None:
    async with server.client() as http:
        thread = str(uuid.uuid4())
        await start(http, thread, events=300, seconds=0.001)
        clients = [Client(http, thread, ALL) for _ in range(4)]

        async def follow(client: Client, most_bytes: int) -> None:
            while not client.done:
                await client.read(most_bytes)

        async with asyncio.timeout(60):
            await asyncio.gather(*(follow(c, 700 + 900 * n) for n, c in enumerate(clients)))
        expected = await whole(http, thread, ALL)
        assert len(expected) > 300
        for client in clients:
            assert client.events == expected


async def test_who_drops_a_stream_is_asked_on_another_and_the_run_goes_on(server: Server) -> None:
    """What the Python SDK's ``test_reconnect`` looks at, without its own race."""
    async with server.client() as http:
        thread = str(uuid.uuid4())
        await start(http, thread, graph="question")
        await Client(http, thread, ["values", "lifecycle"]).read(1)
        watcher = Client(http, thread, ["lifecycle", "input"])
        await watcher.read(2**40, until='"event":"interrupted"')
        told = [json.loads(data) for data in watcher.events.values()]
        [asked] = [event for event in told if event["method"] == "input.requested"]
        answer = {"interrupt_id": asked["params"]["data"]["interrupt_id"], "response": "fine"}
        body = {"id": 2, "method": "input.respond", "params": answer}
        assert (await http.post(f"/threads/{thread}/commands", json=body)).json()["result"] == {}
        await watcher.read(2**40)
        state = (await http.get(f"/threads/{thread}/state")).json()
        assert state["values"]["log"] == ["a", "fine"]
        assert state["next"] == []
        late = await whole(http, thread, ["lifecycle", "input"])
        assert list(watcher.events.items()) == list(late.items())


async def test_across_kills_of_the_server(own_server: Callable[..., Server]) -> None:
    """What was told before a kill is there afterwards, under its number."""
    server = own_server()
    thread = str(uuid.uuid4())
    seen: dict[str, str] = {}
    since: int | None = None
    for kill in range(2):  # a third loss would end the run
        async with server.client() as http:
            if kill == 0:
                await start(http, thread, events=400, seconds=0.002)
            client = Client(http, thread, ALL)
            client.events, client.since = seen, since
            await client.read(20_000)
            since = client.since
        server.kill()
        server.start()
    async with server.client() as http:
        client = Client(http, thread, ALL)
        client.events, client.since = seen, since
        async with asyncio.timeout(60):
            while not client.done:
                await client.read(2**40)
        assert client.events == await whole(http, thread, ALL)
        numbers = [json.loads(data)["seq"] for data in client.events.values()
                   if '"method":"checkpoints"' not in data]  # fmt: skip
        assert numbers == list(range(1, len(numbers) + 1))
