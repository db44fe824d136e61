"""The outbox: what is delivered where, how often, and what a stop leaves for the next start."""

from __future__ import annotations

import asyncio
import hmac
import re
import time
from pathlib import Path
from typing import Any

import pytest

from treadle import __version__
from treadle.serialization import loads
from treadle.webhooks import outbox
from treadle.webhooks.outbox import CONCURRENT, signature
from treadle.webhooks.rules import WebhookRules

OPEN_URL = {"require_https": False, "disable_loopback": False}
ATTEMPTS = 3


class App:
    """This server, as a webhook that points at itself sees it."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, bytes, dict[str, str], Any]] = []

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        message = await receive()
        headers = {name.decode(): value.decode() for name, value in scope["headers"]}
        self.calls.append((scope["path"], scope["query_string"], headers, loads(message["body"])))
        await send({"type": "http.response.start", "status": 204, "headers": []})
        await send({"type": "http.response.body", "body": b""})


# -- what is sent ------------------------------------------------------------------------------


async def test_a_run_is_told_of_once_with_its_values(office, receive):
    receiver = await receive()
    await office.deliver(f"{receiver.url}/hook?x=%201")
    [call] = receiver.calls
    assert call.line == "POST /hook?x=%201 HTTP/1.1"
    body = call.json
    sent_at = body.pop("webhook_sent_at")
    assert sent_at > body["run_ended_at"] > body["run_started_at"]
    assert body == {
        "run_id": "run",
        "thread_id": "thread",
        "assistant_id": "assistant",
        "created_at": "1970-01-01T00:00:00.000001+00:00",
        "updated_at": "1970-01-01T00:00:03.000000+00:00",
        "status": "success",
        "metadata": {"m": 1},
        "kwargs": {"input": None},
        "multitask_strategy": "enqueue",
        "langsmith_session_name": None,
        "run_started_at": "1970-01-01T00:00:02.000000+00:00",
        "run_ended_at": "1970-01-01T00:00:03.000000+00:00",
        "values": {"a": 1},
    }
    assert call.headers == {
        "host": f"127.0.0.1:{receiver.port}",
        "content-type": "application/json",
        "content-length": str(len(call.body)),
        "user-agent": f"treadle/{__version__}",
        "x-treadle-delivery": "run",
    }


async def test_an_error_and_values_that_are_no_text(office, receive):
    receiver = await receive()
    error = {"error": "ValueError", "message": "no"}
    await office.deliver(receiver.url, status="error", values={"a": 2}, error=error)
    body = receiver.calls[0].json
    assert (body["status"], body["values"], body["error"]) == ("error", {"a": 2}, error)


async def test_a_rollback_has_no_values(office, receive):
    receiver = await receive()
    await office.deliver(receiver.url, status="rollback", values=None)
    assert receiver.calls[0].json["values"] is None


async def test_headers_of_the_config_are_sent(office, receive):
    receiver = await receive()
    headers = {"X-Token": "t0", "Content-Type": "application/x", "X-Treadle-Delivery": "forged"}
    await office.close()
    await office.open(WebhookRules.read({"url": OPEN_URL, "headers": headers}, {}))
    await office.deliver(receiver.url)
    found = receiver.calls[0].headers
    assert found["x-token"] == "t0"
    assert found["content-type"] == "application/x"
    assert found["x-treadle-delivery"] == "run"


async def test_a_user_in_the_target_becomes_basic_auth(office, receive):
    receiver = await receive()
    await office.deliver(f"http://me:s%3A1@127.0.0.1:{receiver.port}/")
    assert receiver.calls[0].headers["authorization"] == "Basic bWU6czox"
    assert receiver.calls[0].headers["host"] == f"127.0.0.1:{receiver.port}"


# -- the signature -----------------------------------------------------------------------------


@pytest.fixture
def is_genuine() -> Any:
    """How docs/webhooks.md tells receivers to verify a signature."""
    page = (Path(__file__).parents[3] / "docs" / "webhooks.md").read_text()
    [snippet] = re.findall(r"```python\n(import hashlib.*?)```", page, re.DOTALL)
    names: dict[str, Any] = {}
    exec(snippet, names)
    return names["is_genuine"]


async def test_a_delivery_is_signed_if_there_is_a_secret(office, receive, at_once, is_genuine):
    receiver = await receive(500)
    await office.close()
    environ = {"TREADLE_WEBHOOK_SECRET": "s0"}
    await office.open(WebhookRules.read({"url": OPEN_URL}, environ))
    await office.deliver(receiver.url)
    assert len(receiver.calls) == 2
    for call in receiver.calls:
        header = call.headers["x-treadle-signature"]
        assert is_genuine(b"s0", header, call.body)
        assert not is_genuine(b"s1", header, call.body)
        assert not is_genuine(b"s0", header, call.body + b" ")
        assert not is_genuine(b"s0", header.replace("t=1", "t=0"), call.body)


def test_a_signature_that_is_old_is_not_genuine(is_genuine):
    assert not is_genuine(b"s0", signature(b"s0", 1700000000, b"{}"), b"{}")


def test_a_signature_is_this_and_no_other():
    assert signature(b"secret", 1700000000, b'{"a":1}') == (
        "t=1700000000,v1=" + hmac.new(b"secret", b'1700000000.{"a":1}', "sha256").hexdigest()
    )


# -- attempts ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("answers", "calls"),
    [
        ([200], 1),
        ([204], 1),
        ([299], 1),
        ([500, 200], 2),
        ([404, 302, 201], 3),
        ([500] * 9, ATTEMPTS),
        ([b"no http at all\r\n\r\n"] * 9, ATTEMPTS),
        ([b""] * 9, ATTEMPTS),
    ],
)
async def test_what_is_no_success_is_tried_again(office, receive, at_once, answers, calls):
    async def closing(writer: asyncio.StreamWriter) -> None:
        writer.close()

    receiver = await receive(*(closing if answer == b"" else answer for answer in answers))
    await office.deliver(receiver.url)
    assert len(receiver.calls) == calls
    assert {call.headers["x-treadle-delivery"] for call in receiver.calls} == {"run"}


async def test_what_is_given_up_is_logged_without_the_target(office, receive, at_once, logged):
    receiver = await receive(500, 500, 503)
    await office.deliver(f"{receiver.url}/?token=t0")
    assert [(entry["log_level"], entry["event"]) for entry in logged] == [
        ("warning", "webhook failed"),
        ("warning", "webhook failed"),
        ("error", "webhook given up"),
    ]
    assert logged[-1]["problem"] == "status 503"
    assert "t0" not in str(logged)


async def test_attempts_are_about_a_second_apart_and_each_pause_is_longer(office, receive):
    first, second = outbox.PAUSES_SECONDS
    assert (first + second) / 2 == pytest.approx(1, rel=0.2)
    assert first < second
    receiver = await receive(500)
    before = time.time()
    await office.put(receiver.url)

    async def put_off() -> Any:
        entries = await office.entries()
        return entries if entries[0]["attempts"] else None

    await office.until(put_off)
    [entry] = await office.entries()
    assert before + first <= entry["due_at"] / 1e6 <= time.time() + first
    await office.emptied()
    assert len(receiver.calls) == 2
    assert time.time() - before >= first


async def test_a_target_that_does_not_answer_fails_in_time(office, receive, at_once, monkeypatch):
    monkeypatch.setattr(outbox, "ATTEMPT_SECONDS", 0.1)

    async def silence(writer: asyncio.StreamWriter) -> None:
        pass

    receiver = await receive(silence, silence, silence)
    await office.deliver(receiver.url)
    assert receiver.connections == ATTEMPTS


async def test_a_long_answer_is_not_read(office, receive):
    sent: list[int] = []

    async def endless(writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")
        while True:
            writer.write(b"10000\r\n" + b"x" * 65536 + b"\r\n")
            sent.append(65536)
            await writer.drain()

    receiver = await receive(endless)
    await office.deliver(receiver.url)
    assert len(receiver.calls) == 1
    assert sum(sent) < 50 * 2**20


async def test_an_answer_that_breaks_off_is_an_answer(office, receive):
    async def break_off(writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nhalf")
        writer.close()

    receiver = await receive(break_off)
    await office.deliver(receiver.url)
    assert len(receiver.calls) == 1


async def test_one_bad_target_does_not_hold_up_another(office, receive):
    release = asyncio.Event()

    async def wait(writer: asyncio.StreamWriter) -> None:
        await release.wait()
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")

    slow, quick = await receive(wait), await receive()
    await office.put(slow.url, "slow")
    await office.until(lambda: slow.calls)
    await office.put(quick.url, "quick")
    await office.until(lambda: quick.calls)
    release.set()
    await office.emptied()


async def test_no_more_than_so_many_at_once_and_each_once(office, receive):
    receiver = await receive()
    count = 5 * CONCURRENT
    for number in range(count):
        await office.put(receiver.url, f"run {number}")
    await office.emptied()
    assert sorted(call.json["run_id"] for call in receiver.calls) == sorted(
        f"run {number}" for number in range(count)
    )
    assert receiver.most_at_once <= CONCURRENT + 1  # the last may still be closing


# -- stops and starts --------------------------------------------------------------------------


async def test_what_is_put_in_is_delivered_by_the_next_process(office, receive):
    receiver = await receive()
    await office.webhooks.close()
    await office.put(receiver.url)
    await office.database.close()
    await office.open()
    await office.emptied()
    assert len(receiver.calls) == 1


async def test_a_run_that_does_not_end_is_not_told_of(office, receive):
    """An entry is put in by the transaction of the run's end, or not at all."""
    receiver = await receive()

    async def write(transaction: Any) -> None:
        await transaction.execute(
            "INSERT INTO webhook_outbox VALUES ('r', :t, '{}', 0, 0, NULL)", told
        )
        raise RuntimeError

    told = {"t": receiver.url}
    with pytest.raises(RuntimeError):
        await office.database.write(write)
    office.webhooks.wake()
    await office.deliver(receiver.url)
    assert len(receiver.calls) == 1


