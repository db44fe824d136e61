"""Finds out who makes a request, by what the user's ``@auth.authenticate`` says."""

from __future__ import annotations

import asyncio
import contextvars
import functools
import inspect
import re
import time
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from hashlib import blake2b
from typing import Any, cast

import structlog
from langgraph_sdk import Auth
from starlette.requests import Request

from treadle.auth import Authenticate, Caller, Policy
from treadle.auth.callers import caller_of
from treadle.auth.denials import denial
from treadle.auth.rules import CacheRules
from treadle.auth.users import UnusableUser, user_of
from treadle.errors import Denied, StartupError

logger = structlog.get_logger("treadle.auth")

MAX_THREADS = 32

_SLASHES = re.compile("//+")


class CustomAuthentication:
    """Asks the ``@auth.authenticate`` of ``auth``, once for each request.

    It gets what its signature names, which is read here. A function that is not async is called
    in a thread: it may block.
    """

    def __init__(self, auth: Auth, policy: Policy | None) -> None:
        handler = cast("Callable[..., Any]", auth._authenticate_handler)  # pyright: ignore[reportPrivateUsage]
        self._handler, self._policy = handler, policy
        self._names = _injected(handler)
        called = getattr(handler, "__call__", None)  # noqa: B004
        self._is_async = inspect.iscoroutinefunction(handler) or inspect.iscoroutinefunction(called)
        self._threads = (
            None if self._is_async else ThreadPoolExecutor(MAX_THREADS, "treadle-authenticate")
        )

    async def __call__(self, scope: Any) -> Caller:
        request = _request(scope)
        given = {name: _GIVERS[name](request) for name in self._names}
        try:
            user = user_of(await self._ask(given))
        except UnusableUser as error:
            logger.error("authenticate found no user", problem=str(error))
            raise Denied(500, f"Internal Server Error: {error}") from None
        except Exception as error:
            if (denied := denial(error)) is not None:
                raise denied from error
            raise
        return caller_of(user, self._policy)

    async def _ask(self, given: dict[str, Any]) -> Any:
        if self._threads is None:
            return await self._handler(**given)
        context = contextvars.copy_context()
        call = functools.partial(context.run, self._handler, **given)
        returned = await asyncio.get_running_loop().run_in_executor(self._threads, call)
        return await returned if inspect.isawaitable(returned) else returned


def _request(scope: Any) -> Request:
    """The request as authenticate sees it: a WebSocket's handshake is one too.

    Its path is the one that routing goes by: with slashes collapsed.
    """
    path = _SLASHES.sub("/", scope["path"])
    changed = {"path": path, "path_params": {}}
    if scope["type"] == "websocket":
        scheme = {"ws": "http", "wss": "https"}.get(scope.get("scheme", "ws"), "http")
        changed |= {"type": "http", "method": "GET", "scheme": scheme}
    return Request({**scope, **changed})


def _headers(request: Request) -> dict[bytes, bytes]:
    """Headers by name; of several the first, as ``request.headers`` has it."""
    return dict(reversed(request.scope["headers"]))


_GIVERS: dict[str, Callable[[Request], Any]] = {
    "request": lambda request: request,
    "scope": lambda request: request.scope,
    "path": lambda request: request.scope["path"],
    "method": lambda request: request.method,
    "path_params": lambda request: {},
    "query_params": lambda request: request.query_params,
    "headers": _headers,
    "authorization": lambda request: request.headers.get("authorization"),
}


def _injected(handler: Callable[..., Any]) -> tuple[str, ...]:
    """The parameters to give to ``authenticate``. ``StartupError`` if it wants any other."""
    names: list[str] = []
    for name, parameter in inspect.signature(handler).parameters.items():
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            continue
        if name in _GIVERS and parameter.kind is not parameter.POSITIONAL_ONLY:
            names.append(name)
        elif parameter.default is parameter.empty:
            why = (
                "authentication comes before the body is read, so there is none to give"
                if name == "body"
                else "parameters are given by name"
            )
            raise StartupError(
                f'auth.path: authenticate takes "{name}": {why}. It can have {", ".join(_GIVERS)}.'
            )
    return tuple(names)


class CachedAuthentication:
    """Remembers what ``inner`` found, by the headers that ``rules`` name; never a refusal.

    A request that has none of these headers is not remembered.
    """

    def __init__(
        self, inner: Authenticate, rules: CacheRules, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._inner, self._rules, self._clock = inner, rules, clock
        self._names = {name.lower().encode("latin-1", "replace") for name in rules.cache_keys}
        self._kept: OrderedDict[bytes, tuple[float, Caller]] = OrderedDict()

    async def __call__(self, scope: Any) -> Caller:
        named = [pair for pair in scope["headers"] if pair[0] in self._names]
        if not named:
            return await self._inner(scope)
        key = blake2b(repr(named).encode(), digest_size=32).digest()
        found = self._kept.get(key)
        if found is not None and self._clock() < found[0]:
            return found[1]
        caller = await self._inner(scope)
        self._kept.pop(key, None)
        self._kept[key] = self._clock() + self._rules.ttl_seconds, caller
        if len(self._kept) > self._rules.max_size:
            self._kept.popitem(last=False)
        return caller
