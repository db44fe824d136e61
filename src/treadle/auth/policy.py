"""What the handlers of a user's ``langgraph_sdk.Auth`` allow."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, cast
from uuid import UUID

import structlog
from langgraph_sdk import Auth

from treadle.auth.denials import denial
from treadle.auth.filters import Filter, UnknownFilter, is_kept_as_it_is, parse_filter
from treadle.errors import Denied, Forbidden
from treadle.serialization import dumps, loads

if TYPE_CHECKING:
    from treadle.auth import Caller

logger = structlog.get_logger("treadle.auth")

Json = dict[str, Any]
Handler = Callable[..., Any]

_IDS = frozenset(("thread_id", "run_id", "assistant_id", "cron_id"))
_LISTED_IDS = frozenset(("ids", "thread_ids"))


class HandlerPolicy:
    """Asks one handler for each check, the most specific one. Without any all is allowed.

    What a handler does with ``value`` stays there for whoever asked. Whatever it was, ``metadata``
    is an object of JSON then, and ``namespace`` a tuple of labels or None, if they are there.
    """

    def __init__(self, auth: Auth) -> None:
        self._handlers: dict[tuple[str, str], list[Handler]] = auth._handlers  # pyright: ignore[reportPrivateUsage]
        self._global_handlers: list[Handler] = auth._global_handlers  # pyright: ignore[reportPrivateUsage]
        self._chosen: dict[tuple[str, str], Handler | None] = {}

    async def decide(self, caller: Caller, resource: str, action: str, value: Any) -> Filter | None:
        """See ``treadle.auth.authorize``.

        Raises ``Forbidden``, or ``Denied`` with what the handler says. A handler that fails, or
        answers what is not understood, is logged: status 500, nothing is allowed.
        """
        handler = self._handler(resource, action)
        if handler is None:
            return None
        _prepare(value)
        stars = _stars(value)
        context = Auth.types.AuthContext(
            permissions=list(caller.permissions),
            user=cast("Any", caller.user),
            resource=cast("Any", resource),
            action=cast("Any", action),
        )
        result = await _asked(handler, context, value)
        if result is False:
            raise Forbidden("Forbidden")
        try:
            _check(value)
            if action == "list_namespaces":
                _check_stars(value, stars, caller.identity)
            return None if result is None or result is True else _filter(result)
        except UnknownResult as error:
            raise _failed(handler, context, error, str(error)) from error

    def _handler(self, resource: str, action: str) -> Handler | None:
        """The handler for an action on a resource, looked up once."""
        key = resource, action
        try:
            return self._chosen[key]
        except KeyError:
            pass
        for specific in (key, (resource, "*"), ("*", action)):
            if handlers := self._handlers.get(specific):
                break
        else:
            handlers = self._global_handlers
        found = self._chosen[key] = handlers[0] if handlers else None
        return found


class UnknownResult(Exception):
    """A handler returned something else than it may."""


async def _asked(handler: Handler, context: Any, value: Any) -> object:
    try:
        result = handler(ctx=context, value=value)
        return await result if inspect.isawaitable(result) else result
    except AssertionError as error:
        logger.info("forbidden", **_asking(handler, context), reason=str(error))
        raise Forbidden("Forbidden") from error
    except Exception as error:
        denied = denial(error) or _failed(handler, context, error, "Internal Server Error")
        raise denied from error


def _failed(handler: Handler, context: Any, error: Exception, detail: str) -> Denied:
    logger.error("an authorization handler failed", **_asking(handler, context), exc_info=error)
    return Denied(500, detail)


def _asking(handler: Handler, context: Any) -> Json:
    """What was asked, for the log."""
    name = getattr(handler, "__qualname__", repr(handler))
    return {"handler": name, "resource": context.resource, "action": context.action}


def _filter(result: object) -> Filter | None:
    if not isinstance(result, dict):
        raise UnknownResult(
            "Auth handler returned invalid result. Expected filter dict, None, or boolean."
            f" Got {type(result)} instead."
        )
    try:
        return parse_filter(cast("Json", result))
    except (UnknownFilter, RecursionError) as error:
        raise UnknownResult("Auth handler returned a filter that is not understood.") from error


def _prepare(value: Json) -> None:
    """Ids are UUIDs for handlers, and the metadata is theirs to change."""
    if "metadata" in value:
        value["metadata"] = dict(value["metadata"])
    for name in _IDS & value.keys():
        if isinstance(value[name], str):
            value[name] = UUID(value[name])
    for name in _LISTED_IDS & value.keys():
        value[name] = [UUID(one) for one in value[name]]


def _check(value: Json) -> None:
    """See to it that what a handler leaves can be used."""
    if "metadata" in value:
        if not isinstance(value["metadata"], dict):
            raise UnknownResult("Auth handler left metadata that is not a dict.")
        value["metadata"] = loads(dumps(value["metadata"]))
    if (namespace := value.get("namespace")) is not None:
        if not isinstance(namespace, list | tuple):
            raise UnknownResult("Auth handler left a namespace that is not a tuple.")
        labels = cast("Sequence[object]", namespace)
        if bad := [label for label in labels if not _is_label(label)]:
            raise UnknownResult(
                f"Auth handler left a namespace with the label {bad[0]!r}. A label is a string that"
                " is not empty and has no period. Of an identity that may have one, such as an"
                ' e-mail address, make another text: urllib.parse.quote(it, safe="").replace(".",'
                ' "%2E").'
            )
        value["namespace"] = tuple(labels)


def _stars(value: Json) -> int:
    """How many of the labels stand for any label."""
    labels: Sequence[object] = value.get("namespace") or ()
    return sum(label == "*" for label in labels)


def _check_stars(value: Json, given: int, identity: str) -> None:
    """See to it that a name that is put into a namespace is not read as a wildcard."""
    if (left := _stars(value)) > given or (left and identity == "*"):
        raise UnknownResult(
            "Auth handler left a namespace with the label '*', which would list those of all:"
            " who is called '*' has to have another label."
        )


def _is_label(label: object) -> bool:
    return isinstance(label, str) and bool(label) and "." not in label and is_kept_as_it_is(label)
