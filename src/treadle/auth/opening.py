"""Chooses how requests are authenticated, from all that a project says of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import msgspec
from langgraph_sdk import Auth

from treadle.auth import Authenticate, Policy
from treadle.auth.authentication import CachedAuthentication, CustomAuthentication
from treadle.auth.key_authentication import KeyAuthentication
from treadle.auth.keys import FILE_VARIABLE, KEYS_VARIABLE, KeyRing
from treadle.auth.policy import HandlerPolicy
from treadle.auth.rules import AuthRules
from treadle.auth.studio import StudioAuthentication
from treadle.config import Config
from treadle.errors import StartupError

KEYS_OPENAPI: dict[str, Any] = {
    "securitySchemes": {
        "apiKey": {"type": "apiKey", "in": "header", "name": "X-Api-Key"},
        "bearer": {"type": "http", "scheme": "bearer"},
    },
    "security": [{"apiKey": []}, {"bearer": []}],
}
"""What ``/openapi.json`` says of API keys."""


class Gate(NamedTuple):
    """Who gets in, what they may do then, and what the OpenAPI document says of it."""

    authenticate: Authenticate | None
    policy: Policy | None
    openapi: Mapping[str, Any] | None


def open_gate(
    config: Config, environ: Mapping[str, str], load: Callable[[str], object], *, development: bool
) -> Gate:
    """The gate of a project; ``load`` gets the object that ``auth.path`` names.

    Raises ``StartupError``.
    """
    rules = AuthRules.read(config.auth, environ)
    keys = KeyRing.read(environ, config.folder)
    auth = None if rules.path is None else check_auth(load(rules.path), rules.path)
    policy = None if auth is None else HandlerPolicy(auth)
    authenticate = open_authentication(rules, auth, keys, policy, studio=development)
    openapi = None if keys is None else KEYS_OPENAPI
    if rules.openapi is not None:
        openapi = msgspec.to_builtins(rules.openapi)
    return Gate(authenticate, policy, openapi)


def check_auth(found: object, source: str) -> Auth:
    """What ``auth.path`` names, if it is an ``Auth``. Raises ``StartupError``."""
    if not isinstance(found, Auth):
        raise StartupError(
            f"auth.path: {source} is a {type(found).__name__}. It has to be a langgraph_sdk.Auth."
        )
    return found


def open_authentication(
    rules: AuthRules,
    auth: Auth | None,
    keys: KeyRing | None,
    policy: Policy | None,
    *,
    studio: bool,
) -> Authenticate | None:
    """How to find out who calls; None if everyone is let in.

    ``auth`` is what ``rules.path`` names. Its handlers may have the users of ``keys``; its
    ``authenticate`` and ``keys`` exclude each other. Without ``studio``, Studio has no way in,
    whatever the rules say. Raises ``StartupError``.
    """
    authenticate: Authenticate
    if auth is not None and auth._authenticate_handler is not None:  # pyright: ignore[reportPrivateUsage]
        if keys is not None:
            raise StartupError(
                f"{rules.path} has an @auth.authenticate, and {KEYS_VARIABLE} or {FILE_VARIABLE}"
                " gives out API keys: only one of them can say who calls. Take one out."
            )
        authenticate = CustomAuthentication(auth, policy)
        if rules.cache is not None:
            authenticate = CachedAuthentication(authenticate, rules.cache)
    elif keys is not None:
        authenticate = KeyAuthentication(keys, policy)
    elif auth is not None:
        raise StartupError(
            f"{rules.path} has no @auth.authenticate: nobody would say who calls. Add one, or give"
            f" out API keys with {KEYS_VARIABLE}."
        )
    else:
        return None
    if studio and not rules.disable_studio_auth:
        authenticate = StudioAuthentication(authenticate, policy)
    return authenticate
