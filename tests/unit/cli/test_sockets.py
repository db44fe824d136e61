from contextlib import closing

import pytest

from treadle.cli.sockets import is_loopback, listen_at, listen_from, port_of, url_of
from treadle.errors import StartupError


def test_the_next_free_port_is_taken(taken):
    with closing(listen_from("127.0.0.1", taken)) as sock:
        assert port_of(sock) > taken


def test_a_port_that_was_asked_for_is_that_port_or_an_error(taken):
    with pytest.raises(StartupError, match=f"Port {taken} on 127.0.0.1"):
        listen_at("127.0.0.1", taken)
    with closing(listen_at("127.0.0.1", 0)) as sock:
        assert port_of(sock) > 0


def test_a_host_that_is_not_here_is_an_error():
    with pytest.raises(StartupError, match=r"192\.0\.2\.1"):
        listen_at("192.0.2.1", 0)
    with pytest.raises(StartupError, match="no-such-host"):
        listen_from("no-such-host.invalid", 0)


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("127.0.0.1", "http://127.0.0.1:2024"),
        ("0.0.0.0", "http://127.0.0.1:2024"),
        ("::", "http://[::1]:2024"),
        ("::1", "http://[::1]:2024"),
        ("example.org", "http://example.org:2024"),
    ],
)
def test_urls_are_for_clients_on_this_machine(host, url):
    assert url_of(host, 2024) == url


def test_loopback():
    assert is_loopback("localhost")
    assert is_loopback("127.0.0.9")
    assert not is_loopback("0.0.0.0")
