"""The methods of the protocol in both dialects: from a call to an answer."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any, NamedTuple

from treadle.a2a.dialects import V03, V1, Dialect
from treadle.a2a.errors import METHOD_NOT_FOUND, RpcError
from treadle.a2a.feed import Speech, TaskFeed, task_stream
from treadle.a2a.rpc import Call, error_json, result_json
from treadle.a2a.service import A2AService, Ask
from treadle.http.response import Body, Response
from treadle.runs.outcome import Outcome
from treadle.runs.waiting import WaitForRun
from treadle.streaming.log import Reader

Json = dict[str, Any]
Handler = Callable[[Ask, Call, Dialect], Awaitable[Response]]

OLD, NEW = V03(), V1()


class Method(NamedTuple):
    """A method in one dialect. ``is_extra``: other servers of this API do not have it.

    Their clients find that out by a call without parameters; so that is answered as there.
    """

    dialect: Dialect
    handler: Handler
    streams: bool = False
    is_extra: bool = False


class Calls:
    """The methods over the service."""

    def __init__(self, service: A2AService) -> None:
        self._service = service
        self._methods: dict[str, Method] = {
            "message/send": Method(OLD, self._send),
            "message/stream": Method(OLD, self._stream, streams=True),
            "tasks/get": Method(OLD, self._get),
            "tasks/cancel": Method(OLD, self._cancel),
            "tasks/list": Method(OLD, self._list, is_extra=True),
            "tasks/resubscribe": Method(OLD, self._subscribe, streams=True, is_extra=True),
            "tasks/pushNotificationConfig/set": Method(OLD, self._set_config, is_extra=True),
            "tasks/pushNotificationConfig/get": Method(OLD, self._get_config, is_extra=True),
            "tasks/pushNotificationConfig/list": Method(OLD, self._list_configs, is_extra=True),
            "tasks/pushNotificationConfig/delete": Method(OLD, self._delete_config, is_extra=True),
            "SendMessage": Method(NEW, self._send),
            "SendStreamingMessage": Method(NEW, self._stream, streams=True),
            "GetTask": Method(NEW, self._get),
            "CancelTask": Method(NEW, self._cancel),
            "ListTasks": Method(NEW, self._list),
            "SubscribeToTask": Method(NEW, self._subscribe, streams=True),
            "GetExtendedAgentCard": Method(NEW, self._card),
            "CreateTaskPushNotificationConfig": Method(NEW, self._set_config),
            "GetTaskPushNotificationConfig": Method(NEW, self._get_config),
            "ListTaskPushNotificationConfigs": Method(NEW, self._list_configs),
            "DeleteTaskPushNotificationConfig": Method(NEW, self._delete_config),
        }

    def streams(self, call: Call) -> bool:
        """Whether the answer to a call is a stream."""
        method = self._methods.get(call.method)
        return method is not None and method.streams

    async def answer(self, ask: Ask, call: Call) -> Response:
        """Raises an ``RpcError`` or a ``RequestError`` for a call that is refused."""
        method = self._methods.get(call.method)
        if method is None or (method.is_extra and not call.params):
            raise RpcError(METHOD_NOT_FOUND, f"Method not found: {call.method[:100]}")
        return await method.handler(ask, call, method.dialect)

    # -- messages --------------------------------------------------------------------------

    async def _send(self, ask: Ask, call: Call, dialect: Dialect) -> Response:
        sent, waits = await self._service.send(ask, call.params, dialect.is_v1)
        if not waits:
            return _result(call, dialect.event(self._service.first_event(sent)))
        assert sent.created.reader is not None

        async def finish(outcome: Outcome | None) -> bytes:
            try:
                task = await self._service.outcome(ask, sent, call.params)
            except RpcError as error:
                return error_json(call.id, error)
            return result_json(call.id, dialect.event(task))

        return WaitForRun(sent.created.reader, sent.created.run_id, finish=finish)

    async def _stream(self, ask: Ask, call: Call, dialect: Dialect) -> Response:
        sent, _ = await self._service.send(ask, call.params, dialect.is_v1, streams=True)
        assert sent.created.reader is not None
        speech = Speech(sent.created.run_id, sent.task_id, sent.context_id)
        feed = self._feed(ask, call, dialect, sent.created.reader, speech)
        first = self._service.first_event(sent)
        return task_stream(feed, [result_json(call.id, dialect.event(first))])

    async def _subscribe(self, ask: Ask, call: Call, dialect: Dialect) -> Response:
        found = await self._service.subscribe(ask, call.params)
        feed = self._feed(ask, call, dialect, found.reader, found.speech)
        frames = [result_json(call.id, dialect.event(event)) for event in found.events]
        return task_stream(feed, frames, found.ended)

    def _feed(
        self, ask: Ask, call: Call, dialect: Dialect, reader: Reader, speech: Speech
    ) -> TaskFeed:
        async def last() -> Sequence[Json]:
            return await self._service.last_events(ask, speech.task_id)

        return TaskFeed(
            reader,
            speech,
            lambda event: result_json(call.id, dialect.event(event)),
            lambda error: error_json(call.id, error),
            last,
        )

    # -- tasks -----------------------------------------------------------------------------

    async def _get(self, ask: Ask, call: Call, dialect: Dialect) -> Response:
        return _result(call, dialect.task(await self._service.get(ask, call.params)))

    async def _cancel(self, ask: Ask, call: Call, dialect: Dialect) -> Response:
        return _result(call, dialect.task(await self._service.cancel(ask, call.params)))

    async def _list(self, ask: Ask, call: Call, dialect: Dialect) -> Response:
        found = await self._service.list(ask, call.params)
        return _result(call, {**found, "tasks": [dialect.task(task) for task in found["tasks"]]})

    async def _card(self, ask: Ask, call: Call, dialect: Dialect) -> Response:
        return _result(call, await self._service.card(ask.caller, ask.assistant, ask.base_url))

    # -- push notifications ----------------------------------------------------------------

    async def _set_config(self, ask: Ask, call: Call, dialect: Dialect) -> Response:
        return _result(call, await self._service.set_config(ask, call.params, dialect.is_v1))

    async def _get_config(self, ask: Ask, call: Call, dialect: Dialect) -> Response:
        return _result(call, await self._service.get_config(ask, call.params, dialect.is_v1))

    async def _list_configs(self, ask: Ask, call: Call, dialect: Dialect) -> Response:
        return _result(call, await self._service.list_configs(ask, call.params, dialect.is_v1))

    async def _delete_config(self, ask: Ask, call: Call, dialect: Dialect) -> Response:
        return _result(call, await self._service.delete_config(ask, call.params, dialect.is_v1))


def _result(call: Call, result: Any) -> Body:
    return Body(result_json(call.id, result))
