"""What a command gives a graph, and what of it an earlier attempt has kept already."""

from __future__ import annotations

import re
from typing import Any, cast

from langgraph.checkpoint.serde.types import RESUME
from langgraph.constants import END
from langgraph.types import StateSnapshot

from treadle.checkpoints.custom import CustomRunSaver
from treadle.checkpoints.kept import NOTHING_KEPT
from treadle.checkpoints.run_saver import RunSaver
from treadle.errors import TreadleError
from treadle.graphs.registry import Graph
from treadle.runs.merging import graph_command
from treadle.runs.updates import NULL_TASK_ID, check_update

Json = dict[str, Any]

_INTERRUPT_ID = re.compile("[0-9a-f]{32}")


class UnknownInterruptError(TreadleError):
    """A strict resume names an interrupt that is not open."""


class CommandInput:
    """What one attempt of a run gives ``graph`` for the run's command.

    langgraph keeps a command's writes with the checkpoint that it starts from, until the step is
    over. An attempt that comes after a crash finds there what an earlier one has done, and
    leaves it out. ``asked`` are the ids of the questions that were open when the run began; None
    on a first attempt, which has nothing to look for. A ``strict`` run answers open ones alone.
    """

    def __init__(
        self,
        graph: Graph,
        saver: RunSaver | CustomRunSaver,
        config: Json,
        *,
        run_id: str,
        strict: bool,
        at_exit: bool,
        asked: set[str] | None,
    ) -> None:
        self._graph, self._saver, self._config = graph, saver, config
        self._run_id, self._strict, self._at_exit = run_id, strict, at_exit
        self._asked = asked

    async def of(self, command: Json) -> Any:
        """The command as langgraph takes it, once the thread is known to have a use for it.

        None if all of it is there already. ``InvalidUpdateError`` and ``UnknownInterruptError``
        are raised before the thread is changed.
        """
        latest = await self._saver.aget_tuple(cast("Any", self._config))
        resume = command.get("resume")
        if latest is None:
            if resume is not None:
                raise ValueError("command.resume: the thread has no checkpoint to resume from")
            if not command.get("goto"):
                raise ValueError(
                    "command: the thread has no checkpoint yet; start it with input instead"
                )
            return graph_command(command)
        checkpoint_id, pending = latest.checkpoint["id"], latest.pending_writes or []
        kept = NOTHING_KEPT
        if self._asked is not None:
            kept = await self._saver.kept(checkpoint_id, self._run_id)
        if kept.writes:
            if resume is None:
                return None
            command = {}
        elif any(task_id == NULL_TASK_ID for task_id, *_ in pending) and await self._fold():
            pending = []
        check_update(self._graph, pending, command.get("update"))
        if isinstance(resume, dict) and all(map(_INTERRUPT_ID.fullmatch, resume)):
            resume = await self._answers(cast("Json", resume))
        elif resume is not None:
            crossed_out = any(
                write[:2] == (NULL_TASK_ID, RESUME) and write[2] is None for write in pending
            )
            resume = await self._answer(checkpoint_id, resume, kept.answer and crossed_out)
        return graph_command({**command, "resume": resume})

    async def _answer(self, checkpoint_id: str, answer: Any, taken: bool) -> Any:
        """An answer to the next question; to none if it has been taken."""
        if self._strict and isinstance(answer, dict):
            self._check(cast("Json", answer), await self._open())
        if taken:
            return {}
        self._saver.watch_answer(checkpoint_id, self._run_id, answer, at_exit=self._at_exit)
        return answer

    async def _answers(self, answers: Json) -> Json:
        """Answers by the ids of questions, without those that have been taken."""
        if answers and not self._strict and self._asked is None:
            return answers
        waiting = await self._open()
        known = waiting if self._asked is None else sorted(self._asked | set(waiting))
        if not answers:
            first = waiting if not self._asked else list(self._asked)
            answers = {first[0]: {}} if len(first) == 1 else {}
        elif self._strict:
            self._check(answers, known)
        taken = set(known).difference(waiting)
        return {key: answer for key, answer in answers.items() if key not in taken}

    def _check(self, answers: Json, known: list[str]) -> None:
        if unknown := [key for key in answers if key not in known]:
            raise UnknownInterruptError(
                f"command.resume names {unknown[0]!r}; the open interrupts are {known}"
            )

    async def _open(self) -> list[str]:
        """The ids of the questions that are open."""
        again = self._asked is not None
        return _open_in(await self._graph.aget_state(cast("Any", self._config), subgraphs=again))

    async def _fold(self) -> bool:
        """Make a checkpoint of what an earlier command wrote to a thread that had ended.

        langgraph keeps the writes of both commands on one checkpoint, and a channel that takes
        one value at a step could then never be read again. The checkpoint is not this run's:
        what it holds was there before, and whoever finds it has the command still to apply.
        """
        snapshot = await self._graph.aget_state(cast("Any", self._config))
        configurable: Json = self._config["configurable"]
        if snapshot.next or "checkpoint_id" in configurable:
            return False
        config = {
            **{key: value for key, value in self._config.items() if key != "run_id"},
            "configurable": {k: v for k, v in configurable.items() if k != "run_id"},
            "metadata": {k: v for k, v in self._config["metadata"].items() if k != "run_id"},
        }
        await self._graph.aupdate_state(cast("Any", config), None, as_node=END)
        return True


def _open_in(snapshot: StateSnapshot) -> list[str]:
    """The ids of open questions. What a subgraph asks it knows before the graph around it does."""
    found: list[str] = []
    for task in snapshot.tasks:
        below = _open_in(task.state) if isinstance(task.state, StateSnapshot) else []
        found += below or [interrupt.id for interrupt in task.interrupts]
    return found
