"""What a run is made of: the assistant's configuration, the thread's metadata, the request.

Precedence, key by key: configurable is assistant < run < the server's own keys; metadata is
assistant < thread < ``config.metadata`` < the run's ``metadata``; tags and recursion limit of
the run replace the assistant's.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from importlib.metadata import version
from typing import Any, cast

from langgraph.types import Command, Send
from msgspec import UnsetType

from treadle import __version__
from treadle.assistants.models import Assistant
from treadle.auth import Caller
from treadle.auth.callers import run_auth_configurable, without_auth_keys
from treadle.errors import Invalid, NotFound, Refused
from treadle.graphs.registry import Graph
from treadle.ids import parse_id
from treadle.runs.models import RunConfig, RunCreate, StatelessRunCreate

BOTH_GIVEN = (
    "Cannot specify both configurable and context. Prefer setting context alone. "
    "Context was introduced in LangGraph 0.6.0 and is the long term planned replacement for "
    "configurable."
)
ORIGIN = "__origin__"
"""A key in the configurable of runs: the trace that the run belongs to, if there is one."""
LANGGRAPH_VERSION = version("langgraph")
NAMES_THREAD = "__names_thread__"
"""A key in the configurable of runs that wait for those of another assistant on their thread."""
CHECKPOINT_KEYS = ("checkpoint_id", "checkpoint_ns", "checkpoint_map")
COMMAND_KEYS = ("resume", "update", "goto")
DEFAULT_MODES = ["values"]


def given(value: Any) -> Any:
    """``value``, or None where the request did not have the field."""
    return None if isinstance(value, UnsetType) else value


def run_metadata(
    body: RunCreate, assistant: Assistant, thread_metadata: Mapping[str, Any]
) -> dict[str, Any]:
    """The metadata of a run; ``thread_metadata`` already names its graph and assistant."""
    config = body.config
    from_config = given(config.metadata) if isinstance(config, RunConfig) else None
    return {
        **assistant.metadata,
        **thread_metadata,
        **(from_config or {}),
        **(given(body.metadata) or {}),
    }


def attempt_metadata(tries: int, url: str | None) -> dict[str, Any]:
    """What ``config.metadata`` has besides once a run has started."""
    return {
        "run_attempt": tries,
        "langgraph_version": LANGGRAPH_VERSION,
        "langgraph_api_version": __version__,
        "langgraph_plan": "self_hosted",
        "langgraph_host": "self-hosted",
        "langgraph_api_url": url,
    }


def thread_config(before: dict[str, Any], assistant: Assistant, body: RunCreate) -> Any:
    """``thread.config`` after a run was accepted: what runs gave, without configurable."""
    config: dict[str, Any] = {**before, **assistant.config, "configurable": {}}
    if isinstance(body.config, RunConfig):
        for key in ("tags", "recursion_limit", "metadata"):
            if (value := given(getattr(body.config, key))) is not None:
                config[key] = value
    return config


def check_context(body: RunCreate) -> None:
    """Refuse a run that brings both a context and a configurable."""
    if (
        given(body.context)
        and isinstance(body.config, RunConfig)
        and given(body.config.configurable)
    ):
        raise Refused(BOTH_GIVEN)


def run_kwargs(
    body: RunCreate,
    assistant: Assistant,
    metadata: dict[str, Any],
    *,
    run_id: str,
    thread_id: str,
    caller: Caller,
    request_id: str,
    configurable: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """``kwargs`` of a run: everything that its execution needs, as answers show it.

    ``configurable`` has keys of the server's own, whatever the request says.
    """
    config = body.config if isinstance(body.config, RunConfig) else RunConfig()
    context = given(body.context) or {}
    merged = without_auth_keys({**assistant.context, **context}) if context else {}
    merged_configurable: dict[str, Any] = (
        merged
        if context
        else without_auth_keys(
            {**assistant.config.get("configurable", {}), **(given(config.configurable) or {})}
        )
    )
    run_config: dict[str, Any] = {
        **{key: value for key, value in assistant.config.items() if key != "configurable"},
        "configurable": {
            "user_id": caller.identity,
            **merged_configurable,
            **named_checkpoint(body),
            **(configurable or {}),
            "run_id": run_id,
            "thread_id": thread_id,
            "graph_id": assistant.graph_id,
            "assistant_id": assistant.assistant_id,
            **run_auth_configurable(caller),
            "langgraph_request_id": request_id,
            "__request_start_time_ms__": time.time_ns() // 1_000_000,
            "__after_seconds__": given(body.after_seconds) or 0,
        },
        "metadata": metadata,
    }
    for key in ("tags", "recursion_limit"):
        if (value := given(getattr(config, key))) is not None:
            run_config[key] = value
    tracer = given(body.langsmith_tracer)
    return {
        **plain_kwargs(body),
        "command": body.command,
        "config": run_config,
        "context": merged,
        "strict_resume": given(body.strict_resume) or False,
        **({"langsmith_tracer": tracer} if tracer else {}),
    }


def plain_kwargs(body: RunCreate) -> dict[str, Any]:
    """What of a run's kwargs depends on nothing but its request."""
    durability = effective_durability(body)
    return {
        "input": body.input,
        "stream_mode": stream_modes(body),
        "interrupt_before": given(body.interrupt_before),
        "interrupt_after": given(body.interrupt_after),
        "webhook": given(body.webhook),
        "feedback_keys": given(body.feedback_keys),
        "temporary": is_temporary(body),
        "subgraphs": given(body.stream_subgraphs) or False,
        "resumable": given(body.stream_resumable) or False,
        "checkpoint_during": durability != "exit",
        "durability": durability,
    }


