"""Commands and their answers: one JSON object in, one out."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple, cast

import structlog

from treadle.auth import Caller
from treadle.errors import Denied, RequestError
from treadle.runs.answering import NoInterruptedRun, UnknownInterrupt
from treadle.runs.merging import UnknownCheckpoint
from treadle.streaming.protocol.run_commands import RunCommands
from treadle.streaming.protocol.state_commands import NotSupported, StateCommands, UnknownNamespace

logger = structlog.get_logger("treadle.protocol")

Json = dict[str, Any]

BAD_ENVELOPE = "Protocol commands must include an integer id and string method."

_CODES: tuple[tuple[type[RequestError], str], ...] = (
    (NoInterruptedRun, "no_such_run"),
    (UnknownInterrupt, "no_such_interrupt"),
    (UnknownCheckpoint, "no_such_checkpoint"),
    (UnknownNamespace, "no_such_namespace"),
    (NotSupported, "not_supported"),
)


class Context(NamedTuple):
    """Who gives a command, and for which thread."""

    caller: Caller
    request_id: str
    thread_id: str


class Result(NamedTuple):
    """What a command came to. ``seq_before``: what it brings about has greater numbers."""

    value: Json
    seq_before: int | None = None


class CommandError(Exception):
    """A command that is refused with a ``code`` of the protocol."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


Handler = Callable[[Context, Json], Awaitable[Result]]


def is_envelope(command: Any) -> bool:
    """Whether this is an object with an integer ``id`` and a string ``method``."""
    if not isinstance(command, dict):
        return False
    fields = cast("Json", command)
    id = fields.get("id")
    return (
        isinstance(id, int) and not isinstance(id, bool) and isinstance(fields.get("method"), str)
    )


def bad_envelope(command: Any) -> Json:
    """The answer to what is no command; it repeats the id, if there is one."""
    id = cast("Json", command).get("id") if isinstance(command, dict) else None
    return error_json(id, "invalid_argument", BAD_ENVELOPE)


def success_json(id: Any, result: Json, seq: int) -> Json:
    return {
        "type": "success",
        "id": id,
        "result": result,
        "meta": {"applied_through_seq": seq},
    }


def error_json(id: Any, code: str, message: str) -> Json:
    return {"type": "error", "id": id, "error": code, "message": message}


def code_of(error: RequestError) -> str:
    """The protocol's code for a refusal of one of the rooms."""
    if isinstance(error, Denied) and error.status >= 500:
        return "unknown_error"
    if error.status in (401, 403):
        return "permission_denied"
    return next((code for kind, code in _CODES if isinstance(error, kind)), "invalid_argument")


def params_of(command: Json) -> Json:
    """The ``params`` of a command; empty if they are no object."""
    params = command.get("params")
    return cast("Json", params) if isinstance(params, dict) else {}


class Commands:
    """The commands that need no connection of their own."""

    def __init__(self, runs: RunCommands, states: StateCommands) -> None:
        self._handlers: dict[str, Handler] = {
            "run.start": self._pair(runs.start),
            "input.respond": self._pair(runs.respond),
            "agent.getTree": self._tree(runs),
            "state.get": self._alone(states.get),
            "state.listCheckpoints": self._alone(states.list_checkpoints),
            "state.fork": self._pair(runs.fork),
            "input.inject": self._alone(states.inject),
        }

    async def answer(
        self, context: Context, command: Json, seq_of: Callable[[int | None], Awaitable[int]]
    ) -> Json:
        """Do a command, and answer it. ``seq_of`` gives the answer's ``applied_through_seq``."""
        id, method = command["id"], command["method"]
        try:
            handler = self._handlers.get(method)
            if handler is None:
                raise CommandError("unknown_command", f"Unknown protocol command: {method}")
            result = await handler(context, params_of(command))
            return success_json(id, result.value, await seq_of(result.seq_before))
        except CommandError as error:
            return error_json(id, error.code, str(error))
        except RequestError as error:
            return error_json(id, code_of(error), str(error))
        except Exception:
            logger.exception("unhandled error", method=method, request_id=context.request_id)
            text = f"Internal error. The server's log tells more of request {context.request_id}"
            return error_json(id, "unknown_error", text)

    @staticmethod
    def _alone(do: Callable[[Context, Json], Awaitable[Json]]) -> Handler:
        async def handle(context: Context, params: Json) -> Result:
            return Result(await do(context, params))

        return handle

    @staticmethod
    def _pair(do: Callable[[Context, Json], Awaitable[tuple[Json, int]]]) -> Handler:
        async def handle(context: Context, params: Json) -> Result:
            return Result(*await do(context, params))

        return handle

    @staticmethod
    def _tree(runs: RunCommands) -> Handler:
        async def handle(context: Context, params: Json) -> Result:
            tree = await runs.tree(context)
            if tree is None:
                raise CommandError("no_such_run", "No active run is bound to this thread.")
            return Result({"tree": tree})

        return handle
