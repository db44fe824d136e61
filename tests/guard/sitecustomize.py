"""In every Python process of the tests: connections leave this machine only by mistake.

What is told by ``sys.addaudithook``: sockets and lookups of Python itself. A try is refused, and
kept in the file that ``OUTBOUND_LOG`` names, which fails the run (tests/outbound.py).
"""

from __future__ import annotations

import os
import socket
import sys
from typing import Any

HERE = ("127.", "::1", "::ffff:127.", "localhost", "0.0.0.0")
NOWHERE = (".invalid", ".test", ".example")
"""Names that never lead anywhere: looking them up is what some tests are about."""


def is_number(name: str) -> bool:
    """Whether a name is an address already: nobody is asked for it."""
    try:
        if ":" in name:
            socket.inet_pton(socket.AF_INET6, name.partition("%")[0])
        else:
            socket.inet_aton(name)
    except OSError:
        return False
    return True


def refuse_others(event: str, arguments: tuple[Any, ...]) -> None:
    if event in ("socket.connect", "socket.sendto", "socket.sendmsg"):
        place = arguments[1]
        if not isinstance(place, tuple):  # a Unix socket, or one that is connected
            return
        host = place[0]
    elif event == "socket.getaddrinfo":
        host = arguments[0]
    else:
        return
    name = host.decode("ascii", "replace") if isinstance(host, bytes) else str(host or "127.")
    if name.startswith(HERE):
        return
    if event == "socket.getaddrinfo" and (name.endswith(NOWHERE) or is_number(name)):
        return
    if log := os.environ.get("OUTBOUND_LOG"):
        with open(log, "a") as file:
            file.write(f"{event} {name} by {' '.join(sys.argv[:4])}\n")
    raise ConnectionRefusedError(f"tests connect to this machine alone, not to {name!r}")


sys.addaudithook(refuse_others)
