"""Whether a thread can take the update of a command, beside those that it still holds."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, cast

from langgraph.channels.base import BaseChannel
from langgraph.errors import InvalidUpdateError

from treadle.graphs.registry import Graph

NULL_TASK_ID = "00000000-0000-0000-0000-000000000000"
"""The task under which langgraph keeps what a command wrote."""


def check_update(graph: Graph, pending_writes: Iterable[tuple[str, str, Any]], update: Any) -> None:
    """Raise ``InvalidUpdateError`` if langgraph could not apply ``update``.

    It keeps the updates of commands with the checkpoint at which a question was asked, until
    nothing waits there any more, and takes them as one step. With two of a key that takes one
    value a step, the state could never be read again: the thread would be lost.
    """
    if not update:
        return
    pairs: Sequence[Any] = list(update.items()) if isinstance(update, dict) else update
    values: dict[str, list[Any]] = {}
    for key, value in cast("Sequence[tuple[str, Any]]", pairs):
        values.setdefault(key, []).append(value)
    for task_id, key, value in pending_writes:
        if task_id == NULL_TASK_ID and key in values:
            values[key].insert(-1, value)
    for key, several in values.items():
        channel = graph.channels.get(key)
        if isinstance(channel, BaseChannel) and len(several) > 1:
            try:
                cast("BaseChannel[Any, Any, Any]", channel).copy().update(several)
            except InvalidUpdateError as error:
                raise InvalidUpdateError(
                    f"command.update: {key!r} takes one value a step, and got {len(several)}, with"
                    " what earlier commands gave it while the thread waits for an answer. Leave it"
                    " out until all is answered, or give the key a reducer"
                ) from error
