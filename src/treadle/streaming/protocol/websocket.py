"""A thread over a WebSocket: commands in, answers and events out."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, cast

from treadle.errors import Invalid, RequestError
from treadle.http.socket import WebSocket
from treadle.http.validation import body_decoder
from treadle.ids import new_id
from treadle.serialization import dumps
from treadle.streaming.entries import Entry
from treadle.streaming.protocol.channels import Filter, UnknownChannel, natural, read_filter
from treadle.streaming.protocol.commands import (
    Commands,
    Context,
    bad_envelope,
    code_of,
    error_json,
    is_envelope,
    params_of,
    success_json,
)
from treadle.streaming.protocol.envelope import envelope_of
from treadle.streaming.protocol.feed import Feed

Json = dict[str, Any]

MAX_SUBSCRIPTIONS = 1000
REST_SECONDS = 3600.0
"""How long to wait for events before looking again: nothing is sent when idle."""

BAD_JSON = "Protocol commands must be valid JSON."
NOT_TEXT = "Protocol commands must be text messages."
FELL_BEHIND, STOPS = 4408, 1012

_decode = body_decoder(Any)


class Session:
    """One socket: its subscriptions, and how far its thread has been told.

    Events go out in order, and each once, however many subscriptions want it. A new
    subscription gets what was before it while the others wait.
    """

    def __init__(self, socket: WebSocket, feed: Feed, commands: Commands, context: Context) -> None:
        self._socket, self._feed, self._commands, self._context = socket, feed, commands, context
        self._subscriptions: dict[str, tuple[Filter, int]] = {}
        self._restarts = feed.restarts
        self._turn = asyncio.Lock()
        self._handlers: dict[str, Callable[[Json], Awaitable[Json]]] = {
            "subscription.subscribe": self._subscribe,
            "subscription.reconnect": self._reconnect,
            "subscription.unsubscribe": self._unsubscribe,
        }

    async def serve(self) -> None:
        """Until the client leaves, falls too far behind, or the server stops."""
        telling = asyncio.create_task(self._tell())
        try:
            while (message := await self._receive(telling)) is not None:
                await self._take(message)
        finally:
            self._feed.close()
            telling.cancel()
            await asyncio.wait([telling])

    async def _receive(self, telling: asyncio.Task[None]) -> str | bytes | None:
        """The next message; None once the socket or what tells of events has ended."""
        receiving = asyncio.ensure_future(self._socket.receive())
        await asyncio.wait((receiving, telling), return_when=asyncio.FIRST_COMPLETED)
        if receiving.done():
            return receiving.result()
        receiving.cancel()
        await telling
        return None

    # -- events ----------------------------------------------------------------------------

    async def _tell(self) -> None:
        """Send what comes, as long as the client keeps up."""
        while (entries := await self._feed.next(REST_SECONDS)) is not None:
            async with self._turn:
                if self._feed.restarts != self._restarts:
                    self._restarts = self._feed.restarts
                    self._subscriptions = {i: (f, 0) for i, (f, _) in self._subscriptions.items()}
                for entry in entries:
                    seq = entry.seq or 0
                    filters = [f for f, begun in self._subscriptions.values() if begun < seq]
                    await self._send_entry(entry, filters)
        if self._feed.cut_off:
            await self._send(error_json(None, "unknown_error", "The client has fallen behind."))
            await self._socket.close(FELL_BEHIND, "the client has fallen behind")
        else:
            await self._socket.close(STOPS, "the server stops")

    async def _send_entry(self, entry: Entry, filters: Sequence[Filter]) -> bool:
        envelope = envelope_of(entry)
        wanted = any(one.wants(entry, envelope) for one in filters)
        if envelope.has_checkpoint and any(one.wants_checkpoint(envelope) for one in filters):
            await self._socket.send(envelope.checkpoint_json.decode())
        if wanted:
            await self._socket.send(envelope.text)
        return wanted

    async def _send(self, message: Json) -> None:
        await self._socket.send(dumps(message).decode())

    # -- commands --------------------------------------------------------------------------

    async def _take(self, message: str | bytes) -> None:
        if isinstance(message, bytes):
            await self._send(error_json(None, "invalid_argument", NOT_TEXT))
            return
        try:
            command = _decode(message.encode())
        except (Invalid, UnicodeEncodeError):
            await self._send(error_json(None, "invalid_argument", BAD_JSON))
            return
        except RequestError as error:
            await self._send(error_json(None, "invalid_argument", str(error)))
            return
        if not is_envelope(command):
            await self._send(bad_envelope(command))
            return
        handler = self._handlers.get(command["method"])
        if handler is None:
            await self._send(await self._commands.answer(self._context, command, self._seq_of))
        else:
            await self._on_subscriptions(command, handler)

    async def _seq_of(self, seq_before: int | None) -> int:
        """What the client was told of, but nothing that its command has brought about."""
        position = self._feed.position
        return position if seq_before is None else min(position, seq_before)

    async def _on_subscriptions(
        self, command: Json, handler: Callable[[Json], Awaitable[Json]]
    ) -> None:
        """Change the subscriptions, and answer before anything else is told."""
        async with self._turn:
            try:
                result = await handler(params_of(command))
                answer = success_json(command["id"], result, self._feed.position)
            except _Refusal as refusal:
                answer = error_json(command["id"], refusal.code, str(refusal))
            except RequestError as error:
                answer = error_json(command["id"], code_of(error), str(error))
            await self._send(answer)

    async def _subscribe(self, params: Json) -> Json:
        wanted = _filter_of(params, "subscription.subscribe")
        return await self._add(wanted, natural(params, "since") or 0)

    async def _reconnect(self, params: Json) -> Json:
        wanted = _filter_of(params, "subscription.reconnect")
        since = natural(params, "since")
        if since is None:
            raise _Refusal("invalid_argument", "subscription.reconnect requires a since.")
        if not self._feed.position:
            raise _Refusal("no_such_run", "No active run is bound to this thread.")
        result = await self._add(wanted, since)
        return {**result, "restored": True, "missed_events": result["replayed_events"]}

    async def _add(self, wanted: Filter, since: int) -> Json:
        """Begin a subscription with what was told before it."""
        if len(self._subscriptions) >= MAX_SUBSCRIPTIONS:
            raise _Refusal(
                "invalid_argument", f"A socket can have {MAX_SUBSCRIPTIONS} subscriptions at most."
            )
        await self._feed.check(since)
        replayed, position = 0, self._feed.position
        async for page in self._feed.past(since, position):
            for entry in page:
                replayed += await self._send_entry(entry, (wanted,))
        id = new_id()
        self._subscriptions[id] = wanted, max(since, position)
        return {"subscription_id": id, "replayed_events": replayed}

    async def _unsubscribe(self, params: Json) -> Json:
        id = unsubscribed_id(params)
        if self._subscriptions.pop(id, None) is None:
            raise _Refusal("no_such_subscription", f"Unknown subscription: {id}")
        return {}


class _Refusal(Exception):
    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


def unsubscribed_id(params: Json) -> str:
    """The subscription that is to end. Raises ``Invalid`` if none is named."""
    id = params.get("subscription_id")
    if not isinstance(id, str):
        raise Invalid("subscription.unsubscribe requires a subscription_id.")
    return id


def _filter_of(params: Json, method: str) -> Filter:
    channels: Any = params.get("channels")
    if not isinstance(channels, list) or not cast("list[Any]", channels):
        raise _Refusal("invalid_argument", f"{method} requires a non-empty channels array.")
    try:
        return read_filter(params)
    except UnknownChannel as error:
        raise _Refusal("invalid_argument", f"{method} received an unsupported channel: {error}") \
            from None  # fmt: skip
