"""The states of threads: reading, history, and updates that happen wholly or not at all."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, cast
from weakref import WeakValueDictionary

from langchain_core.runnables import RunnableConfig
from langgraph.types import Command, Send, StateSnapshot
from langgraph.types import StateUpdate as GraphUpdate

from treadle.auth import Caller, Filter, authorize, narrowed
from treadle.auth.callers import auth_configurable
from treadle.clock import now_us
from treadle.database import Database, Row, Transaction
from treadle.errors import Conflict, Invalid, NotFound, Refused, RequestError
from treadle.graphs.registry import bind
from treadle.serialization import dump_text, excerpt, loads
from treadle.threads import queries
from treadle.threads.access import in_flight, not_found, refuse_in_flight, restricted
from treadle.threads.models import SendRequest, StateUpdate, Superstep, SuperstepUpdate
from treadle.threads.snapshots import checkpoint_json, select_state, snapshot_summary, state_json
from treadle.threads.staging import StagingSaver

if TYPE_CHECKING:
    from langgraph.checkpoint.base import BaseCheckpointSaver
    from langgraph.store.base import BaseStore

    from treadle.checkpoints.saver import Saver
    from treadle.graphs.registry import Graph, GraphRegistry

Json = dict[str, Any]
Apply = Callable[["Graph"], Awaitable[RunnableConfig]]

MAX_ATTEMPTS = 5
EMPTY = StateSnapshot({}, (), {}, None, None, None, (), ())


@dataclass(frozen=True)
class Staged:
    """An update that is worked out but not written: its checkpoint, and the root state after it."""

    saver: StagingSaver
    config: RunnableConfig
    root: StateSnapshot


class _Outdated(Exception):
    """The thread's state has moved on since an update was worked out."""


