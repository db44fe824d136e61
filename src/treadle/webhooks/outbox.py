"""The outbox of webhooks: put in with a run's end, delivered at least once.

Invariants: an entry is put in by the very transaction that ends its run, so neither is there
without the other; it leaves when its target has answered 2xx, or when the last attempt has failed.
Only an attempt that has failed counts: one that is cut off by a crash or a stop is made again. So
a target may get a webhook twice, and knows it by its ``X-Treadle-Delivery``.
"""

from __future__ import annotations

import asyncio
import hmac
from typing import TYPE_CHECKING, Any

import structlog

from treadle import __version__
from treadle.auth.callers import shown_kwargs
from treadle.clock import SECOND_US, iso, now_us
from treadle.database import Database, Row, Transaction
from treadle.lookout import Lookout
from treadle.serialization import dumps, fragment, loads
from treadle.webhooks import queries
from treadle.webhooks.addresses import addresses_of
from treadle.webhooks.rules import Target, WebhookRules

if TYPE_CHECKING:
    from treadle.webhooks.sending import Sender

logger = structlog.get_logger("treadle.webhooks")

PAUSES_SECONDS = (0.75, 1.5)
"""How long to wait after each attempt that failed; after one more, the entry is given up."""
ATTEMPT_SECONDS = 10.0
CONCURRENT = 16
CLOSE_SECONDS = 3.0
STUMBLE_SECONDS = 5.0
LEASE_SECONDS = 30.0
assert LEASE_SECONDS > 2 * ATTEMPT_SECONDS
LOOK_SECONDS = 10.0
"""How often to look for what other processes have put in, if no signal comes."""


