"""From a message to a run: one that begins a task, or one that goes on with a task that waits."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

from treadle.a2a.contexts import (
    Contexts,
    Task,
    continued_mark,
    next_mark,
    parse_context_id,
    start_mark,
)
from treadle.a2a.errors import UNSUPPORTED_OPERATION, RpcError, invalid, refusal
from treadle.a2a.messages import Incoming
from treadle.a2a.notifications import Config, Notifications
from treadle.a2a.queries import SET_METADATA, THREAD_LOCKED
from treadle.assistants.models import Assistant
from treadle.auth import Caller
from treadle.database import Transaction
from treadle.errors import RequestError
from treadle.ids import new_id
from treadle.runs.created import Created, Impulse
from treadle.runs.models import RunCreate
from treadle.runs.service import RunService, Watch
from treadle.serialization import dump_text

Json = dict[str, Any]

Claim = Callable[[Transaction], Awaitable[None]]

ATTEMPTS = 5


class _Answered(Exception):
    """The task that waited has been answered meanwhile, or has been taken elsewhere."""


@dataclass(frozen=True)
class Sent:
    """A run that a message has brought about, and the task that it belongs to."""

    created: Created
    task_id: str
    message: Json
    """The message as the task's history has it."""

    @property
    def context_id(self) -> str:
        return self.created.thread_id


class Wanted(NamedTuple):
    """Whose run of which assistant is wanted, and who watches it."""

    caller: Caller
    request_id: str
    assistant: Assistant
    watch: Watch


class Sending:
    """Makes runs of messages."""

    def __init__(self, runs: RunService, contexts: Contexts, notifications: Notifications) -> None:
        self._runs, self._contexts = runs, contexts
        self._notifications = notifications

    async def send(
        self,
        caller: Caller,
        request_id: str,
        assistant: Assistant,
        incoming: Incoming,
        watch: Watch,
        config: Config | None = None,
    ) -> Sent:
        """Accept a message; ``config`` is told of its task.

        Raises an ``RpcError`` if it cannot be taken.
        """
        wanted = Wanted(caller, request_id, assistant, watch)
        for _ in range(ATTEMPTS):
            waiting = await self._waiting(caller, assistant, incoming)
            try:
                if waiting is None:
                    return await self._begin(wanted, incoming, config)
                return await self._go_on(wanted, incoming, config, waiting)
            except _Answered:
                continue
            except RequestError as error:
                raise refusal(error, "Failed to create run") from None
        raise RpcError(UNSUPPORTED_OPERATION, "The task is being answered by others. Try again.")

    async def _waiting(
        self, caller: Caller, assistant: Assistant, incoming: Incoming
    ) -> Task | None:
        """The task that the message answers; None if it begins one."""
        if incoming.task_id is not None:
            task = await self._contexts.find(
                caller, assistant.assistant_id, incoming.task_id, incoming.context_id
            )
            if task.is_terminal:
                text = "A terminal task cannot accept another message"
                raise RpcError(UNSUPPORTED_OPERATION, text)
            if not task.waits:
                text = f"Task {task.id} is {task.state}: it takes a message once it asks for input"
                raise RpcError(UNSUPPORTED_OPERATION, text)
            return task
        if incoming.context_id is None:
            return None
        context = await self._contexts.read(caller, parse_context_id(incoming.context_id))
        task = None if context is None else context.waiting
        return task if task and task.last["assistant_id"] == assistant.assistant_id else None

    async def _begin(self, wanted: Wanted, incoming: Incoming, config: Config | None) -> Sent:
        context_id = incoming.context_id
        thread_id = new_id() if context_id is None else parse_context_id(context_id)
        start = new_id()
        body = _run(wanted, start_mark(start), input=incoming.graph_input(start))

        async def keep_config(transaction: Transaction) -> None:
            if config is not None:
                await self._notifications.put_in(transaction, start, thread_id, config)

        created = await self._create(wanted, thread_id, body, config and keep_config)
        task_id = f"{thread_id}:{created.run_id}"
        return Sent(created, task_id, incoming.wire(task_id, thread_id))

    async def _go_on(
        self, wanted: Wanted, incoming: Incoming, config: Config | None, task: Task
    ) -> Sent:
        """Answer the questions of a task, if nobody has answered them at the moment of that."""
        asked = task.context.interrupts
        thread_id = task.context.thread_id
        body = _run(wanted, next_mark(task), command={"resume": _answer(incoming, task)})

        async def claim(transaction: Transaction) -> None:
            thread = await transaction.fetch_one(THREAD_LOCKED, {"thread_id": thread_id})
            if thread is None or thread["status"] != "interrupted" or thread["interrupts"] != asked:
                raise _Answered
            metadata = dump_text(continued_mark(task))
            await transaction.send(
                SET_METADATA, {"run_id": task.last["run_id"], "metadata": metadata}
            )
            if config is not None and task.start_id is not None:
                await self._notifications.put_in(transaction, task.start_id, thread_id, config)

        created = await self._create(wanted, thread_id, body, claim)
        return Sent(created, task.id, incoming.wire(task.id, thread_id))

    async def _create(
        self, wanted: Wanted, thread_id: str, body: RunCreate, claim: Claim | None
    ) -> Created:
        impulse = None if claim is None else Impulse({}, claim)
        return await self._runs.create(
            wanted.caller, wanted.request_id, thread_id, body, wanted.watch, impulse=impulse
        )


def _answer(incoming: Incoming, task: Task) -> Any:
    """What the run resumes with: one answer, or answers by the ids of what was asked."""
    questions = task.context.questions
    if len(questions) > 1:
        ids = {question["id"] for question in questions}
        if incoming.blocks or not incoming.data or not incoming.data.keys() <= ids:
            raise invalid(
                f"Task {task.id} asks {len(ids)} questions: answer with a data part that has their"
                f" ids as keys: {sorted(ids)}"
            )
    return incoming.answer


def _run(wanted: Wanted, metadata: Any, **what: Any) -> RunCreate:
    return RunCreate(
        assistant_id=wanted.assistant.assistant_id,
        metadata=metadata,
        if_not_exists="create",
        stream_mode="messages-tuple",
        stream_resumable=True,
        **what,
    )
