"""Objects that a config names and a server opens once: a user's own store or checkpointer."""

from __future__ import annotations

import inspect
from contextlib import AsyncExitStack
from typing import Any, TypeVar

from treadle.config import Config
from treadle.errors import StartupError
from treadle.graphs.importing import import_object, users_traceback

T = TypeVar("T")


async def open_provided(
    stack: AsyncExitStack, config: Config, source: str, what: str, kind: type[T]
) -> T:
    """What ``source`` names: a ``kind``, or a function without arguments that makes one.

    The function may be async, or a context manager (async or not), which stays open as long as
    ``stack``. Raises ``StartupError``; ``what`` is the config's key.
    """
    found: Any = import_object(config, source, what)
    if isinstance(found, kind):
        return found
    if callable(found):
        try:
            found = found()
            if inspect.isawaitable(found):
                found = await found
            if not isinstance(found, kind):
                if hasattr(found, "__aenter__"):
                    found = await stack.enter_async_context(found)
                elif hasattr(found, "__enter__"):
                    found = stack.enter_context(found)
        except Exception as error:
            raise StartupError(
                f"{what}: {source} fails:\n{users_traceback(config, error)}"
            ) from error
    if not isinstance(found, kind):
        hint = ""
        if hasattr(found, "__anext__") or hasattr(found, "__next__"):
            hint = " (decorate it with @contextlib.asynccontextmanager)"
        raise StartupError(
            f"{what}: {source} gives {type(found).__name__}{hint}. It has to be a {kind.__name__},"
            f" or a function or context manager that gives one."
        )
    return found
