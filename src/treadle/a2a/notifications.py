"""Push notifications: who wants to hear of a task, and what they are told by the outbox."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, cast
from uuid import UUID, uuid5

import msgspec

from treadle.a2a import queries
from treadle.a2a.contexts import Context, Task
from treadle.a2a.dialects import V03, V1
from treadle.a2a.errors import PUSH_NOT_SUPPORTED, TASK_NOT_FOUND, RpcError, invalid
from treadle.a2a.params import object_of, text_of
from treadle.a2a.tasks import View, task_json
from treadle.clock import now_us
from treadle.database import Database, Transaction
from treadle.errors import Invalid
from treadle.serialization import dump_text, dumps
from treadle.webhooks.outbox import Webhooks

Json = dict[str, Any]

MOST_CONFIGS = 20
"""As many may a task have."""
TOKEN_HEADER = "x-a2a-notification-token"
_HEADER_VALUE = re.compile(r"[\t\x20-\x7e]*")


class Config(msgspec.Struct, frozen=True, omit_defaults=True):
    """Where notifications of a task go, and what goes with them. ``is_v1``: in which dialect."""

    id: str
    url: str
    token: str | None = None
    scheme: str | None = None
    credentials: str | None = None
    is_v1: bool = False

    @property
    def headers(self) -> dict[str, str]:
        headers: dict[str, str] = {}
        if self.token is not None:
            headers[TOKEN_HEADER] = self.token
        if self.scheme is not None and self.credentials is not None:
            headers["authorization"] = f"{self.scheme} {self.credentials}"
        return headers

    def json(self, task_id: str, v1: bool) -> Json:
        """The config as a dialect has it."""
        said: Json = {"id": self.id, "url": self.url}
        if self.token is not None:
            said["token"] = self.token
        if self.scheme is not None:
            named: Json = {"scheme": self.scheme} if v1 else {"schemes": [self.scheme]}
            more = {} if self.credentials is None else {"credentials": self.credentials}
            said["authentication"] = {**named, **more}
        if v1:
            return {"taskId": task_id, **said}
        return {"taskId": task_id, "pushNotificationConfig": said}


def parse_config(given: Json, is_v1: bool) -> Config:
    """A config in the words of either dialect; without an id, its id is empty."""
    url = text_of(given, "url")
    if url is None:
        raise invalid("pushNotificationConfig.url must be given")
    authentication = object_of(given, "authentication")
    schemes = authentication.get("schemes")
    if isinstance(schemes, list) and schemes:
        authentication = {**authentication, "scheme": cast("list[Any]", schemes)[0]}
    token = text_of(given, "token")
    scheme = text_of(authentication, "scheme")
    credentials = text_of(authentication, "credentials")
    for name, value in (("token", token), ("scheme", scheme), ("credentials", credentials)):
        if value is not None and not _HEADER_VALUE.fullmatch(value):
            raise invalid(f"pushNotificationConfig: the {name} cannot be sent as a header")
    return Config(text_of(given, "id") or "", url, token, scheme, credentials, is_v1)


class Notifications:
    """The configs of tasks, and the outbox that calls them."""

    def __init__(self, database: Database, webhooks: Webhooks) -> None:
        self._database, self._webhooks = database, webhooks

    async def check(self, config: Config) -> None:
        """Raise an ``RpcError`` unless the config's address may be called."""
        try:
            await self._webhooks.check(config.url)
        except Invalid as error:
            raise invalid(f"pushNotificationConfig.url: {error}") from None

    async def put_in(
        self, transaction: Transaction, start_id: str, thread_id: str, config: Config
    ) -> None:
        """Keep a config that was checked."""
        params = {"start_id": start_id, "config_id": config.id, "thread_id": thread_id}
        rows = await transaction.fetch_all(queries.CONFIGS, params)
        ids = {row["config_id"] for row in rows}
        if config.id not in ids and len(ids) >= MOST_CONFIGS:
            raise invalid(f"A task has at most {MOST_CONFIGS} push notification configs")
        text = msgspec.json.encode(config).decode()
        if not await transaction.execute(queries.PUT_CONFIG, {**params, "config": text}):
            raise invalid(f"pushNotificationConfig.id: {config.id} is another task's")

    async def put(self, task: Task, config: Config) -> None:
        start_id, thread_id = _start_of(task), task.context.thread_id
        await self._database.write(
            lambda transaction: self.put_in(transaction, start_id, thread_id, config)
        )

    async def list(self, task: Task) -> Sequence[Config]:
        """The configs of a task, by their ids."""
        found = await self._database.read_all(queries.CONFIGS, _place_of(task))
        return [_config(row["config"]) for row in found]

    async def get(self, task: Task, config_id: str | None) -> Config:
        """A config of a task; the first one if no id is given."""
        for config in await self.list(task):
            if config_id in (None, config.id):
                return config
        raise _unknown(task, config_id)

    async def remove(self, task: Task, config_id: str) -> None:
        params = {**_place_of(task), "config_id": config_id}

        async def remove(transaction: Transaction) -> int:
            return await transaction.execute(queries.REMOVE_CONFIG, params)

        if not await self._database.write(remove):
            raise _unknown(task, config_id)

    async def tell_in(self, transaction: Transaction, thread_id: str, run_id: str) -> bool:
        """Let those who want it hear how a run has left its task; whether there are any.

        Called in the transaction that ends the run, once its thread is settled.
        """
        place = {"thread_id": thread_id}
        if not await transaction.fetch_all(queries.ANY_CONFIG, place):
            return False
        rows = await transaction.fetch_all(f"{queries.CONTEXT} {queries.IN_ORDER}", place)
        task = Context(rows).task(run_id) if rows else None
        if task is None or task.start_id is None:
            return False
        found = await transaction.fetch_all(queries.CONFIGS, _place_of(task))
        values = task.context.values
        told = task_json(task, values, View("task"), values) if found else {}
        for row in found:
            config = _config(row["config"])
            body = (V1() if config.is_v1 else V03()).event(told)
            await self._webhooks.put_body(
                transaction,
                str(uuid5(UUID(run_id), config.id)),
                config.url,
                dumps(body),
                dump_text(config.headers),
                now_us(),
            )
        return bool(found)


def _config(text: str) -> Config:
    return msgspec.json.decode(text, type=Config)


def _start_of(task: Task) -> str:
    if task.start_id is None:
        text = f"Task {task.id} was not begun by a message: it has no push notifications"
        raise RpcError(PUSH_NOT_SUPPORTED, text)
    return task.start_id


def _place_of(task: Task) -> Json:
    """A task's configs are those of its thread: whoever starts a run can claim any start id."""
    return {"start_id": _start_of(task), "thread_id": task.context.thread_id}


def _unknown(task: Task, config_id: str | None) -> RpcError:
    which = f" {config_id}" if config_id else ""
    return RpcError(TASK_NOT_FOUND, f"Push notification config{which} not found for task {task.id}")
