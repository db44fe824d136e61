"""Threads: what may be done with them, and what it does."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Iterable
from typing import TYPE_CHECKING, Any

from msgspec import UNSET
from msgspec.structs import asdict

from treadle.auth import Caller, Filter, authorize, narrowed
from treadle.checkpoints import upkeep
from treadle.clock import now_us
from treadle.database import Database, Row, Transaction
from treadle.database.pieces import Piece
from treadle.errors import Conflict
from treadle.idempotency import IdempotencyKey, made_before
from treadle.ids import new_id, parse_id
from treadle.serialization import dump_text, loads
from treadle.threads import queries
from treadle.threads.access import not_found, restricted
from treadle.threads.models import Strategy, ThreadCreate, ThreadPatch, Ttl
from treadle.threads.removal import DeletedIn, Removal
from treadle.threads.rows import thread_json, ttl_json
from treadle.threads.search import ThreadFinder
from treadle.threads.state import Staged, ThreadStates
from treadle.threads.ttl import NO_TTL, ttl_columns

if TYPE_CHECKING:
    from langgraph.store.base import BaseStore

    from treadle.checkpoints.saver import Saver
    from treadle.graphs.registry import GraphRegistry

Json = dict[str, Any]


class _Exists(Exception):
    """A thread that was to be made is there already."""


class ThreadService:
    """What is done with threads; ``finder`` finds them, ``states`` reads and writes their states,
    ``removal`` clears away what was deleted.

    ``stop_runs(thread_id)`` ends what this process executes on a thread, after its rows are
    gone; ``deleted_in`` tells other processes of that. ``announce_state(thread_id, state)`` hears
    of each state that a client wrote.
    Answers are JSON-able values for ``treadle.serialization.dumps``.
    """

    def __init__(
        self,
        database: Database,
        saver: Saver,
        registry: GraphRegistry,
        store: BaseStore,
        *,
        ttl_default: Ttl | None,
        stop_runs: Callable[[str], Awaitable[None]],
        announce_state: Callable[[str, Json], None],
        deleted_in: DeletedIn | None = None,
    ) -> None:
        self._database = database
        self._saver = saver
        self._ttl_default = ttl_default
        self._stop_runs, self._deleted_in = stop_runs, deleted_in
        self.removal = Removal(database)
        self.finder = ThreadFinder(database)
        self.states = ThreadStates(database, saver, registry, store, announce_state)

    # -- making ----------------------------------------------------------------------------

    async def create(
        self, caller: Caller, wanted: ThreadCreate, key: IdempotencyKey | None = None
    ) -> Json:
        """A new thread; with supersteps, one that has their states. ``Conflict`` if it exists.

        With ``if_exists: do_nothing`` an existing thread comes back as it is, and so does the
        one that an earlier request with the same ``key`` made.
        """
        thread_id = parse_id(wanted.thread_id, "thread") if wanted.thread_id else new_id()
        value: Json = {
            "thread_id": thread_id,
            "metadata": wanted.metadata,
            "if_exists": wanted.if_exists,
        }
        allowed = await authorize(caller, "threads", "create", value)
        metadata: Json = value["metadata"]
        staged: Staged | None = None
        if wanted.supersteps and await self._find(queries.GET, thread_id, None) is None:
            staged = await self.states.stage_supersteps(
                caller, thread_id, metadata, wanted.supersteps
            )
        now = now_us()
        row = _new_row(thread_id, metadata, now, ttl_columns(wanted.ttl, self._ttl_default, now))

        async def insert(tx: Transaction) -> list[str] | None:
            if before := await made_before(tx, key, [thread_id]):
                return before
            if not await tx.execute(queries.INSERT, row):
                raise _Exists
            if staged is not None:
                await self.states.write_in(tx, thread_id, staged)
            return None

        try:
            before = await self._database.write(insert, thread_id)
        except _Exists:
            existing = await self._find(queries.GET, thread_id, allowed)
            if wanted.if_exists == "do_nothing" and existing is not None:
                return thread_json(existing)
            raise Conflict(f"Thread with ID {thread_id} already exists") from None
        if before is not None:
            return await self._shown(before[0], allowed)
        if staged is not None:
            await staged.saver.write_outside()
        return thread_json(row) if staged is None else await self._shown(thread_id)

    async def create_thread_in(self, tx: Transaction, thread_id: str, metadata: Json) -> bool:
        """Make the thread that a run brings with it; False if it is there, and stays as it is."""
        now = now_us()
        ttl = ttl_columns(UNSET, self._ttl_default, now)
        return bool(await tx.execute(queries.INSERT, _new_row(thread_id, metadata, now, ttl)))

    async def copy(self, caller: Caller, thread_id: str) -> Json:
        """A new thread with the metadata, config and all states of this one, but no runs."""
        allowed = await authorize(caller, "threads", "read", {"thread_id": thread_id})
        sql, params = restricted(self._database.dialect, queries.GET, thread_id, allowed)
        source = await self._database.read_one(sql, params)
        if source is None:
            raise not_found(thread_id)
        target, now = new_id(), now_us()
        value: Json = {"thread_id": target}
        await authorize(caller, "threads", "create", value)
        metadata: Json = {**loads(source["metadata"]), **value.get("metadata", {})}
        ttl = ttl_columns(UNSET, self._ttl_default, now)

        async def write(tx: Transaction) -> bool:
            found = await tx.fetch_one(sql, params)
            if found is None:
                raise not_found(thread_id)
            row = _new_row(target, metadata, now, ttl, found["config"])
            await tx.execute(queries.INSERT, row)
            await upkeep.copy_thread(tx, thread_id, target)
            columns = ("state_values", "interrupts", "status")
            shown: Json = {"thread_id": target, **{name: found[name] for name in columns}}
            if settled := found["status"] in ("idle", "interrupted"):
                await tx.execute(queries.SET_COPIED, shown)
            return settled

        settled = await self._database.write(write)
        if not self._saver.in_database:
            await self._saver.acopy_thread(thread_id, target)
        if not settled:
            await self.states.refresh(caller, target, metadata.get("graph_id"))
        return await self._shown(target)

    # -- reading ---------------------------------------------------------------------------

    async def get(self, caller: Caller, thread_id: str, include: Collection[str] = ()) -> Json:
        """The thread; with ``ttl`` in ``include``, also when it expires, if it does."""
        allowed = await authorize(caller, "threads", "read", {"thread_id": thread_id})
        if "ttl" not in include:
            row = await self._find(queries.GET, thread_id, allowed)
            if row is None:
                raise not_found(thread_id)
            return thread_json(row)
        row = await self._find(queries.GET_WITH_TTL, thread_id, allowed)
        if row is None:
            raise not_found(thread_id)
        ttl = ttl_json(row)
        return thread_json(row) if ttl is None else {**thread_json(row), "ttl": ttl}

    async def storage(self, caller: Caller, thread_id: str) -> Json:
        """How many bytes the thread's states take."""
        allowed = await authorize(caller, "threads", "read", {"thread_id": thread_id})
        if await self._find(queries.GET, thread_id, allowed) is None:
            raise not_found(thread_id)
        return {"thread_id": thread_id, **asdict(await self._saver.storage(thread_id))}

    async def _find(self, sql: str, thread_id: str, allowed: Filter | None) -> Row | None:
        if allowed is None:
            return await self._database.read_one(sql, {"thread_id": thread_id})
        sql, params = restricted(self._database.dialect, sql, thread_id, allowed)
        return await self._database.read_one(sql, params)

    async def _shown(self, thread_id: str, allowed: Filter | None = None) -> Json:
        row = await self._find(queries.GET, thread_id, allowed)
        if row is None:
            raise not_found(thread_id)
        return thread_json(row)

    # -- changing --------------------------------------------------------------------------

    async def patch(self, caller: Caller, thread_id: str, patch: ThreadPatch) -> Json:
        """Merge metadata, at its top level; set a new TTL where one is given."""
        value: Json = {"thread_id": thread_id, "metadata": patch.metadata}
        allowed = await authorize(caller, "threads", "update", value)
        added: Json = value["metadata"]
        sql, params = restricted(self._database.dialect, queries.TOUCH, thread_id, allowed)
        touch = f"{sql} RETURNING {queries.COLUMNS}"

        async def write(tx: Transaction) -> Json:
            now = now_us()
            row = await tx.fetch_one(touch, {**params, "now": now})
            if row is None:
                raise not_found(thread_id)
            thread = dict(row)
            if added:
                thread["metadata"] = dump_text({**loads(row["metadata"]), **added})
                await tx.send(queries.SET_METADATA, thread)
            if patch.ttl is not UNSET:
                ttl = ttl_columns(patch.ttl, self._ttl_default, now)
                await tx.send(queries.SET_TTL, {"thread_id": thread_id, **ttl})
            return thread

        return thread_json(await self._database.write(write, thread_id))

    async def delete(self, caller: Caller, thread_id: str) -> None:
        """Remove the thread with its runs and states, and end what is executed on it."""
        if not await self._delete(caller, [thread_id]):
            raise not_found(thread_id)

    async def prune(self, caller: Caller, thread_ids: Iterable[str], strategy: Strategy) -> int:
        """Delete threads, or all but their latest states; how many were there to prune.

        A thread on which runs are in flight keeps all its states, and isn't counted for it. For
        whoever may not see all threads, one that they don't see is a ``NotFound``.
        """
        wanted = list(dict.fromkeys(parse_id(text, "thread") for text in thread_ids))
        allowed = await authorize(caller, "threads", "delete", {"thread_ids": wanted})
        if strategy == "keep_latest":
            self._saver.require("aprune", "remove all states but the latest")
            kept = await self._prune(caller, wanted, self._keep_latest_in, allowed)
            if not self._saver.in_database:
                await self._saver.aprune(kept)
            return len(kept)
        return len(await self._delete(caller, wanted, allowed))

    async def _delete(
        self, caller: Caller, thread_ids: Iterable[str], within: Filter | None = None
    ) -> list[str]:
        """Delete threads, and end what is executed on them; those that were there."""

        async def delete_in(tx: Transaction, thread_id: str, piece: Piece) -> bool:
            await self.removal.delete(tx, thread_id, piece)
            if self._deleted_in is not None:
                await self._deleted_in(tx, thread_id)
            return True

        deleted = await self._prune(caller, thread_ids, delete_in, within)
        for thread_id in deleted:
            await self._stop_runs(thread_id)
        self.removal.begin()
        return deleted

    async def _prune(
        self,
        caller: Caller,
        thread_ids: Iterable[str],
        prune_in: Callable[[Transaction, str, Piece], Awaitable[bool]],
        within: Filter | None,
    ) -> list[str]:
        """The threads that the caller may delete and ``prune_in`` has pruned."""
        visible: list[tuple[str, str, Json]] = []
        dialect = self._database.dialect
        is_restricted = False
        for thread_id in thread_ids:
            asked = await authorize(caller, "threads", "delete", {"thread_id": thread_id})
            allowed = narrowed(within, asked)
            is_restricted = is_restricted or allowed is not None
            sql, params = restricted(dialect, queries.EXISTS, thread_id, allowed)
            visible.append((thread_id, f"{sql} {queries.LOCK}", params))

        async def write(tx: Transaction) -> list[str]:
            piece = Piece()
            pruned: list[str] = []
            for thread_id, sql, params in visible:
                if await tx.fetch_one(sql, params) is None:
                    if is_restricted:
                        raise not_found(thread_id)
                elif await prune_in(tx, thread_id, piece):
                    pruned.append(thread_id)
            return pruned

        return await self._database.write(write)

    async def _keep_latest_in(self, tx: Transaction, thread_id: str, piece: Piece) -> bool:
        if await tx.fetch_one(queries.IN_FLIGHT, {"thread_id": thread_id}) is not None:
            return False
        await upkeep.keep_latest(tx, self._database.dialect, self._saver.serde, thread_id)
        return True


def _new_row(
    thread_id: str, metadata: Json, now: int, ttl: Json = NO_TTL, config: str = "{}"
) -> Json:
    """The parameters of an INSERT, which are also the columns of the new thread."""
    return {
        "thread_id": thread_id,
        "created_at": now,
        "updated_at": now,
        "state_updated_at": now,
        "metadata": dump_text(metadata) if metadata else "{}",
        "config": config,
        "status": "idle",
        "state_values": None,
        "interrupts": None,
        **ttl,
    }