class ThreadStates:
    """The states of threads, by the graphs that own them."""

    def __init__(
        self,
        database: Database,
        saver: Saver,
        registry: GraphRegistry,
        store: BaseStore,
        announce: Callable[[str, Json], None],
    ) -> None:
        self._database = database
        self._saver = saver
        self._registry = registry
        self._store = store
        self._announce = announce
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    # -- reading ---------------------------------------------------------------------------

    async def get(
        self,
        caller: Caller,
        thread_id: str,
        checkpoint: Json | None = None,
        *,
        subgraphs: bool = False,
        select: Sequence[str] = (),
    ) -> Json:
        """The latest state, or the one at ``checkpoint``; ``NotFound`` if that is unknown."""
        address = _address(thread_id, checkpoint or {})
        allowed = await authorize(caller, "threads", "read", {"thread_id": thread_id})
        graph_id = _graph_id(await self._row(thread_id, allowed))
        snapshot = EMPTY
        if graph_id is not None:
            async with self._graph(caller, graph_id, thread_id, "threads.read") as graph:
                snapshot = await graph.aget_state({"configurable": address}, subgraphs=subgraphs)
        if snapshot.metadata is None:
            _refuse_unknown(address)
        return select_state(state_json(snapshot, thread_id), select)

    async def history(
        self,
        caller: Caller,
        thread_id: str,
        *,
        limit: int,
        before: str | Json = "",
        metadata: Json | None = None,
        checkpoint: Json | None = None,
        select: Sequence[str] = (),
    ) -> list[Json]:
        """States from newest to oldest: those of the root graph, or of ``checkpoint``'s graph.

        ``before`` is a checkpoint, its id, or a config that names it. ``metadata`` keeps the
        states whose metadata has these entries.
        """
        address = _address(thread_id, checkpoint or {})
        until = _before(thread_id, before)
        if until is not None:
            address["checkpoint_ns"] = address["checkpoint_ns"] or until["checkpoint_ns"]
        allowed = await authorize(caller, "threads", "read", {"thread_id": thread_id})
        graph_id = _graph_id(await self._row(thread_id, allowed))
        wanted = dict(metadata or {})
        same_thread = wanted.pop("thread_id", thread_id) == thread_id
        if graph_id is None or limit <= 0 or not same_thread:
            return []
        async with self._graph(caller, graph_id, thread_id, "threads.read") as graph:
            found = graph.aget_state_history(
                {"configurable": address},
                filter=wanted,
                before=None if until is None else {"configurable": until},
                limit=limit,
            )
            return [select_state(state_json(s, thread_id), select) async for s in found]

    async def _row(self, thread_id: str, allowed: Filter | None) -> Row:
        sql, params = restricted(self._database.dialect, queries.STATE_BASIS, thread_id, allowed)
        row = await self._database.read_one(sql, params)
        if row is None:
            raise not_found(thread_id)
        return row

    @asynccontextmanager
    async def _graph(
        self,
        caller: Caller,
        graph_id: str,
        thread_id: str,
        access: Any,
        saver: BaseCheckpointSaver[Any] | None = None,
    ) -> AsyncGenerator[Graph]:
        """The graph for one use, over ``saver`` or the saver of all threads."""
        if graph_id not in self._registry:
            raise NotFound(
                f"Graph '{graph_id}' not found. Expected one of: {sorted(self._registry.ids)}"
            )
        saver = saver or self._saver
        if (graph := self._registry.static(graph_id)) is not None:
            yield bind(graph, saver, self._store)
            return
        config: RunnableConfig = {
            "configurable": {
                "thread_id": thread_id,
                "graph_id": graph_id,
                **auth_configurable(caller),
            },
        }
        async with self._registry.open(
            graph_id, config, access=access, store=self._store, caller=caller
        ) as graph:
            yield bind(graph, saver, self._store)

    # -- updating --------------------------------------------------------------------------

    async def update(self, caller: Caller, thread_id: str, update: StateUpdate) -> Json:
        """Write a new state, as a node or as the outside world; the answer names its checkpoint.

        Raises ``Conflict`` while runs are in flight, ``NotFound`` for a checkpoint that isn't
        there, and ``Refused`` with the graph's words for values that it cannot take. What is
        refused changes nothing. Updates of one thread follow one another.
        """
        address = _address(thread_id, {"checkpoint_id": update.checkpoint_id, **update.checkpoint})
        changeable = await authorize(caller, "threads", "update", {"thread_id": thread_id})
        readable = await authorize(caller, "threads", "read", {"thread_id": thread_id})
        allowed = narrowed(changeable, readable)
        async with self._locks.setdefault(thread_id, asyncio.Lock()):
            for _ in range(MAX_ATTEMPTS):
                row = await self._row(thread_id, allowed)
                staged = await self._stage_update(caller, row, address, update)
                try:
                    commit = partial(self._commit, address, allowed, row, staged)
                    await self._database.write(commit, address["thread_id"])
                    await staged.saver.write_outside()
                    break
                except _Outdated:
                    continue
            else:
                raise Conflict(f"Thread {thread_id} is being changed by others. Try again.")
        self._announce(thread_id, state_json(staged.root, thread_id))
        written = checkpoint_json(staged.config, thread_id)
        assert written is not None
        return {
            "checkpoint": written,
            "configurable": written,
            "checkpoint_id": written["checkpoint_id"],
        }

    async def _stage_update(
        self, caller: Caller, row: Row, address: Json, update: StateUpdate
    ) -> Staged:
        thread_id: str = address["thread_id"]
        graph_id = _graph_id(row)
        if graph_id is None:
            raise Refused(
                f"Thread '{thread_id}' has no assigned graph ID. Run it once, or set its"
                " metadata 'graph_id' to the graph that the state is for."
            )
        runs = await self._database.read_all(queries.IN_FLIGHT, {"thread_id": thread_id})
        if runs:
            raise in_flight(thread_id, runs)
        config = _update_config(address, graph_id)
        as_node = update.as_node if isinstance(update.as_node, str) else None

        async def apply(graph: Graph) -> RunnableConfig:
            if _is_named(address) and (await graph.aget_state(config)).metadata is None:
                _refuse_unknown(address)
            return await graph.aupdate_state(config, update.values, as_node)

        fork_of = address.get("checkpoint_id")
        return await self._stage(caller, thread_id, graph_id, apply, fork_of)

    async def stage_supersteps(
        self, caller: Caller, thread_id: str, metadata: Json, supersteps: Sequence[Superstep]
    ) -> Staged:
        """Work out the states that supersteps make of a thread that has none yet."""
        graph_id = metadata.get("graph_id")
        if not isinstance(graph_id, str):
            raise Refused("Supersteps need a graph: set metadata 'graph_id' to one that is served.")
        steps = [[_graph_update(u) for u in step.updates] for step in supersteps]
        config = _update_config(_address(thread_id, {}), graph_id)
        return await self._stage(
            caller, thread_id, graph_id, lambda graph: graph.abulk_update_state(config, steps)
        )

    async def _stage(
        self,
        caller: Caller,
        thread_id: str,
        graph_id: str,
        apply: Apply,
        fork_of: str | None = None,
    ) -> Staged:
        saver = StagingSaver(self._saver, caller.user, fork_of)
        async with self._graph(caller, graph_id, thread_id, "threads.update", saver) as graph:
            try:
                config = await apply(graph)
                root = await graph.aget_state({"configurable": _address(thread_id, {})})
            except RequestError:
                raise
            except Exception as error:  # of the graph's nodes, edges and reducers
                raise Refused(str(error) or type(error).__name__) from error
        return Staged(saver, config, root)

    async def _commit(
        self, address: Json, allowed: Filter | None, basis: Row, staged: Staged, tx: Transaction
    ) -> None:
        thread_id: str = address["thread_id"]
        dialect = self._database.dialect
        sql, params = restricted(dialect, queries.STATE_BASIS, thread_id, allowed)
        now = await tx.fetch_one(f"{sql} {queries.LOCK}", params)
        if now is None:
            raise not_found(thread_id)
        await refuse_in_flight(tx, thread_id)
        if now["state_updated_at"] != basis["state_updated_at"]:
            raise _Outdated
        if not await staged.saver.has_basis(tx):
            raise _Outdated  # a run was deleted
        await self.write_in(tx, thread_id, staged)

    async def write_in(self, tx: Transaction, thread_id: str, staged: Staged) -> None:
        """Write a staged update, and what the thread's row shows of it."""
        await staged.saver.write_in(tx)
        await tx.send(
            queries.SET_STATE, {"thread_id": thread_id, "now": now_us(), **_columns(staged.root)}
        )

    async def refresh(self, caller: Caller, thread_id: str, graph_id: object) -> None:
        """Let the row of a thread show its latest root state, if its graph is served."""
        if not isinstance(graph_id, str) or graph_id not in self._registry:
            return
        async with self._graph(caller, graph_id, thread_id, "threads.read") as graph:
            columns = _columns(await graph.aget_state({"configurable": _address(thread_id, {})}))

        async def write(tx: Transaction) -> None:
            await tx.execute(queries.SET_COPIED, {"thread_id": thread_id, **columns})

        await self._database.write(write, thread_id)


