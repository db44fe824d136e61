"""Which targets are allowed, and what langgraph.json may say."""

from __future__ import annotations

from typing import Any

import pytest

from treadle.errors import Invalid, StartupError
from treadle.webhooks import addresses
from treadle.webhooks.outbox import Webhooks
from treadle.webhooks.rules import WebhookRules


def rules(**section: Any) -> WebhookRules:
    return WebhookRules.read(section, {})


NO_SECTION = WebhookRules.read(None, {})
OPEN = rules(url={"require_https": False, "disable_loopback": False})
CLOSED_RANGE = "Webhook host blocked: blocked IP range"
LOOPBACK_RANGE = "Webhook host blocked: loopback IP range"
LOCALHOST = "Webhook host blocked: localhost address."
LOOPBACK_WORDS = "Loopback webhooks (relative URLs and localhost) are disabled by default."


async def refusal(target: str, of: WebhookRules = NO_SECTION) -> str | None:
    """What is said to a target; None if it is allowed."""
    nothing: Any = None
    try:
        await Webhooks(nothing, of).check(target)
    except Invalid as error:
        return str(error)
    return None


# -- targets -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "target",
    [
        "http://example.com",
        "https://example.com/hook?token=1",
        "https://example.com:8443/hook",
        "https://six.example.com/",
        "https://nat64.example.com/",
        "https://bücher.example/",
        "http://93.184.215.14/",
        "http://[2606:2800:21f:cb07:6820:80da:af6b:8b2c]:8080/",
        "HTTPS://EXAMPLE.COM/",
        "http://user:secret@example.com/",
        "http://example.com/größe?q=ü",
    ],
)
async def test_targets_in_the_open_are_allowed(target):
    assert await refusal(target) is None


@pytest.mark.parametrize(
    ("target", "said"),
    [
        ("not a url", "Invalid webhook hostname ''"),
        ("http://", "Invalid webhook hostname ''"),
        ("javascript:alert(1)", "Invalid webhook hostname ''"),
        ("mailto:a@example.com", "Invalid webhook hostname ''"),
        ("file:///etc/passwd", "Invalid webhook hostname ''"),
        ("ftp://example.com/", "Webhook host blocked: scheme 'ftp' not allowed"),
        ("file://example.com/etc/passwd", "Webhook host blocked: scheme 'file' not allowed"),
        ("//example.com/hook", "Webhook host blocked: scheme '' not allowed"),
        ("/path", LOOPBACK_WORDS),
        ("http://localhost:1234/", LOCALHOST),
        ("http://LOCALHOST/", LOCALHOST),
        ("http://localhost./", LOCALHOST),
        ("http://nowhere.example.com/", "Webhook host blocked: DNS resolution failed"),
        ("http://metadata.example.com/", CLOSED_RANGE),
        ("http://both.example.com/", CLOSED_RANGE),
        ("http://myself.example.com/", LOOPBACK_RANGE),
        ("http://example.com@127.0.0.1/", LOOPBACK_RANGE),
        ("http://example.com:99999/", "Invalid webhook URL: Port out of range"),
        ("http://example.com:port/", "Invalid webhook URL: Port could not be cast"),
        ("http://[::1/", "Invalid webhook URL: "),
        ("http://[::hello]/", "Invalid webhook URL: "),
        (f"http://{'a' * 64}.com/", "Invalid webhook URL: "),
        ("http://a..example.com/", "Invalid webhook URL: "),
        ("http://exa mple.com/", "Invalid webhook hostname 'exa mple.com'"),
        ("http://example.com\\.evil.com/", "Invalid webhook hostname"),
        ("http://127.0.0.1%2f@example.com%00/", "Invalid webhook hostname"),
        ("http://example.com/\ud800", "Invalid webhook URL: "),
    ],
)
async def test_targets_that_are_refused(target, said):
    assert (await refusal(target) or "allowed").startswith(said)


