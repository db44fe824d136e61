"""The listening socket: bound before anything slow, so that a taken port is known at once."""

from __future__ import annotations

import errno
import socket
import sys

from treadle.errors import StartupError

DEFAULT_PORT = 2024
PORTS_TO_TRY = 100


def listen_at(host: str, port: int) -> socket.socket:
    """A socket bound to ``host`` and ``port``. Raises ``StartupError`` if that cannot be."""
    try:
        return _bind(host, port)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise StartupError(
                f"Port {port} on {host} is taken by another program. Stop that, or name another "
                "with --port."
            ) from None
        raise StartupError(
            f"The server cannot listen at {host}, port {port}: {error.strerror or error}."
        ) from None


def listen_from(host: str, port: int = DEFAULT_PORT) -> socket.socket:
    """A socket bound to ``port`` or, if that is taken, to the next one that is free."""
    for candidate in range(port, port + PORTS_TO_TRY):
        try:
            return _bind(host, candidate)
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                break
    return listen_at(host, port)


def port_of(sock: socket.socket) -> int:
    """The port that ``sock`` is bound to."""
    return sock.getsockname()[1]


def url_of(host: str, port: int, scheme: str = "http") -> str:
    """The address for people and clients on this machine."""
    shown = {"0.0.0.0": "127.0.0.1", "::": "[::1]", "": "127.0.0.1"}.get(host, host)
    return f"{scheme}://{f'[{shown}]' if ':' in shown and shown[0] != '[' else shown}:{port}"


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach ``host``."""
    return host in ("localhost", "::1") or host.startswith("127.")


def _bind(host: str, port: int) -> socket.socket:
    family, kind, protocol, _, address = socket.getaddrinfo(
        host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )[0]
    sock = socket.socket(family, kind, protocol)
    try:
        if sys.platform != "win32":
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(address)
    except OSError:
        sock.close()
        raise
    return sock
