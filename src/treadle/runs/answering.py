"""What a command's run starts from: its input, or the answers to open interrupts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from treadle.database import Row, Transaction
from treadle.errors import NotFound
from treadle.runs import queries
from treadle.runs.driving import MAY_ANSWER
from treadle.runs.merging import given
from treadle.runs.models import CommandRun, RunConfig
from treadle.serialization import loads
from treadle.streaming import queries as event_queries
from treadle.streaming.protocol.envelope import INPUT_REQUESTED, PROTOCOL, SEPARATOR

Json = dict[str, Any]


class NoInterruptedRun(NotFound):
    """Nothing on the thread can have asked for input."""


class UnknownInterrupt(NotFound):
    """An answer to what was not asked, or has been answered."""

    def __init__(self, interrupt_id: str) -> None:
        super().__init__(f"Unknown or already-consumed interrupt: {interrupt_id}")
        self.interrupt_id = interrupt_id


async def aimed(transaction: Transaction, body: CommandRun, row: Row | None) -> CommandRun:
    """``body`` with the command that it comes to, now that its thread is known.

    Raises ``NoInterruptedRun`` and ``UnknownInterrupt``.
    """
    if body.answers is not None:
        if row is None:
            raise NoInterruptedRun("No interrupted run is bound to this thread.")
        await _check_open(transaction, body.answers, row)
        return msgspec.structs.replace(body, command={**(body.command or {}),
                                                      "resume": body.answers})  # fmt: skip
    if body.input is None or row is None:
        return body
    if row["status"] == "busy":  # known when the runs before it have ended
        return _with_configurable(body, {MAY_ANSWER: True})
    if _open_ids(row):
        return msgspec.structs.replace(body, input=None, command={"resume": body.input})
    return body


async def _check_open(transaction: Transaction, answers: Json, row: Row) -> None:
    """Refuse answers to interrupts that are not open, or that a run in flight answers.

    A run that goes on may have told of its interrupts already.
    """
    waiting = set(_open_ids(row))
    in_flight = {"thread_id": row["thread_id"]}
    for run in await transaction.fetch_all(queries.IN_FLIGHT, in_flight):
        waiting -= set(_answered(loads(run["kwargs"]), waiting))
        for interrupt_id in answers:
            if run["status"] == "running" and await _is_asked(transaction, run, interrupt_id):
                waiting.add(interrupt_id)
    for interrupt_id in answers:
        if interrupt_id not in waiting:
            raise UnknownInterrupt(interrupt_id)


async def _is_asked(transaction: Transaction, run: Row, interrupt_id: str) -> bool:
    asked = {
        "run_id": run["run_id"],
        "kind": PROTOCOL,
        "interrupt_id": interrupt_id,
        "name": INPUT_REQUESTED,
        "below": f"{INPUT_REQUESTED}{SEPARATOR}%",
    }
    return await transaction.fetch_one(event_queries.IS_ASKED, asked) is not None


def _answered(kwargs: Json, waiting: set[str]) -> Sequence[str]:
    """Which of the open interrupts a run in flight answers."""
    resume = (kwargs["command"] or {}).get("resume")
    if resume is None:
        return ()
    if isinstance(resume, dict) and (named := [key for key in waiting if key in resume]):
        return named
    return tuple(waiting)


def _open_ids(row: Row) -> list[str]:
    waiting: dict[str, list[Json]] = loads(row["interrupts"] or "{}")
    return [interrupt["id"] for asked in waiting.values() for interrupt in asked]


def _with_configurable(body: CommandRun, more: Json) -> CommandRun:
    config = body.config if isinstance(body.config, RunConfig) else RunConfig()
    configurable = {**(given(config.configurable) or {}), **more}
    return msgspec.structs.replace(
        body, config=msgspec.structs.replace(config, configurable=configurable)
    )