def effective_durability(body: RunCreate) -> str:
    """When the run's checkpoints are written."""
    if durability := given(body.durability):
        return durability
    return "exit" if given(body.checkpoint_during) is False else "async"


def is_temporary(body: RunCreate) -> bool:
    """Whether the run and its thread go away with the run's end."""
    return isinstance(body, StatelessRunCreate) and given(body.on_completion) != "keep"


def stream_modes(body: RunCreate) -> list[str]:
    """The stream modes that were asked for, each once; ``values`` if none was."""
    modes = given(body.stream_mode)
    if modes is None:
        return DEFAULT_MODES
    listed: list[str] = [modes] if isinstance(modes, str) else list(dict.fromkeys(modes))
    return listed or DEFAULT_MODES


def named_checkpoint(body: RunCreate) -> dict[str, Any]:
    """The place in the thread's history from which a run starts, as configurable keys."""
    found: dict[str, Any] = {}
    if isinstance(body.config, RunConfig):
        configurable = {**(given(body.config.configurable) or {}), "checkpoint_id": None}
        found |= _address(configurable, "config.configurable")
    found |= _address(given(body.checkpoint) or {}, "checkpoint")
    if (checkpoint_id := given(body.checkpoint_id)) is not None:
        found["checkpoint_id"] = checkpoint_id
    if "checkpoint_id" in found:
        found["checkpoint_id"] = parse_id(found["checkpoint_id"], "checkpoint")
    return found


def _address(named: Mapping[str, Any], where: str) -> dict[str, Any]:
    """What ``named`` says of a checkpoint. Raises ``Invalid`` for what cannot be part of one."""
    found: dict[str, Any] = {}
    for key, kind, shape in (
        ("checkpoint_id", str, "a string"),
        ("checkpoint_ns", str, "a string"),
        ("checkpoint_map", dict, "an object"),
    ):
        value = named.get(key)
        if value is None:
            continue
        if not isinstance(value, kind):
            raise Invalid(f"{where}.{key} has to be {shape}, not {value!r}")
        found[key] = value
    return found