@pytest.mark.parametrize(
    ("host", "said"),
    [
        ("127.0.0.1", LOOPBACK_RANGE),
        ("127.8.8.8", LOOPBACK_RANGE),
        ("127.1", LOOPBACK_RANGE),
        ("2130706433", LOOPBACK_RANGE),
        ("0x7f000001", LOOPBACK_RANGE),
        ("017700000001", LOOPBACK_RANGE),
        ("①②⑦.0.0.1", LOOPBACK_RANGE),
        ("[::ffff:127.0.0.1]", LOOPBACK_RANGE),
        ("[::ffff:7f00:1]", LOOPBACK_RANGE),
        ("[64:ff9b::127.0.0.1]", LOOPBACK_RANGE),
        ("[2002:7f00:1::]", LOOPBACK_RANGE),
        ("[::1]", CLOSED_RANGE),
        ("0.0.0.0", CLOSED_RANGE),
        ("0", CLOSED_RANGE),
        ("[::]", CLOSED_RANGE),
        ("[::127.0.0.1]", CLOSED_RANGE),
        ("169.254.169.254", CLOSED_RANGE),
        ("168.63.129.16", CLOSED_RANGE),
        ("100.64.0.1", CLOSED_RANGE),
        ("100.100.100.200", CLOSED_RANGE),
        ("192.0.0.192", CLOSED_RANGE),
        ("198.18.0.1", CLOSED_RANGE),
        ("224.0.0.1", CLOSED_RANGE),
        ("240.0.0.1", CLOSED_RANGE),
        ("255.255.255.255", CLOSED_RANGE),
        ("[::ffff:169.254.169.254]", CLOSED_RANGE),
        ("[64:ff9b:1::1]", CLOSED_RANGE),
        ("[2001::1]", CLOSED_RANGE),
        ("[2001:db8::1]", CLOSED_RANGE),
        ("[fd00:ec2::254]", CLOSED_RANGE),
        ("[fe80::1]", CLOSED_RANGE),
        ("[fec0::1]", CLOSED_RANGE),
        ("[ff02::1]", CLOSED_RANGE),
        ("[100::1]", CLOSED_RANGE),
        ("[fe80::1%25lo]", "Webhook host blocked: "),
    ],
)
async def test_addresses_that_are_refused(host, said):
    assert (await refusal(f"http://{host}/") or "allowed").startswith(said)


@pytest.mark.parametrize(
    "host",
    [
        "10.1.2.3",
        "172.16.0.1",
        "172.31.255.255",
        "192.168.1.1",
        "[::ffff:10.0.0.1]",
        "[64:ff9b::10.0.0.1]",
        "[2002:a00:1::1]",
        "[fd12:3456::1]",
        "inside.example.com",
    ],
)
async def test_private_networks_pass_unless_they_are_disabled(names, host):
    open_to_all, shut = {"require_https": False}, {"require_https": False, "disable_private": True}
    assert await refusal(f"http://{host}/", rules(url=open_to_all)) is None
    assert await refusal(f"http://{host}/", rules(url=shut)) == CLOSED_RANGE


async def test_a_name_that_takes_too_long_to_resolve_is_refused(names, monkeypatch):
    monkeypatch.setattr(addresses, "RESOLVE_SECONDS", 0)
    assert await refusal("http://1.2.3.4/") == "Webhook host blocked: DNS resolution failed"


@pytest.mark.parametrize(
    ("url", "target", "said"),
    [
        ({}, "http://example.com/", "Webhook must use https"),
        ({}, "https://example.com/", None),
        ({"require_https": False}, "http://example.com/", None),
        ({"require_https": True}, "http://example.com/", "Webhook must use https"),
        ({"allowed_domains": []}, "https://example.com/", None),
        ({"allowed_domains": ["example.com"]}, "https://example.com/", None),
        ({"allowed_domains": ["Example.com"]}, "https://EXAMPLE.com./", None),
        (
            {"allowed_domains": ["example.com"]},
            "https://api.example.com/",
            "Webhook domain not allowed",
        ),
        ({"allowed_domains": ["*.example.com"]}, "https://api.example.com/", None),
        (
            {"allowed_domains": ["*.example.com"]},
            "https://example.com/",
            "Webhook domain not allowed",
        ),
        (
            {"allowed_domains": ["*.example.com", "example.com"]},
            "https://notexample.com/",
            "Webhook domain not allowed",
        ),
        ({"allowed_domains": ["inside.example.com"]}, "https://inside.example.com/", None),
        ({"allowed_ports": [443]}, "https://example.com/", None),
        ({"allowed_ports": [8443]}, "https://example.com/", "Webhook port 443 not allowed"),
        ({"allowed_ports": [443]}, "https://example.com:8443/", "Webhook port 8443 not allowed"),
        ({"max_url_length": 20}, "https://example.com/", None),
        (
            {"max_url_length": 20},
            "https://example.com/1",
            "Webhook URL too long: at most 20 characters",
        ),
    ],
)
async def test_rules_of_the_config(names, url, target, said):
    names.addresses["example.com."] = names.addresses["example.com"]
    assert await refusal(target, rules(url=url)) == said


