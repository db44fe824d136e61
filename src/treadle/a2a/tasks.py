"""Tasks as clients see them: their state, their history, their artifacts; in the words of 0.3."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Literal, NamedTuple, cast
from uuid import UUID, uuid5

from treadle.a2a.contexts import Task
from treadle.a2a.messages import mark_of, message_json, messages_of, parts_of, role_of
from treadle.a2a.queries import KWARGS
from treadle.assistants.service import AssistantService
from treadle.auth import Caller
from treadle.clock import iso, now_us
from treadle.database import Database
from treadle.errors import RequestError
from treadle.serialization import dump_text, dumps, loads
from treadle.threads.state import ThreadStates

Json = dict[str, Any]
Scope = Literal["context", "task"]
Values = Callable[[Caller, Task], Awaitable[Any]]


class View(NamedTuple):
    """How much of a task is shown. ``told``: a status also says in words what it means."""

    scope: Scope = "context"
    history_length: int | None = None
    artifacts: bool = True
    told: bool = False


class Tasks:
    """Puts tasks together from what their runs have left."""

    def __init__(
        self, database: Database, states: ThreadStates, assistants: AssistantService
    ) -> None:
        self._database, self._states, self._assistants = database, states, assistants

    async def show(self, caller: Caller, task: Task, view: View) -> Json:
        """A task as it is now."""
        values = await self._values(caller, task)
        output = values
        if view.artifacts and task.state == "completed":
            output = await self._output(caller, task, values)
        return task_json(task, values, view, output)

    async def _output(self, caller: Caller, task: Task, values: Any) -> Any:
        """What of the values is the output of the task's graph."""
        if not isinstance(values, dict):
            return values
        try:
            names = await self._assistants.output_names(caller, task.last["assistant_id"])
        except RequestError:  # its graph is not served any more
            return values
        if names is None:
            return values
        return {name: value for name, value in cast("Json", values).items() if name in names}

    async def _values(self, caller: Caller, task: Task) -> Any:
        """The values that the task's last run has left.

        While it is in flight, those that it starts from, with its message.
        """
        if task.last["status"] in ("pending", "running"):
            return await self._values_to_be(task)
        if task.is_newest:
            return task.context.values
        try:
            states = await self._states.history(
                caller,
                task.context.thread_id,
                limit=1,
                metadata={"run_id": task.last["run_id"]},
                select=["values"],
            )
        except RequestError:  # its graph is not served any more
            return None
        return loads(dumps(states[0]["values"])) if states else None

    async def _values_to_be(self, task: Task) -> Any:
        place = {"run_id": task.last["run_id"], "thread_id": task.context.thread_id}
        row = await self._database.read_one(KWARGS, place)
        given = messages_of(loads(row["kwargs"])["input"]) if row is not None else []
        there = messages_of(task.context.values)
        known = [message.get("id") for message in there]
        new = [
            {**message, "type": message.get("type", message.get("role"))}
            for message in given
            if message.get("id") not in known
        ]
        return {"messages": [*there, *new]}


def task_json(task: Task, values: Any, view: View, output: Any) -> Json:
    """A task whose last run has left these values, of which ``output`` is meant for others."""
    shown: Json = {"kind": "task", "id": task.id, "contextId": task.context.thread_id}
    if view.history_length != 0:
        shown["history"] = _history(task, values, view)
    shown["status"] = status_json(task, view.told)
    if found := artifacts_of(task, output) if view.artifacts else []:
        shown["artifacts"] = found
    return shown


def submitted_json(task_id: str, context_id: str, message: Json) -> Json:
    """A task that has just begun."""
    return {
        "kind": "task",
        "id": task_id,
        "contextId": context_id,
        "history": [message],
        "status": {"state": "submitted", "timestamp": iso(now_us())},
    }


# -- status ------------------------------------------------------------------------------------


def status_json(task: Task, told: bool) -> Json:
    """The status of a task. Of an error its class is told, and never its text."""
    status: Json = {"state": task.state, "timestamp": task.timestamp}
    if (text := _in_words(task, told)) is not None:
        parts = [{"kind": "text", "text": text}]
        message_id = _derived(task.last["run_id"], task.state)
        status["message"] = message_json(
            "agent", parts, message_id, task.id, task.context.thread_id
        )
    return status


def _in_words(task: Task, told: bool) -> str | None:
    match task.state:
        case "failed" if told:
            return f"Task failed with status: {task.last['status']}"
        case "failed":
            error: Json = loads(task.last["error"] or "{}")
            return f"Error executing assistant: {error.get('error', 'Exception')}"
        case "canceled":
            return "Task was canceled"
        case "completed" if told:
            return "Task completed successfully"
        case _:
            return None


# -- history -----------------------------------------------------------------------------------


def _history(task: Task, values: Any, view: View) -> list[Json]:
    """The newest messages of the context or of the task, each with the task that it belongs to."""
    context = task.context
    history: list[Json] = []
    owner = task.id
    for number, message in enumerate(messages_of(values)):
        role, mark, parts = role_of(message), mark_of(message), parts_of(message)
        if role == "user" and not parts:
            parts = [{"kind": "text", "text": ""}]
        if mark is not None or role == "user":
            owner = context.task_id_of(mark) or task.id
        if role is None or not parts or (view.scope == "task" and owner != task.id):
            continue
        message_id = message.get("id")
        if not isinstance(message_id, str):
            message_id = _derived(task.run_id, f"message {number}")
        history.append(message_json(role, parts, message_id, owner, context.thread_id))
    return history if view.history_length is None else history[-view.history_length :]


# -- artifacts ---------------------------------------------------------------------------------


def artifacts_of(task: Task, output: Any) -> list[Json]:
    """What a task asks, or what it has come to."""
    if task.state == "input-required":
        asked = [
            {"kind": "data", "data": {"id": question.get("id"), "value": question.get("value")}}
            for question in task.context.questions
        ]
        about = "Agent requires input to continue"
        return [_artifact(task, "Interrupt", about, asked)] if asked else []
    if task.state != "completed":
        return []
    parts = _reply(output) or _rest(output)
    about = f"Response from assistant {task.last['assistant_id']}"
    return [_artifact(task, "Assistant Response", about, parts)] if parts else []


def _artifact(task: Task, name: str, description: str, parts: Sequence[Json]) -> Json:
    return {
        "artifactId": _derived(task.last["run_id"], name),
        "name": name,
        "description": description,
        "parts": [*parts],
    }


def _reply(output: Any) -> list[Json]:
    """The last thing that the agent has said since it was spoken to."""
    for message in reversed(messages_of(output)):
        role, parts = role_of(message), parts_of(message)
        if role == "user" or mark_of(message) is not None:
            break
        if role == "agent" and parts:
            return parts
    return []


def _rest(output: Any) -> list[Json]:
    """What the graph has come to, beside its messages, as JSON."""
    if isinstance(output, dict) and "messages" in output:
        output = {key: value for key, value in output.items() if key != "messages"}  # pyright: ignore
    return [{"kind": "text", "text": dump_text(output)}] if output not in (None, {}) else []


def _derived(run_id: str, name: str) -> str:
    """An id that is the same whenever the task is shown."""
    return str(uuid5(UUID(run_id), name))
