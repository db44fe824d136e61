"""A thread over a WebSocket: order, errors, and clients that do not keep up."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from treadle.auth import ANYONE
from treadle.http.body import ClientGone
from treadle.http.socket import WebSocket
from treadle.streaming import log as log_module
from treadle.streaming.protocol.commands import Context
from treadle.streaming.protocol.envelope import lifecycle
from treadle.streaming.protocol.feed import Feed
from treadle.streaming.protocol.websocket import Session

THREAD = "00000000-0000-0000-0000-000000000001"


class Commands:
    """Answers every command, and says how far its session has come."""

    async def answer(self, context: Any, command: Any, seq_of: Any) -> Any:
        return {"id": command["id"], "seq": await seq_of(command.get("before"))}


class Client:
    """The other end of a socket."""

    def __init__(self) -> None:
        self.to_server: asyncio.Queue[Any] = asyncio.Queue()
        self.got: asyncio.Queue[Any] = asyncio.Queue()
        self.reads = asyncio.Event()
        self.reads.set()
        self.gone = False

    async def send(self, message: Any) -> None:
        await self.reads.wait()
        if self.gone:
            raise OSError
        self.got.put_nowait(message)

    def says(self, **fields: Any) -> None:
        self.to_server.put_nowait({"type": "websocket.receive", "text": json.dumps(fields)})

    async def hears(self) -> Any:
        message = await asyncio.wait_for(self.got.get(), 5)
        return json.loads(message["text"]) if "text" in message else message

    async def subscribe(self, **params: Any) -> list[Any]:
        """The events that came before its answer, and the answer."""
        self.says(id=1, method="subscription.subscribe", params=params)
        heard = [await self.hears()]
        while heard[-1]["type"] == "event":
            heard.append(await self.hears())
        return heard


@pytest.fixture
def log(log: Any) -> Any:
    log.hold()
    return log


@pytest.fixture
async def client(hub: Any, log: Any) -> Any:
    client = Client()
    socket = WebSocket(client.to_server.get, client.send)
    feed = await Feed.open(hub, THREAD)
    session = Session(socket, feed, Commands(), Context(ANYONE, "request", THREAD))
    client.serving = asyncio.create_task(session.serve())
    yield client
    client.reads.set()
    client.to_server.put_nowait({"type": "websocket.disconnect"})
    await asyncio.wait([client.serving], timeout=5)
    assert client.serving.done()


def tell(log: Any, name: str = "custom", data: bytes = b"{}") -> None:
    log.append("r", "event", name, data, keep=True, numbered=True)


async def test_past_comes_before_the_answer_and_the_rest_after_it(client, log):
    for _ in range(3):
        tell(log)
    await log._hub.database.flush()
    *past, answer = await client.subscribe(channels=["custom"])
    assert [event["seq"] for event in past] == [1, 2, 3]
    assert answer["result"]["replayed_events"] == 3
    tell(log)
    assert (await client.hears())["seq"] == 4


async def test_an_event_goes_out_once(client, log):
    await client.subscribe(channels=["custom"])
    await client.subscribe(channels=["custom", "values"])
    for name in ("custom", "values"):
        tell(log, name)
    assert [(await client.hears())["seq"] for _ in range(2)] == [1, 2]


async def test_a_new_subscription_gets_what_the_others_had(client, log):
    await client.subscribe(channels=["values"])
    tell(log, "values")
    tell(log)
    assert (await client.hears())["seq"] == 1
    *past, answer = await client.subscribe(channels=["values", "custom"], since=1)
    assert [event["seq"] for event in past] == [2]
    assert answer["meta"]["applied_through_seq"] == 2


async def test_an_answer_tells_nothing_of_what_its_command_brought_about(client, log):
    await client.subscribe(channels=["custom"])
    tell(log)
    assert (await client.hears())["seq"] == 1
    for before, told in ((None, 1), (0, 0), (9, 1)):
        client.says(id=2, method="run.start", before=before)
        assert await client.hears() == {"id": 2, "seq": told}


@pytest.mark.parametrize(
    "message", [{"text": "no json"}, {"text": "[]"}, {"bytes": b"{}"}, {"text": '{"id":true}'}]
)
async def test_what_is_no_command_is_answered_and_the_socket_lives_on(client, message):
    client.to_server.put_nowait({"type": "websocket.receive", **message})
    answer = await client.hears()
    assert (answer["type"], answer["error"]) == ("error", "invalid_argument")
    client.says(id=2, method="x")
    assert (await client.hears())["id"] == 2


@pytest.mark.parametrize(
    ("method", "params", "error"),
    [
        ("subscribe", {}, "invalid_argument"),
        ("subscribe", {"channels": ["x"]}, "invalid_argument"),
        ("subscribe", {"channels": ["values"], "depth": -1}, "invalid_argument"),
        ("subscribe", {"channels": ["values"], "since": "1"}, "invalid_argument"),
        ("reconnect", {"channels": ["values"]}, "invalid_argument"),
        ("reconnect", {"channels": ["values"], "since": 0}, "no_such_run"),
        ("unsubscribe", {}, "invalid_argument"),
        ("unsubscribe", {"subscription_id": "x"}, "no_such_subscription"),
    ],
)
async def test_odd_subscriptions(client, method, params, error):
    client.says(id=3, method=f"subscription.{method}", params=params)
    answer = await client.hears()
    assert (answer["id"], answer["error"]) == (3, error)


async def test_who_does_not_keep_up_is_cut_off(client, log, monkeypatch):
    monkeypatch.setattr(log_module, "READER_LIMIT_BYTES", 100_000)
    await client.subscribe(channels=["custom"])
    client.reads.clear()
    for _ in range(40):
        tell(log, data=b'"' + b"x" * 10_000 + b'"')
        await log._hub.database.flush()
        await asyncio.sleep(0.006)
    assert log.end - log._base < 40, "what nobody will read is not held"
    client.reads.set()
    while (heard := await client.hears())["type"] == "event":
        pass
    assert heard["error"] == "unknown_error"
    assert (await client.hears())["code"] == 4408


async def test_a_server_that_stops_says_so(client, log):
    await client.subscribe(channels=["custom"])
    log.close()
    assert (await client.hears())["code"] == 1012


async def test_a_client_that_goes_while_it_is_sent_to_ends_the_session(client, log):
    await client.subscribe(channels=["custom"])
    client.gone = True
    tell(log)
    with pytest.raises(ClientGone):
        await asyncio.wait_for(asyncio.shield(client.serving), 5)
    assert log.numbered_watched == 0


async def test_a_thread_made_anew_counts_from_one(client, log, database):
    await client.subscribe(channels=["custom", "lifecycle"])
    told = lifecycle("running", "g")
    log.append("r", told.kind, told.name, told.data, keep=True, numbered=True, label=told.label)
    assert (await client.hears())["seq"] == 1
    await database.write(lambda tx: tx.execute("DELETE FROM event_counters"))
    await database.write(lambda tx: tx.execute("DELETE FROM events"))
    log.append("", "gone", "error", b"{}", last=True)
    assert (await client.hears())["params"]["data"]["event"] == "interrupted"
    tell(log)
    assert (await client.hears())["seq"] == 1
