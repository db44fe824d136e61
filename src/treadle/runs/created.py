"""What is known of a run that was accepted, and what may ask for one beside a request."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

from treadle.auth.callers import ATTRIBUTES, shown_kwargs
from treadle.clock import iso
from treadle.database import Row, Transaction
from treadle.runs.merging import attempt_metadata
from treadle.serialization import fragment, loads
from treadle.streaming.log import Reader

Json = dict[str, Any]
_FIELDS = dict[str, msgspec.Raw]


@dataclass(frozen=True)
class Impulse:
    """What starts a run where no client asks for it.

    ``configurable`` goes over the run's own. ``claim`` is a part of the transaction that makes the
    run: what it raises keeps the run from being made, and comes out of ``RunService.create``.
    """

    configurable: Mapping[str, Any]
    claim: Callable[[Transaction], Awaitable[None]]


def run_json(row: Row) -> Json:
    """A row of runs as answers show it."""
    return _run_json(row, shown_kwargs(row["kwargs"]))


def _run_json(row: Row, kwargs: Any) -> Json:
    return {
        "run_id": row["run_id"],
        "thread_id": row["thread_id"],
        "assistant_id": row["assistant_id"],
        "created_at": iso(row["created_at"]),
        "updated_at": iso(row["updated_at"]),
        "status": row["status"],
        "metadata": fragment(row["metadata"]),
        "kwargs": kwargs,
        "multitask_strategy": row["multitask_strategy"],
        "langsmith_session_name": None,
    }


def started_run_json(row: Row, url: str | None) -> Json:
    """``run_json`` of a stored run, whose config tells of its attempt once there was one."""
    if not row["attempt"]:
        return run_json(row)
    kwargs: dict[str, msgspec.Raw] = msgspec.json.decode(row["kwargs"], type=_FIELDS)
    config: Json = loads(bytes(kwargs["config"]))
    config["configurable"].pop(ATTRIBUTES, None)
    config["metadata"].update(attempt_metadata(row["attempt"] - row["handed_back"], url))
    fields = {key: fragment(bytes(value)) for key, value in kwargs.items()}
    return _run_json(row, {**fields, "config": config})


class Created:
    """A run that was accepted, and a reader of its thread's log.

    The reader is from before the run began, but for a run that an earlier request with the same
    idempotency key made; ``ended`` is the row of such a run that has ended already.
    ``seq_before`` is the number of the last event before a command's run and all it brought.
    """

    __slots__ = ("ended", "json", "reader", "repeated", "resumable", "run_id", "seq_before",
                 "stateless", "thread_id")  # fmt: skip

    def __init__(
        self,
        json: Json,
        stateless: bool,
        resumable: bool,
        reader: Reader | None,
        *,
        repeated: bool = False,
        ended: Row | None = None,
        seq_before: int = 0,
    ) -> None:
        self.seq_before = seq_before
        self.json, self.stateless, self.resumable, self.reader = json, stateless, resumable, reader
        self.repeated, self.ended = repeated, ended
        self.run_id: str = json["run_id"]
        self.thread_id: str = json["thread_id"]