class Webhooks:
    """Checks targets when runs are created, and calls them when runs have ended.

    ``app`` is this server itself, to which relative targets are delivered. If the outbox is
    ``shared`` with other processes, each entry is delivered by the one that takes it first.
    """

    def __init__(self, database: Database, rules: WebhookRules) -> None:
        self.app: Any = None
        self.enabled = True
        self.shared = self._is_open = False
        self._database, self._rules = database, rules
        self._lookout = Lookout("the webhook outbox", self._begin_due, STUMBLE_SECONDS)
        self._deliveries: dict[str, asyncio.Task[None]] = {}
        self._sender: Sender | None = None
        self._making_sender = asyncio.Lock()

    # -- life ------------------------------------------------------------------------------

    def start(self) -> None:
        """Begin to deliver, with what an earlier process has left. This server must answer."""
        self._is_open = True
        self._lookout.start()

    @property
    def is_open(self) -> bool:
        """Whether this process delivers; otherwise, another one does."""
        return self._is_open

    async def close(self) -> None:
        """Begin no more deliveries, and give those at work a moment. The rest stays put in."""
        self._is_open = False
        await self._lookout.stop()
        if deliveries := list(self._deliveries.values()):
            await asyncio.wait(deliveries, timeout=CLOSE_SECONDS)
            cut_off = bool(self._deliveries)
            if cut_off and self.shared:
                await self._give_back()
            for delivery in deliveries:
                delivery.cancel()
            await asyncio.wait(deliveries)
        if self._sender is not None:
            await self._sender.close()
            self._sender = None

    # -- for runs --------------------------------------------------------------------------

    async def check(self, target: str) -> None:
        """Raise ``Invalid`` for a target that must not be called."""
        if self.enabled:
            await self._addresses(self._rules.target(target))

    async def put(
        self,
        transaction: Transaction,
        run: Row,
        target: str,
        *,
        status: str,
        values: Any,
        error: dict[str, str] | None,
        ended_us: int,
    ) -> None:
        """Put the end of ``run`` in. Call ``wake`` once that is durable.

        ``values`` may be JSON text.
        """
        if not self.enabled:
            return
        body: dict[str, Any] = {
            "run_id": run["run_id"],
            "thread_id": run["thread_id"],
            "assistant_id": run["assistant_id"],
            "created_at": iso(run["created_at"]),
            "updated_at": iso(ended_us),
            "status": status,
            "metadata": fragment(run["metadata"]),
            "kwargs": shown_kwargs(run["kwargs"]),
            "multitask_strategy": run["multitask_strategy"],
            "langsmith_session_name": None,
            "run_started_at": iso(run["started_at"]),
            "run_ended_at": iso(ended_us),
            "values": fragment(values) if isinstance(values, str) else values,
        }
        if error is not None:
            body["error"] = error
        await self.put_body(transaction, run["run_id"], target, dumps(body), None, ended_us)

    async def put_body(
        self,
        transaction: Transaction,
        delivery_id: str,
        target: str,
        body: bytes,
        headers: str | None,
        now: int,
    ) -> None:
        """Put JSON in that is not of a run, with ``headers`` (a JSON object) of its own.

        Call ``wake`` once that is durable.
        """
        entry = {"run_id": delivery_id, "target": target, "body": body, "headers": headers,
                 "now": now}  # fmt: skip
        await transaction.send(queries.PUT, entry)

    def wake(self) -> None:
        """Look for what is due now."""
        self._lookout.wake()

    # -- scheduling ------------------------------------------------------------------------

    async def _begin_due(self) -> float | None:
        """Begin what is due; in how many seconds more will be, None if only a wake tells."""
        now = now_us()
        for row in await self._database.read_all(queries.EARLIEST, {"limit": CONCURRENT + 1}):
            run_id: str = row["run_id"]
            if run_id in self._deliveries:
                continue
            if row["due_at"] > now:
                seconds = (row["due_at"] - now) / SECOND_US
                return min(seconds, LOOK_SECONDS) if self.shared else seconds
            if len(self._deliveries) == CONCURRENT:
                return None
            self._deliveries[run_id] = asyncio.create_task(self._deliver(run_id))
        return LOOK_SECONDS if self.shared else None

    async def _deliver(self, run_id: str) -> None:
        """Make one attempt, and write down what came of it."""
        try:
            entry = await self._take(run_id)
            if entry is not None:
                problem = await self._attempt(run_id, entry)
                await self._settle(run_id, entry, problem)
        except Exception as error:
            logger.error("a webhook's delivery could not be noted", run_id=run_id, exc_info=error)
            await asyncio.sleep(STUMBLE_SECONDS)
        finally:
            del self._deliveries[run_id]
            self.wake()

    async def _take(self, run_id: str) -> Row | None:
        """An entry that is due; None if another process delivers it, or has done so."""
        if not self.shared:
            return await self._database.read_one(queries.ENTRY, {"run_id": run_id})
        now = now_us()
        params = {"run_id": run_id, "now": now, "until": now + int(LEASE_SECONDS * SECOND_US)}

        async def take(transaction: Transaction) -> Row | None:
            return await transaction.fetch_one(queries.TAKE, params)

        return await self._database.write(take)

    async def _give_back(self) -> None:
        """Let other processes deliver what is cut off here."""
        run_ids = list(self._deliveries)

        async def give_back(transaction: Transaction) -> None:
            rows = [{"run_id": run_id, "now": now_us()} for run_id in run_ids]
            await transaction.execute_many(queries.GIVE_BACK, rows)

        await self._database.write(give_back)

    async def _settle(self, run_id: str, entry: Row, problem: str | None) -> None:
        failed: int = entry["attempts"] + (problem is not None)
        params: dict[str, Any] = {"run_id": run_id}
        if problem is None:
            statement = queries.REMOVE
        elif failed > len(PAUSES_SECONDS):
            statement = queries.REMOVE
            logger.error("webhook given up", run_id=run_id, attempts=failed, problem=problem)
        else:
            statement = queries.PUT_OFF
            pause = PAUSES_SECONDS[failed - 1]
            params |= {"attempts": failed, "due_at": now_us() + int(pause * SECOND_US)}
            logger.warning("webhook failed", run_id=run_id, attempt=failed, problem=problem)

        async def write(transaction: Transaction) -> None:
            await transaction.execute(statement, params)

        await self._database.write(write)

    # -- one attempt -----------------------------------------------------------------------

    async def _attempt(self, run_id: str, entry: Row) -> str | None:
        """Call the target; what went wrong, if something did."""
        try:
            sender = await self._open_sender()
            async with asyncio.timeout(ATTEMPT_SECONDS):
                target = self._rules.target(entry["target"])
                addresses = await self._addresses(target)
                now = now_us()
                own = entry["headers"]
                body = _sent_at(entry["body"], now) if own is None else bytes(entry["body"])
                headers = self._headers(run_id, body, now // SECOND_US)
                headers |= {} if own is None else loads(own)
                status = await sender.post(target, addresses, headers, body)
        except TimeoutError:
            return f"no answer within {ATTEMPT_SECONDS:g} s"
        except Exception as error:
            return f"{type(error).__name__}: {error}"
        return None if 200 <= status < 300 else f"status {status}"

    async def _addresses(self, target: Target) -> tuple[str, ...]:
        if not target.host:
            return ()
        rules = self._rules
        return await addresses_of(target.host, target.port, rules.loopback, rules.private)

    def _headers(self, run_id: str, body: bytes, now_seconds: int) -> dict[str, str]:
        headers = {
            "content-type": "application/json",
            "user-agent": f"treadle/{__version__}",
            **self._rules.headers,
            "x-treadle-delivery": run_id,
        }
        if self._rules.secret is not None:
            headers["x-treadle-signature"] = signature(self._rules.secret, now_seconds, body)
        return headers

    async def _open_sender(self) -> Sender:
        async with self._making_sender:
            if self._sender is None:
                self._sender = await asyncio.to_thread(self._make_sender)
        return self._sender

    def _make_sender(self) -> Sender:
        from treadle.webhooks.sending import Sender

        return Sender(self.app)


def signature(secret: bytes, now_seconds: int, body: bytes) -> str:
    """The ``X-Treadle-Signature`` of a body that is sent now."""
    mac = hmac.new(secret, b"%d." % now_seconds, "sha256")
    mac.update(body)
    return f"t={now_seconds},v1={mac.hexdigest()}"


def _sent_at(body: bytes, now: int) -> bytes:
    """``body``, a JSON object, with the time of sending."""
    return b'%b,"webhook_sent_at":"%b"}' % (body[:-1], iso(now).encode())
