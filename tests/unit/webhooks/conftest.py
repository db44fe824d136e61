from __future__ import annotations

import asyncio
import socket
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

sys.path.insert(0, str(Path(__file__).parent))  # for receiver.py

from receiver import Receiver

from treadle.database import Database
from treadle.webhooks import outbox
from treadle.webhooks.outbox import Webhooks
from treadle.webhooks.rules import WebhookRules

PATIENCE_SECONDS = 5.0
OPEN = WebhookRules.read({"url": {"require_https": False, "disable_loopback": False}}, {})

RUN: dict[str, Any] = {
    "run_id": "run",
    "thread_id": "thread",
    "assistant_id": "assistant",
    "created_at": 1,
    "started_at": 2_000_000,
    "metadata": '{"m":1}',
    "kwargs": '{"input":null}',
    "multitask_strategy": "enqueue",
}


class Office:
    """An outbox over a database of its own, and what tests do with it."""

    def __init__(self, new_database: Callable[[], Database]) -> None:
        self.database = new_database()
        self.webhooks: Webhooks

    async def open(self, rules: WebhookRules = OPEN, app: Any = None) -> None:
        """As a process that starts does it."""
        await self.database.open()
        self.webhooks = Webhooks(self.database, rules)
        self.webhooks.app = app
        self.webhooks.start()

    async def close(self) -> None:
        await self.webhooks.close()
        await self.database.close()

    async def put(self, target: str, run_id: str = "run", **told: Any) -> None:
        """Put the end of a run in, and wake the outbox."""
        told = {"status": "success", "values": '{"a":1}', "error": None, **told}
        run = {**RUN, "run_id": run_id}

        async def write(transaction: Any) -> None:
            await self.webhooks.put(transaction, run, target, ended_us=3_000_000, **told)

        await self.database.write(write)
        self.webhooks.wake()

    async def entries(self) -> list[Any]:
        rows = await self.database.read_all("SELECT * FROM webhook_outbox ORDER BY run_id")
        return [dict(row) for row in rows]

    async def emptied(self) -> None:
        """Return once nothing is left to deliver."""

        async def empty() -> bool:
            return not await self.entries()

        await self.until(empty)

    async def deliver(self, target: str, **told: Any) -> None:
        await self.put(target, **told)
        await self.emptied()

    async def until(self, condition: Callable[[], Any]) -> None:
        """Let the loop turn until ``condition()``; it may be async."""
        async with asyncio.timeout(PATIENCE_SECONDS):
            while True:
                found = condition()
                if asyncio.iscoroutine(found):
                    found = await found
                if found:
                    return
                await asyncio.sleep(0)


@pytest.fixture
async def office(new_database: Callable[[], Database]) -> AsyncIterator[Office]:
    """An open outbox; a test may close it, and open it again with other rules."""
    office = Office(new_database)
    await office.open()
    yield office
    await office.close()


@pytest.fixture
async def receive() -> AsyncIterator[Callable[..., Any]]:
    """``await receive(*answers)``: a receiver, closed when the test ends."""
    opened: list[Receiver] = []

    async def receive(*answers: Any, **options: Any) -> Receiver:
        receiver = Receiver(*answers, **options)
        await receiver.open()
        opened.append(receiver)
        return receiver

    yield receive
    for receiver in opened:
        await receiver.close()


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """What has failed is tried again without a pause."""
    monkeypatch.setattr(outbox, "PAUSES_SECONDS", (0.0, 0.0))


@pytest.fixture(autouse=True)
def logged() -> Iterator[list[Any]]:
    """What was logged."""
    with capture_logs() as logged:
        yield logged


class Names:
    """The names that exist, wherever these tests run; ``asked`` keeps which were looked up."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.addresses: dict[str, list[str]] = {
            "example.com": ["93.184.215.14"],
            "api.example.com": ["93.184.215.14"],
            "notexample.com": ["93.184.215.14"],
            "xn--bcher-kva.example": ["93.184.215.14"],
            "six.example.com": ["2606:2800:21f:cb07:6820:80da:af6b:8b2c"],
            "nat64.example.com": ["64:ff9b::5db8:d70e"],
            "inside.example.com": ["10.0.0.5"],
            "metadata.example.com": ["169.254.169.254"],
            "both.example.com": ["93.184.215.14", "169.254.169.254"],
            "myself.example.com": ["127.0.0.1"],
        }


@pytest.fixture(autouse=True)
async def names(monkeypatch: pytest.MonkeyPatch) -> Names:
    """Names mean the same everywhere; numbers and localhost are resolved for real."""
    names = Names()
    loop = asyncio.get_running_loop()
    real = loop.getaddrinfo

    async def getaddrinfo(host: Any, port: Any, **options: Any) -> Any:
        known = names.addresses.get(host)
        if known is None:
            is_name = any(letter.isalpha() for letter in host) and ":" not in host
            if is_name and host != "localhost" and not host.startswith("0x"):
                raise socket.gaierror(socket.EAI_NONAME, "unknown")
            return await real(host, port, **options)
        names.asked.append(host)
        return [entry for text in known for entry in await real(text, port, **options)]

    monkeypatch.setattr(loop, "getaddrinfo", getaddrinfo)
    return names