def start_checkpoint(thread_id: str, configurable: dict[str, Any]) -> dict[str, str] | None:
    """The checkpoint that a run's configurable names to start from, if it names one."""
    checkpoint_id = configurable.get("checkpoint_id")
    if checkpoint_id is None:
        return None
    return {
        "thread_id": thread_id,
        "checkpoint_ns": configurable.get("checkpoint_ns") or "",
        "checkpoint_id": parse_id(checkpoint_id, "checkpoint"),
    }


class UnknownCheckpoint(NotFound):
    """A run is to start from a checkpoint that its thread does not have."""


def unknown_checkpoint(start: dict[str, str]) -> UnknownCheckpoint:
    return UnknownCheckpoint(
        f"Checkpoint {start['checkpoint_id']} not found on thread {start['thread_id']}"
    )


def check_command(command: dict[str, Any] | None, *, stateless: bool = False) -> None:
    """Refuse a command that could do nothing (unknown keys or nulls only), or is none."""
    if not command:
        return
    if not any(key in command for key in COMMAND_KEYS):
        raise Invalid(
            f"command has only unknown keys {sorted(command)}: expected any of {COMMAND_KEYS}"
        )
    goto = command.get("goto")
    targets: list[Any] = goto if isinstance(goto, list) else [] if goto is None else [goto]
    if stateless and command.get("resume") is not None:
        raise Refused(
            "command.resume answers the question of a thread: run it on that thread"
            " (/threads/{thread_id}/runs), a stateless run has none. You must provide a thread_id"
            " when resuming."
        )
    if not targets and command.get("resume") is None and not command.get("update"):
        named = next(key for key in COMMAND_KEYS if key in command)
        nothing = "null" if command[named] is None else "empty"
        raise Invalid(f"command.{named} is {nothing}: give it a value, or leave command out")
    for target in targets:
        if not (isinstance(target, str) or _is_send(target)):
            raise Invalid(
                f"command.goto has {target!r}: expected a node's name, an object with node and"
                " input, or a list of these"
            )
    update = command.get("update")
    if update is not None and not isinstance(update, (dict, list)):
        raise Invalid(
            f"command.update is {update!r}: expected an object, or a list of pairs of key and value"
        )
    if isinstance(update, list):
        for pair in cast("list[Any]", update):
            if not (isinstance(pair, list) and len(cast("list[Any]", pair)) == 2):
                raise Invalid(f"command.update has {pair!r}: expected pairs of key and value")


def _is_send(target: Any) -> bool:
    return isinstance(target, dict) and isinstance(cast("Any", target).get("node"), str)


def goto_nodes(command: dict[str, Any] | None) -> list[str]:
    """The nodes that a command wants to run."""
    goto = (command or {}).get("goto")
    targets: list[Any] = goto if isinstance(goto, list) else [] if goto is None else [goto]
    return [target if isinstance(target, str) else target["node"] for target in targets]


def check_nodes(graph: Graph, kwargs: dict[str, Any]) -> None:
    """Refuse names of nodes that the graph does not have."""
    for field, names in (
        ("interrupt_before", kwargs["interrupt_before"]),
        ("interrupt_after", kwargs["interrupt_after"]),
        ("command.goto", goto_nodes(kwargs["command"])),
    ):
        if isinstance(names, list):
            for name in cast("list[str]", names):
                if name not in graph.nodes and name not in ("*", "__end__"):
                    raise Invalid(
                        f"{field} names the unknown node {name!r}. The nodes of the graph are:"
                        f" {_listed(graph.nodes)}"
                    )


def _listed(names: Iterable[str]) -> str:
    return ", ".join(sorted(name for name in names if not name.startswith("__")))


def graph_command(command: dict[str, Any]) -> Command[Any]:
    """A command of the API as langgraph's."""
    goto = command.get("goto")
    targets: list[Any] = goto if isinstance(goto, list) else [] if goto is None else [goto]
    update = command.get("update")
    if isinstance(update, list):
        update = [tuple(pair) for pair in cast("list[list[Any]]", update)]
    return Command(
        update=update,
        resume=command.get("resume"),
        goto=[
            target if isinstance(target, str) else Send(target["node"], target.get("input"))
            for target in targets
        ],
    )
