"""What an agent is asked to do: each method of the protocol, in the words of 0.3."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, NamedTuple

import msgspec

from treadle.a2a.cards import card_json, input_schema
from treadle.a2a.contexts import CONTINUED, Context, Contexts, Task
from treadle.a2a.dialects import STATE_NAMES
from treadle.a2a.errors import NOT_CANCELABLE, RpcError, invalid, task_not_found
from treadle.a2a.feed import Speech
from treadle.a2a.messages import Incoming, parse_message
from treadle.a2a.notifications import Config, Notifications, parse_config
from treadle.a2a.params import flag_of, history_length, object_of, page_of, task_id_of, text_of
from treadle.a2a.queries import CANCEL_WAITING, TaskSearch
from treadle.a2a.sending import Sending, Sent
from treadle.a2a.tasks import Scope, Tasks, View, status_json, submitted_json
from treadle.assistants.models import Assistant
from treadle.assistants.service import AssistantService
from treadle.auth import Caller, authorize
from treadle.clock import SECOND_US, now_us
from treadle.database import Database, Transaction
from treadle.errors import Conflict, Invalid, NotFound
from treadle.ids import new_id, parse_id
from treadle.runs.outcome import END, GONE_KIND
from treadle.runs.service import RunService
from treadle.runs.streams import replay
from treadle.streaming.log import EventHub, Reader
from treadle.threads.models import StateUpdate
from treadle.threads.service import ThreadService

Json = dict[str, Any]

CANCEL_SECONDS = 30.0
"""How long a cancelled run may take to end before its caller hears that it will."""


@dataclass(frozen=True)
class Ask:
    """Who asks which agent, over which request, and what history they want to see."""

    caller: Caller
    request_id: str
    assistant: Assistant
    scope: Scope
    base_url: str


class Subscription(NamedTuple):
    """What a task's stream begins with, and a reader of what follows unless it has ``ended``."""

    events: list[Json]
    speech: Speech
    reader: Reader
    ended: bool