def _columns(root: StateSnapshot) -> Json:
    status, values, interrupts = snapshot_summary(root)
    return {
        "status": status,
        "state_values": None if root.metadata is None else dump_text(values),
        "interrupts": dump_text(interrupts),
    }


def _graph_id(row: Row) -> str | None:
    graph_id = loads(row["metadata"]).get("graph_id")
    return graph_id if isinstance(graph_id, str) else None


def _update_config(address: Json, graph_id: str) -> RunnableConfig:
    """The config of an update; the metadata of what it writes names the graph."""
    return {"configurable": address, "metadata": {"graph_id": graph_id}}


def _graph_update(update: SuperstepUpdate) -> GraphUpdate:
    command = update.command
    if command is None:
        return GraphUpdate(cast("Any", update.values), update.as_node)
    targets = command.goto if isinstance(command.goto, list) else [command.goto]
    goto = [Send(t.node, t.input) if isinstance(t, SendRequest) else t for t in targets]
    done: Command[Any] = Command(update=command.update, resume=command.resume, goto=goto)
    return GraphUpdate(cast("Any", done), update.as_node)


# Which checkpoint ---------------------------------------------------------------------------------

_KINDS: dict[str, tuple[type, str]] = {
    "checkpoint_id": (str, "a string"),
    "checkpoint_ns": (str, "a string"),
    "checkpoint_map": (dict, "an object"),
}


def _address(thread_id: str, checkpoint: Json) -> Json:
    """The ``configurable`` of a thread's checkpoint; without an id, of the namespace's latest."""
    address: Json = {"thread_id": thread_id, "checkpoint_ns": ""}
    for key, (kind, name) in _KINDS.items():
        value = checkpoint.get(key)
        if value is None or value == "":
            continue
        if not isinstance(value, kind):
            raise Invalid(f"checkpoint.{key} is {excerpt(value, 100)}, but has to be {name}")
        address[key] = value
    return address


def _before(thread_id: str, before: str | Json) -> Json | None:
    """The address of the checkpoint that a history ends before."""
    named: Json = {"checkpoint_id": before} if isinstance(before, str) else before
    inner = named.get("configurable")
    address = _address(thread_id, cast("Json", inner) if isinstance(inner, dict) else named)
    if "checkpoint_id" in address:
        return address
    if not before:
        return None
    raise Invalid("before has to name a checkpoint: by its id, or an object with a checkpoint_id")


def _is_named(address: Json) -> bool:
    """Whether an address is of more than the latest root state."""
    return "checkpoint_id" in address or address["checkpoint_ns"] != ""


def _refuse_unknown(address: Json) -> None:
    """Raise ``NotFound`` if ``address``, where there is no checkpoint, names one."""
    if not _is_named(address):
        return
    what = "Checkpoint"
    if checkpoint_id := address.get("checkpoint_id"):
        what += f" {checkpoint_id}"
    if ns := address["checkpoint_ns"]:
        what += f" of namespace '{ns}'"
    raise NotFound(f"{what} not found on thread {address['thread_id']}")
