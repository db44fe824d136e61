"""The commands that start runs or look at them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast, get_args

import msgspec
from msgspec import UNSET

from treadle.errors import Invalid
from treadle.runs.answering import NoInterruptedRun
from treadle.runs.models import CommandRun, MultitaskStrategy, RunConfig
from treadle.serialization import excerpt
from treadle.streaming.log import EventHub
from treadle.streaming.protocol.tree import last_tree

if TYPE_CHECKING:
    from treadle.runs.service import RunService
    from treadle.streaming.protocol.commands import Context

Json = dict[str, Any]

MODES = ["values", "updates", "messages", "tools", "lifecycle", "custom", "tasks", "checkpoints"]
"""The stream modes of a command's run, as it shows them."""

MARK = "__event_streaming_v2"
STRATEGIES = get_args(MultitaskStrategy)


class RunCommands:
    """``start``, ``respond`` and ``fork`` give a result, and the number of the last event before
    all that they bring about."""

    def __init__(self, runs: RunService, hub: EventHub) -> None:
        self._runs, self._hub = runs, hub

    async def start(self, context: Context, params: Json) -> tuple[Json, int]:
        """``run.start``"""
        assistant_id = params.get("assistant_id")
        if not isinstance(assistant_id, str) or not assistant_id:
            raise Invalid("run.start requires an assistant_id.")
        strategy = params.get("multitaskStrategy", params.get("multitask_strategy"))
        body = _body(
            params,
            assistant_id,
            input=params.get("input"),
            multitask_strategy=strategy if strategy in STRATEGIES else "enqueue",
        )
        return await self._create(context, body)

    async def respond(self, context: Context, params: Json) -> tuple[Json, int]:
        """``input.respond``"""
        answers = _answers(params)
        command: Json = {
            key: params[key] for key in ("update", "goto") if params.get(key) is not None
        }
        if "update" in command and not isinstance(command["update"], dict):
            raise Invalid(f"update must be an object, not {excerpt(command['update'])}")
        assistant_id = await self._runs.assistant_of(context.caller, context.thread_id)
        if assistant_id is None:
            raise NoInterruptedRun("No interrupted run is bound to this thread.")
        body = _body(params, assistant_id, command=command or None, answers=answers)
        _, seq = await self._create(context, body)
        return {}, seq

    async def fork(self, context: Context, params: Json) -> tuple[Json, int]:
        """``state.fork``: a run of the thread's assistant from an older checkpoint."""
        checkpoint_id = params.get("checkpoint_id")
        if not isinstance(checkpoint_id, str) or not checkpoint_id:
            raise Invalid("state.fork requires a checkpoint_id.")
        assistant_id = await self._runs.assistant_of(context.caller, context.thread_id)
        if assistant_id is None:
            raise NoInterruptedRun("No run is bound to this thread.")
        body = _body(params, assistant_id, input=params.get("input"), checkpoint_id=checkpoint_id)
        result, seq = await self._create(context, body)
        return {**result, "thread_id": context.thread_id}, seq

    async def tree(self, context: Context) -> Json | None:
        """``agent.getTree``: None if no run of the thread is known."""
        await self._runs.may_watch(context.caller, context.thread_id)
        return await last_tree(self._hub, context.thread_id)

    async def _create(self, context: Context, body: CommandRun) -> tuple[Json, int]:
        created = await self._runs.create(
            context.caller, context.request_id, context.thread_id, body
        )
        return {"run_id": created.run_id}, created.seq_before


def _body(params: Json, assistant_id: str, **fields: Any) -> CommandRun:
    metadata = params.get("metadata")
    if metadata is not None and not isinstance(metadata, dict):
        raise Invalid(f"metadata must be an object, not {excerpt(metadata)}")
    return CommandRun(
        assistant_id=assistant_id,
        config=_config(params.get("config")),
        metadata=UNSET if metadata is None else cast("Json", metadata),
        stream_mode=cast("Any", MODES),
        stream_subgraphs=True,
        stream_resumable=True,
        if_not_exists="create",
        **fields,
    )


def _config(given: Any) -> RunConfig:
    if given is None:
        given = {}
    if not isinstance(given, dict):
        raise Invalid(f"config must be an object, not {excerpt(given)}")
    fields = {key: value for key, value in cast("Json", given).items() if value is not None}
    try:
        config = msgspec.convert(fields, RunConfig)
    except msgspec.ValidationError as error:
        raise Invalid(f"config: {error}") from None
    configurable = {} if config.configurable is UNSET else config.configurable
    return msgspec.structs.replace(config, configurable={**configurable, MARK: True})


def _answers(params: Json) -> Json:
    """The answers to interrupts, by their ids."""
    if "responses" not in params:
        interrupt_id = params.get("interrupt_id")
        if not isinstance(interrupt_id, str):
            raise Invalid("input.respond requires an interrupt_id.")
        return {interrupt_id: params.get("response")}
    responses = params["responses"]
    if not isinstance(responses, list):
        raise Invalid("input.respond requires an interrupt_id.")
    if not responses:
        raise Invalid("input.respond requires at least one response.")
    answers: Json = {}
    for response in cast("list[Any]", responses):
        interrupt_id = cast("Json", response).get("interrupt_id") if _is_object(response) else None
        if not isinstance(interrupt_id, str):
            raise Invalid("input.respond responses entries require an interrupt_id.")
        answers[interrupt_id] = response.get("response")
    return answers


def _is_object(value: Any) -> bool:
    return isinstance(value, dict)
