"""Connections: only to addresses that were checked, with the right name, and no further."""

from __future__ import annotations

import ssl
import subprocess
from pathlib import Path
from typing import Any

import pytest

from treadle.webhooks.rules import WebhookRules

ATTEMPTS = 3
NO_HTTPS = WebhookRules.read({"url": {"require_https": False}}, {})


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A certificate for hooks.example.com and its key."""
    folder = tmp_path_factory.mktemp("certificate")
    paths = folder / "cert.pem", folder / "key.pem"
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"]
    command += ["-nodes", "-days", "2", "-subj", "/CN=hooks.example.com"]
    command += ["-addext", "subjectAltName=DNS:hooks.example.com"]
    command += ["-out", str(paths[0]), "-keyout", str(paths[1])]
    subprocess.run(command, check=True, capture_output=True)
    return paths


@pytest.fixture
def tls(certificate: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> ssl.SSLContext:
    """What a server of hooks.example.com uses; we trust its certificate."""
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate[0]))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*certificate)
    return context


# -- addresses ---------------------------------------------------------------------------------


async def test_a_name_is_looked_up_once_and_the_checked_address_is_called(office, receive, names):
    names.addresses["hooks.example.com"] = ["127.0.0.1"]
    receiver = await receive()
    await office.deliver(f"http://hooks.example.com:{receiver.port}/x")
    assert names.asked == ["hooks.example.com"]
    [call] = receiver.calls
    assert call.headers["host"] == f"hooks.example.com:{receiver.port}"


async def test_a_name_that_now_means_an_address_inside_is_not_called(
    office, receive, names, at_once, logged
):
    """What a name means may change between the run's creation and its end."""
    await office.close()
    await office.open(NO_HTTPS)
    target = f"http://example.com:{(receiver := await receive()).port}/"
    await office.webhooks.check(target)
    names.addresses["example.com"] = ["127.0.0.1"]
    await office.deliver(target)
    assert receiver.connections == 0
    assert names.asked == ["example.com"] * (1 + ATTEMPTS)
    assert logged[-1]["problem"] == "Invalid: Webhook host blocked: loopback IP range"


async def test_the_next_address_is_tried_if_one_cannot_be_connected_to(office, receive, names):
    receiver = await receive()
    names.addresses["hooks.example.com"] = ["127.0.0.9", "127.0.0.1"]  # nobody listens at .9
    await office.deliver(f"http://hooks.example.com:{receiver.port}/")
    assert len(receiver.calls) == 1


async def test_an_address_that_answered_badly_is_not_followed_by_the_next(
    office, receive, names, at_once
):
    receiver = await receive(*[500] * 9)
    names.addresses["hooks.example.com"] = ["127.0.0.1", "127.0.0.9"]
    await office.deliver(f"http://hooks.example.com:{receiver.port}/")
    assert len(receiver.calls) == ATTEMPTS


async def test_a_proxy_of_the_environment_is_not_used(office, receive, monkeypatch):
    receiver, proxy = await receive(), await receive()
    for name in ("http_proxy", "HTTP_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, proxy.url)
    await office.deliver(receiver.url)
    assert (len(receiver.calls), proxy.connections) == (1, 0)


# -- redirects, cookies, connections -----------------------------------------------------------


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_a_redirect_is_a_failure_and_is_not_followed(office, receive, at_once, status):
    inside = await receive()
    answer = f"HTTP/1.1 {status} X\r\nlocation: {inside.url}/secret\r\ncontent-length: 0\r\n\r\n"
    receiver = await receive(*[answer.encode()] * 9)
    await office.deliver(receiver.url)
    assert len(receiver.calls) == ATTEMPTS
    assert inside.connections == 0


async def test_cookies_are_not_kept(office, receive):
    answer = b"HTTP/1.1 200 X\r\nset-cookie: a=1; path=/\r\ncontent-length: 0\r\n\r\n"
    receiver = await receive(answer)
    await office.deliver(receiver.url)
    await office.deliver(receiver.url)
    assert all("cookie" not in call.headers for call in receiver.calls)


async def test_connections_are_not_kept(office, receive):
    receiver = await receive()
    for _ in range(3):
        await office.deliver(receiver.url)
    assert receiver.connections == 3


# -- TLS ---------------------------------------------------------------------------------------


async def test_the_name_is_what_a_certificate_is_checked_against(office, receive, names, tls):
    names.addresses["hooks.example.com"] = ["127.0.0.1"]
    receiver = await receive(tls=tls)
    await office.deliver(f"https://hooks.example.com:{receiver.port}/")
    [call] = receiver.calls
    assert call.server_name == "hooks.example.com"


@pytest.mark.parametrize("host", ["other.example.com", "127.0.0.1"])
async def test_the_certificate_of_another_name_is_refused(
    office, receive, names, tls, at_once, logged, host: str
):
    names.addresses["hooks.example.com"] = names.addresses["other.example.com"] = ["127.0.0.1"]
    receiver = await receive(tls=tls)
    await office.deliver(f"https://hooks.example.com:{receiver.port}/")
    await office.deliver(f"https://{host}:{receiver.port}/", run_id="run 2")
    assert len(receiver.calls) == 1
    problem: Any = logged[-1]["problem"]
    assert "certificate verify failed" in problem