class A2AService:
    """Assistants as agents, over assistants, threads and runs."""

    def __init__(
        self,
        database: Database,
        assistants: AssistantService,
        threads: ThreadService,
        runs: RunService,
        events: EventHub,
        notifications: Notifications,
    ) -> None:
        self._database, self._assistants = database, assistants
        self._states, self._runs, self._events = threads.states, runs, events
        self._contexts = Contexts(database)
        self._tasks = Tasks(database, threads.states, assistants)
        self._notifications = notifications
        self._sending = Sending(runs, self._contexts, notifications)

    async def assistant(self, caller: Caller, name: str) -> Assistant:
        """The assistant with this id, or the default one of this graph.

        Raises ``Invalid`` for what can be neither, ``NotFound``.
        """
        try:
            return await self._assistants.resolve(name, caller)
        except Invalid:
            raise Invalid("Invalid assistant ID: must be a UUID") from None
        except NotFound:
            raise NotFound(f"Assistant '{name}' not found") from None

    async def card(self, caller: Caller, assistant: Assistant, base_url: str) -> Json:
        """The agent card of an assistant."""
        schema = await input_schema(self._assistants, caller, assistant)
        return card_json(assistant, schema, base_url)

    # -- messages --------------------------------------------------------------------------

    async def send(
        self, ask: Ask, params: Json, is_v1: bool, streams: bool = False
    ) -> tuple[Sent, bool]:
        """Accept a message; whether its sender waits for what comes of it."""
        incoming = parse_message(params)
        configuration = object_of(params, "configuration")
        history_length(configuration)
        where = "configuration."
        waits = flag_of(configuration, "blocking", True, where)
        waits = waits and not flag_of(configuration, "returnImmediately", False, where)
        config = await self._config(configuration, is_v1)
        await self._check_input(ask, incoming)
        watch = "events" if streams else "end" if waits else "nothing"
        sent = await self._sending.send(
            ask.caller, ask.request_id, ask.assistant, incoming, watch, config
        )
        return sent, waits

    async def _config(self, configuration: Json, is_v1: bool) -> Config | None:
        """The push notifications that a send asks for."""
        for key in ("pushNotificationConfig", "taskPushNotificationConfig"):
            if given := object_of(configuration, key):
                return await self._checked(given, is_v1, new_id())
        return None

    async def _checked(self, given: Json, is_v1: bool, default_id: str) -> Config:
        config = parse_config(given, is_v1)
        config = config if config.id else msgspec.structs.replace(config, id=default_id)
        await self._notifications.check(config)
        return config

    async def _check_input(self, ask: Ask, incoming: Incoming) -> None:
        if not incoming.blocks:
            return
        schema = await input_schema(self._assistants, ask.caller, ask.assistant)
        if not schema.takes_messages:
            raise invalid(
                f"Assistant '{ask.assistant.assistant_id}' (graph '{ask.assistant.graph_id}') does"
                " not support A2A conversational messages. Graph input schema must include a"
                " 'messages' field to accept text or file parts. Available input fields:"
                f" {schema.properties}"
            )

    async def outcome(self, ask: Ask, sent: Sent, params: Json) -> Json:
        """The task of a message whose run has ended."""
        task = await self._task(ask, sent.task_id)
        view = View(ask.scope, history_length(object_of(params, "configuration")))
        return await self._tasks.show(ask.caller, task, view)

    async def last_events(self, ask: Ask, task_id: str) -> Sequence[Json]:
        """What the stream of a task ends with: its artifacts, and its status."""
        task = await self._task(ask, task_id)
        shown = await self._tasks.show(ask.caller, task, View(ask.scope, 0))
        about = {"taskId": task.id, "contextId": task.context.thread_id}
        updates: list[Json] = [
            {
                "kind": "artifact-update",
                **about,
                "artifact": artifact,
                "append": False,
                "lastChunk": True,
            }
            for artifact in shown.get("artifacts", ())
        ]
        final = {"kind": "status-update", **about, "status": shown["status"], "final": True}
        return [*updates, final]

    async def _task(self, ask: Ask, task_id: str, context_id: str | None = None) -> Task:
        found = ask.assistant.assistant_id
        return await self._contexts.find(ask.caller, found, task_id, context_id)

    @staticmethod
    def first_event(sent: Sent) -> Json:
        """What the stream of a message begins with."""
        return submitted_json(sent.task_id, sent.context_id, sent.message)

    # -- tasks -----------------------------------------------------------------------------

    async def get(self, ask: Ask, params: Json) -> Json:
        """``tasks/get``"""
        length = history_length(params)
        task = await self._task(ask, *task_id_of(params))
        return await self._tasks.show(ask.caller, task, View(ask.scope, length, told=True))

    async def cancel(self, ask: Ask, params: Json) -> Json:
        """``tasks/cancel``: a task that is at work, or waits for an answer."""
        task_id, context_id = task_id_of(params)
        task = await self._task(ask, task_id, context_id)
        if task.waits:
            await self._cancel_waiting(ask.caller, task)
        elif task.is_terminal:
            raise not_cancelable()
        else:
            await self._cancel_running(ask.caller, task)
        task = await self._task(ask, task.id)
        if task.is_terminal and task.state != "canceled":  # it has ended by itself meanwhile
            raise not_cancelable()
        status = {**status_json(task, told=False)}
        if not task.is_terminal:
            status["state"] = "canceled"
        return {
            "kind": "task",
            "id": task.id,
            "contextId": task.context.thread_id,
            "status": status,
        }

    async def _cancel_running(self, caller: Caller, task: Task) -> None:
        place = task.context.thread_id, task.last["run_id"]
        try:
            reader = await self._runs.cancel_watched(caller, *place, "interrupt")
        except NotFound:
            raise not_cancelable() from None
        try:
            await _end_of(reader, task.last["run_id"])
        finally:
            reader.close()

    async def _cancel_waiting(self, caller: Caller, task: Task) -> None:
        """The task ends, and then its thread asks no more.

        A crash in between leaves a thread that asks for a task that is canceled: the next
        message begins a new one.
        """
        thread_id = task.context.thread_id
        await self._contexts.check_update(caller, task)
        run = {"run_id": task.last["run_id"], "thread_id": thread_id, "now": now_us()}

        async def cancel(transaction: Transaction) -> int:
            return await transaction.execute(CANCEL_WAITING, run)

        if not await self._database.write(cancel, thread_id):
            raise not_cancelable()
        update = StateUpdate(values=None, as_node="__end__")
        try:
            await self._states.update(caller, thread_id, update)
        except Conflict:  # a run is in flight again: what it finds is its own affair
            return

    async def list(self, ask: Ask, params: Json) -> Json:
        """``tasks/list``: newest first, a page at a time."""
        page, length = page_of(params), history_length(params)
        artifacts = flag_of(params, "includeArtifacts", False)
        search = await self._search(ask, params)
        if search is None:
            return {"tasks": [], "totalSize": 0, "pageSize": 0, "nextPageToken": ""}
        limits = {"limit": page.size, "offset": page.offset}
        rows = await self._database.scan(search.page, {**search.params, **limits})
        (count,) = await self._database.scan(search.count, search.params)
        view = View(ask.scope, length, artifacts)
        contexts: dict[str, Context | None] = {}
        tasks: list[Json] = []
        for row in rows:
            thread_id: str = row["thread_id"]
            if thread_id not in contexts:
                contexts[thread_id] = await self._contexts.read(ask.caller, thread_id)
            context = contexts[thread_id]
            if context is not None and (task := context.task(row["run_id"])) is not None:
                tasks.append({"artifacts": [], **await self._tasks.show(ask.caller, task, view)})
        after = page.offset + len(rows)
        return {
            "tasks": tasks,
            "totalSize": count["total"],
            "pageSize": len(tasks),
            "nextPageToken": str(after) if after < count["total"] else "",
        }

    async def _search(self, ask: Ask, params: Json) -> TaskSearch | None:
        """What is searched for; None if nothing can be found."""
        status, context_id = text_of(params, "status"), text_of(params, "contextId")
        state = None
        if status is not None and status != "TASK_STATE_UNSPECIFIED":
            if status not in STATE_NAMES:
                raise invalid(f"Invalid status value: {status[:100]!r}.")
            state = STATE_NAMES[status]
        after = _time_of(params, "statusTimestampAfter")
        thread_id = None
        if context_id is not None:
            try:
                thread_id = parse_id(context_id, "thread")
            except Invalid:
                return None
        wanted = {"metadata": {}, "thread_id": thread_id}
        allowed = await authorize(ask.caller, "threads", "search", wanted)
        return TaskSearch(
            self._database.dialect,
            ask.assistant.assistant_id,
            thread_id=thread_id,
            state=state,
            after_us=after,
            allowed=allowed,
            continued=CONTINUED,
        )

    async def subscribe(self, ask: Ask, params: Json) -> Subscription:
        """``tasks/resubscribe``: the task as it is now, what is being said, and what follows.

        The reader is there before the task is looked at, so nothing is missed between.
        """
        task = await self._task(ask, *task_id_of(params))
        run_id, thread_id = task.last["run_id"], task.context.thread_id
        try:
            reader, _, ended = await self._runs.join(ask.caller, thread_id, run_id, events=True)
        except NotFound:
            raise task_not_found(task.id) from None
        try:
            speech = Speech(run_id, task.id, thread_id)
            task = await self._task(ask, task.id)
            events = [await self._tasks.show(ask.caller, task, View(ask.scope))]
            if ended:
                events += await self.last_events(ask, task.id)
            else:
                events += await self._said(speech, reader)
        except BaseException:
            reader.close()
            raise
        return Subscription(events, speech, reader, ended)

    async def _said(self, speech: Speech, reader: Reader) -> list[Json]:
        """What the agent has said last, up to where a reader begins."""
        said = None
        thread_id = speech.context_id
        async for entry in replay(self._events, thread_id, speech.run_id, 0, reader.start_id):
            said = speech.hear(entry) or said
        return [] if said is None else [said]

    # -- push notifications ----------------------------------------------------------------

    async def set_config(self, ask: Ask, params: Json, is_v1: bool) -> Json:
        """``tasks/pushNotificationConfig/set``"""
        task = await self._task(ask, *task_id_of(params, "taskId"))
        given = params if is_v1 else object_of(params, "pushNotificationConfig")
        config = await self._checked(given, is_v1, task.id)
        await self._contexts.check_update(ask.caller, task)
        await self._notifications.put(task, config)
        return config.json(task.id, is_v1)

    async def get_config(self, ask: Ask, params: Json, is_v1: bool) -> Json:
        """``tasks/pushNotificationConfig/get``"""
        task, config_id = await self._named_config(ask, params, is_v1)
        return (await self._notifications.get(task, config_id)).json(task.id, is_v1)

    async def list_configs(self, ask: Ask, params: Json, is_v1: bool) -> Json | list[Json]:
        """``tasks/pushNotificationConfig/list``"""
        task = await self._task(ask, *task_id_of(params, "taskId" if is_v1 else "id"))
        found = await self._notifications.list(task)
        listed = [config.json(task.id, is_v1) for config in found]
        return {"configs": listed, "nextPageToken": ""} if is_v1 else listed

    async def delete_config(self, ask: Ask, params: Json, is_v1: bool) -> Json | None:
        """``tasks/pushNotificationConfig/delete``"""
        task, config_id = await self._named_config(ask, params, is_v1)
        if config_id is None:
            key = "id" if is_v1 else "pushNotificationConfigId"
            raise invalid(f"Missing required parameter: {key}")
        await self._contexts.check_update(ask.caller, task)
        await self._notifications.remove(task, config_id)
        return {} if is_v1 else None

    async def _named_config(self, ask: Ask, params: Json, is_v1: bool) -> tuple[Task, str | None]:
        task_key, key = ("taskId", "id") if is_v1 else ("id", "pushNotificationConfigId")
        task = await self._task(ask, *task_id_of(params, task_key))
        return task, text_of(params, key)


def not_cancelable() -> RpcError:
    return RpcError(NOT_CANCELABLE, "Task is not cancelable in its current state")


def _time_of(params: Json, key: str) -> int | None:
    text = text_of(params, key)
    if text is None:
        return None
    try:
        moment = datetime.fromisoformat(text)
        moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
        return int(moment.timestamp() * SECOND_US)
    except (ValueError, OverflowError):
        raise invalid(f"{key} must be a time in ISO 8601, not {text[:100]!r}") from None


async def _end_of(reader: Reader, run_id: str) -> None:
    """Return once a run has ended, or after a while."""
    deadline = now_us() + int(CANCEL_SECONDS * SECOND_US)
    while (left := deadline - now_us()) > 0:
        entries = await reader.next(left / SECOND_US)
        if entries is None:
            return
        for entry in entries:
            if entry.kind in (END, GONE_KIND) and entry.run_id in ("", run_id):
                return