@pytest.mark.parametrize(
    "target", ["/path", "http://localhost:1/", "http://127.0.0.1:1/", "http://[::1]:1/"]
)
async def test_loopback_can_be_opted_in(target):
    assert await refusal(target, OPEN) is None


@pytest.mark.parametrize(
    "target", ["http://169.254.169.254/", "http://100.64.0.1/", "http://0.0.0.0/"]
)
async def test_the_opt_in_is_for_loopback_only(target):
    assert await refusal(target, OPEN) == CLOSED_RANGE


@pytest.mark.parametrize(
    ("text", "path", "netloc"),
    [
        ("http://example.com", "/", "example.com"),
        ("https://example.com:443/a?b=%20&c=d#e", "/a?b=%20&c=d", "example.com"),
        ("http://example.com:443/", "/", "example.com:443"),
        ("http://example.com/ä b?ü=\n1", "/%C3%A4%20b?%C3%BC=1", "example.com"),
        ("http://[2606::1]:81/x", "/x", "[2606::1]:81"),
        ("https://Bücher.example/", "/", "xn--bcher-kva.example"),
        ("/hook?a=1", "/hook?a=1", ""),
        ("///hook", "/hook", ""),
    ],
)
def test_a_target_is_taken_apart(text, path, netloc):
    target = OPEN.target(text)
    assert (target.path, target.netloc) == (path, netloc)


# -- langgraph.json ----------------------------------------------------------------------------


def test_variables_are_filled_into_headers():
    environ = {"LG_WEBHOOK_TOKEN": "t0\n", "LG_WEBHOOK_B": "b"}
    headers = {"X-Token": "Bearer ${{env.LG_WEBHOOK_B}}-${{ env.LG_WEBHOOK_TOKEN }}", "x": "plain"}
    found = WebhookRules.read({"headers": headers}, environ)
    assert found.headers == {"x-token": "Bearer b-t0", "x": "plain"}


@pytest.mark.parametrize(
    ("section", "name"),
    [
        ({"headers": {"x": "${{ env.HOME }}"}}, "HOME"),
        ({"headers": {"x": "${{ env.LG_WEBHOOK_NOT_SET }}"}}, "LG_WEBHOOK_NOT_SET"),
        ({"headers": {"x": "${{ env.LG_WEBHOOK_A }}"}, "env_prefix": "MY_"}, "LG_WEBHOOK_A"),
    ],
)
def test_a_variable_that_a_header_may_not_have_stops_the_start(section, name):
    with pytest.raises(StartupError, match=f"names the variable {name}:"):
        WebhookRules.read(section, {"HOME": "/root", "LG_WEBHOOK_A": "a"})


def test_the_prefix_can_be_chosen():
    section = {"headers": {"x": "${{ env.MY_A }}"}, "env_prefix": "MY_"}
    assert WebhookRules.read(section, {"MY_A": "a"}).headers == {"x": "a"}


@pytest.mark.parametrize(
    ("section", "said"),
    [
        ({"url": {"disable_loopbak": False}}, r"unknown field `disable_loopbak` - at `\$.url`"),
        ({"urls": {}}, "unknown field `urls`"),
        ({"url": {"require_https": "no"}}, r"Expected `bool`, got `str` - at `\$.url.require_"),
        ({"url": {"allowed_domains": "example.com"}}, "Expected `array"),
        ({"url": {"allowed_ports": ["443"]}}, "Expected `int`"),
        ({"headers": {"x": 1}}, "Expected `str`"),
        ({"headers": {"a b": "1"}}, "'a b' is no header that can be sent"),
        ({"headers": {"x": "1\r\ny: 2"}}, "'x' is no header that can be sent"),
        ({"headers": {"x": "\u20ac"}}, "'x' is no header that can be sent"),
    ],
)
def test_what_is_wrong_stops_the_start(section, said):
    with pytest.raises(StartupError, match=said):
        WebhookRules.read(section, {})


@pytest.mark.parametrize("section", [{}, {"url": None, "headers": None}, {"url": {}}])
def test_a_section_asks_for_https_and_no_more(section):
    assert WebhookRules.read(section, {}) == WebhookRules(require_https=True)


@pytest.mark.parametrize("section", [None, {}])
@pytest.mark.parametrize(("text", "secret"), [("s0", b"s0"), (" s0\n", b"s0"), ("", None)])
def test_the_secret_comes_from_the_environment(section, text, secret):
    found = WebhookRules.read(section, {"TREADLE_WEBHOOK_SECRET": text})
    assert found.secret == secret
    assert "s0" not in repr(found)
