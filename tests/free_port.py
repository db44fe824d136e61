"""Ports for the servers of the tests."""

from __future__ import annotations

import socket


def free_port() -> int:
    """A port of this machine that nobody listens at now."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return sock.getsockname()[1]