async def test_a_restart_leaves_only_the_remaining_attempts(office, receive, monkeypatch):
    monkeypatch.setattr(outbox, "PAUSES_SECONDS", (60.0, 0.0))
    receiver = await receive(*[500] * 9)
    await office.put(receiver.url)

    async def failed_once() -> bool:
        return (await office.entries())[0]["attempts"] == 1

    await office.until(failed_once)
    await office.close()
    await office.open()
    assert len(await office.entries()) == 1

    async def due(transaction: Any) -> None:
        await transaction.execute("UPDATE webhook_outbox SET due_at = 0")

    await office.database.write(due)
    office.webhooks.wake()
    await office.emptied()
    assert len(receiver.calls) == ATTEMPTS


async def test_an_attempt_that_a_stop_cuts_off_is_made_again(office, receive, monkeypatch):
    monkeypatch.setattr(outbox, "CLOSE_SECONDS", 0)

    async def silence(writer: asyncio.StreamWriter) -> None:
        pass

    receiver = await receive(silence)
    await office.put(receiver.url)
    await office.until(lambda: receiver.calls)
    await office.webhooks.close()
    [entry] = await office.entries()
    assert entry["attempts"] == 0
    await office.database.close()
    await office.open()
    await office.emptied()
    first, second = receiver.calls
    assert first.headers["x-treadle-delivery"] == second.headers["x-treadle-delivery"]


