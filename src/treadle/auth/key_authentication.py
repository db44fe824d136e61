"""Finds out who makes a request, by its API key."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import structlog

from treadle.auth import Caller, Policy
from treadle.auth.callers import caller_of
from treadle.auth.keys import KeyRing
from treadle.auth.users import user_of
from treadle.errors import Denied, StartupError

logger = structlog.get_logger("treadle.auth")

RELOAD_SECONDS = 1.0
CHALLENGE = {"WWW-Authenticate": "Bearer"}
MISSING = "Missing API key: send it as X-Api-Key, or as Authorization: Bearer"
UNKNOWN = "Unknown API key"


class KeyAuthentication:
    """Lets those in who have a key; the key's name is their identity.

    A change of the file of keys holds within ``RELOAD_SECONDS``.
    """

    def __init__(
        self, ring: KeyRing, policy: Policy | None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._ring, self._policy, self._clock = ring, policy, clock
        self._looked_at = clock()

    async def __call__(self, scope: Any) -> Caller:
        self._look()
        found = False
        for key in _keys(scope):
            found = True
            if (name := self._ring.owner(key)) is not None:
                return caller_of(user_of(name), self._policy)
        raise Denied(401, UNKNOWN if found else MISSING, CHALLENGE)

    def _look(self) -> None:
        now = self._clock()
        if now - self._looked_at < RELOAD_SECONDS:
            return
        self._looked_at = now
        try:
            if self._ring.reload():
                logger.info("the file of API keys has changed")
        except StartupError as error:
            logger.error("the file of API keys is of no use: the keys stay", problem=str(error))


def _keys(scope: Any) -> Iterator[str]:
    """What may be a key: clients send one they have from elsewhere as X-Api-Key, unasked."""
    for name, value in scope["headers"]:
        if name == b"x-api-key":
            yield value.decode("latin-1").strip()
        elif name == b"authorization":
            scheme, _, token = value.decode("latin-1").partition(" ")
            if scheme.lower() == "bearer":
                yield token.strip()
