"""Factories: functions that make a graph for each use of it."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass, is_dataclass
from typing import TYPE_CHECKING, Any, Literal, get_args, get_origin

from langchain_core.runnables import RunnableConfig
from langgraph_sdk import runtime as sdk_runtime
from langgraph_sdk.runtime import AccessContext, ServerRuntime

from treadle.auth import Caller
from treadle.errors import StartupError

if TYPE_CHECKING:
    from langgraph.store.base import BaseStore

Role = Literal["config", "runtime"]
_RUNTIME_NAMES = ("runtime", "server_runtime")
_RUNTIME_TYPES = ("ServerRuntime", "_ExecutionRuntime", "_ReadRuntime", "_ServerRuntimeBase")


@dataclass(frozen=True)
class Factory:
    """A user's function, and what it takes."""

    function: Callable[..., Any]
    roles: Mapping[str, Role]
    context_type: type[Any] | None
    """``Ctx`` of an annotation ``ServerRuntime[Ctx]``."""

    async def make(
        self,
        stack: AsyncExitStack,
        config: RunnableConfig,
        *,
        access: AccessContext,
        store: BaseStore,
        caller: Caller,
        context: Any,
    ) -> Any:
        """What the function makes; a context manager stays open as long as ``stack``."""
        given: dict[str, Any] = {}
        for name, role in self.roles.items():
            if role == "config":
                given[name] = config
            else:
                given[name] = self._runtime(access, store, caller, context)
        made = self.function(**given)
        if inspect.isawaitable(made):
            made = await made
        if hasattr(made, "__aenter__"):
            return await stack.enter_async_context(made)
        if hasattr(made, "__enter__"):
            return stack.enter_context(made)
        return made

    def _runtime(
        self, access: AccessContext, store: BaseStore, caller: Caller, context: Any
    ) -> ServerRuntime[Any]:
        user: Any = caller.user
        if access != "threads.create_run":
            return sdk_runtime._ReadRuntime(access_context=access, user=user, store=store)  # pyright: ignore[reportPrivateUsage]
        if self.context_type is not None and isinstance(context, dict):
            context = self.context_type(**context)
        return sdk_runtime._ExecutionRuntime(  # pyright: ignore[reportPrivateUsage]
            access_context=access, user=user, store=store, context=context
        )


def read_factory(function: Callable[..., Any], what: str) -> Factory:
    """Find out what ``function`` takes. Raises ``StartupError`` if that cannot be given to it."""
    roles: dict[str, Role] = {}
    context_type = None
    for parameter in _parameters(function):
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            continue
        role = _role(parameter)
        if role is None or role in roles.values() or parameter.kind is parameter.POSITIONAL_ONLY:
            if parameter.default is not parameter.empty:
                continue
            raise StartupError(
                f"{what}: the factory takes ({', '.join(p.name for p in _parameters(function))}). "
                "A factory takes nothing, a config (RunnableConfig), a runtime "
                "(langgraph_sdk.runtime.ServerRuntime), or both."
            )
        roles[parameter.name] = role
        if role == "runtime":
            context_type = _context_type(parameter.annotation)
    return Factory(function, roles, context_type)


def _parameters(function: Callable[..., Any]) -> list[inspect.Parameter]:
    try:
        signature = inspect.signature(function, eval_str=True)
    except Exception:  # an annotation that only a type checker can evaluate
        signature = inspect.signature(function)
    return list(signature.parameters.values())


def _role(parameter: inspect.Parameter) -> Role | None:
    annotation = parameter.annotation
    if annotation is parameter.empty or annotation is Any:
        if parameter.default is not parameter.empty and parameter.name != "config":
            return "runtime" if parameter.name in _RUNTIME_NAMES else None
        return "runtime" if parameter.name in _RUNTIME_NAMES else "config"
    text = annotation if isinstance(annotation, str) else _names(annotation)
    if any(name in text for name in _RUNTIME_TYPES):
        return "runtime"
    if "RunnableConfig" in text or text.lower().startswith(("dict", "mapping")):
        return "config"
    return None


def _names(annotation: Any) -> str:
    """The names in an annotation: of its origin, of the arms of a union."""
    origin = get_origin(annotation) or annotation
    own = getattr(origin, "__name__", "")
    return " ".join([own, *(_names(arm) for arm in get_args(annotation))]).strip()


def _context_type(annotation: Any) -> type[Any] | None:
    for argument in get_args(annotation):
        if isinstance(argument, type):
            if is_dataclass(argument) or hasattr(argument, "model_validate"):
                return argument
        elif (found := _context_type(argument)) is not None:
            return found
    return None