async def test_closing_lets_deliveries_at_work_end(office, receive):
    release = asyncio.Event()

    async def wait(writer: asyncio.StreamWriter) -> None:
        await release.wait()
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")

    receiver = await receive(wait)
    await office.put(receiver.url)
    await office.until(lambda: receiver.calls)
    closing = asyncio.create_task(office.webhooks.close())
    await asyncio.sleep(0)
    release.set()
    await closing
    assert await office.entries() == []


async def test_closing_twice_or_without_a_start_is_harmless(office):
    await office.webhooks.close()
    await office.webhooks.close()


async def test_a_database_that_fails_does_not_make_it_call_in_a_rush(
    office, receive, monkeypatch, logged
):
    monkeypatch.setattr(outbox, "CLOSE_SECONDS", 0)

    async def broken(transaction: Any) -> None:
        await transaction.execute("ALTER TABLE webhook_outbox RENAME TO elsewhere")

    async def break_database(writer: asyncio.StreamWriter) -> None:
        await office.database.write(broken)
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")

    receiver = await receive(break_database)
    await office.put(receiver.url)
    await office.until(lambda: logged)
    assert logged[0]["event"] == "a webhook's delivery could not be noted"
    office.webhooks.wake()
    await office.until(lambda: len(logged) > 1)
    assert logged[1]["event"] == "the webhook outbox could not be read"
    assert len(receiver.calls) == 1
    await office.webhooks.close()

    async def mended(transaction: Any) -> None:
        await transaction.execute("ALTER TABLE elsewhere RENAME TO webhook_outbox")

    await office.database.write(mended)


# -- this server itself ------------------------------------------------------------------------


async def test_a_relative_target_is_this_server_itself(office):
    app = App()
    await office.close()
    await office.open(app=app)
    await office.deliver("/hook?a=1&b=%20")
    [(path, query, headers, body)] = app.calls
    assert (path, query) == ("/hook", b"a=1&b=%20")
    assert headers["host"] == "api"
    assert headers["content-type"] == "application/json"
    assert headers["x-treadle-delivery"] == body["run_id"] == "run"


async def test_an_app_that_breaks_is_tried_again_and_harms_nobody(office, at_once, logged):
    calls: list[int] = []

    async def broken(scope: Any, receive: Any, send: Any) -> None:
        calls.append(1)
        raise RuntimeError("broken")

    await office.close()
    await office.open(app=broken)
    await office.deliver("/hook")
    assert len(calls) == ATTEMPTS
    assert logged[-1]["problem"] == "RuntimeError: broken"


async def test_a_host_that_is_called_api_is_not_this_server(office, at_once):
    app = App()
    await office.close()
    await office.open(app=app)
    await office.deliver("http://api/hook")
    assert app.calls == []


async def test_an_opt_in_that_was_taken_back_holds_for_what_is_left(office, at_once, logged):
    app = App()
    await office.webhooks.close()
    await office.put("/hook")
    await office.database.close()
    await office.open(WebhookRules(), app)
    await office.emptied()
    assert app.calls == []
    assert logged[-1]["problem"].startswith("Invalid: Loopback webhooks")
