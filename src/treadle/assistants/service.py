"""The rules of assistants: who may do what is asked of the gate, the rest is here."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Collection, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING, Any, Protocol
from uuid import UUID, uuid4, uuid5

from msgspec import UNSET

from treadle.assistants import asked, introspection, queries
from treadle.assistants.models import (
    Assistant,
    AssistantCount,
    AssistantCreate,
    AssistantPatch,
    AssistantSearch,
    AssistantVersion,
    VersionsSearch,
    check_config,
)
from treadle.auth import ANYONE, Caller, Filter, authorize, condition
from treadle.auth.callers import auth_configurable, without_auth_keys
from treadle.clock import iso, now_us
from treadle.database import Database, Row, Transaction
from treadle.database.pages import page_of
from treadle.errors import Conflict, Invalid, NotFound, Refused, RequestError
from treadle.ids import parse_id
from treadle.serialization import dump_text, loads

if TYPE_CHECKING:
    from langgraph.store.base import BaseStore

DEFAULTS_NAMESPACE = UUID("6ba7b821-9dad-11d1-80b4-00c04fd430c8")
MAX_CACHED = 10_000
MAX_LOOKS = 1000

DeleteThread = Callable[[Caller, str], Awaitable[object]]


class GraphSpec(Protocol):
    @property
    def description(self) -> str | None: ...
    @property
    def config(self) -> dict[str, Any]: ...


class Graphs(Protocol):
    """What assistants need to know of the graph registry."""

    @property
    def ids(self) -> Sequence[str]: ...

    def spec(self, graph_id: str) -> GraphSpec: ...

    def static(self, graph_id: str) -> object | None: ...

    def open(
        self,
        graph_id: str,
        config: Any,
        *,
        access: Any,
        store: Any,
        caller: Caller,
        context: Any = None,
    ) -> AbstractAsyncContextManager[Any]: ...


def default_id(graph_id: str) -> str:
    """The id of a graph's default assistant: the same on every server, forever."""
    return str(uuid5(DEFAULTS_NAMESPACE, graph_id))


class AssistantService:
    """Assistants over a database.

    ``delete_thread(caller, thread_id)`` is how a thread is deleted with all that belongs to
    it, ``store`` is what graph factories are given.
    """

    def __init__(
        self,
        database: Database,
        graphs: Graphs,
        *,
        store: BaseStore,
        delete_thread: DeleteThread,
    ) -> None:
        self._database = database
        self._graphs = graphs
        self._store = store
        self._delete_thread = delete_thread
        self._defaults = {graph_id: default_id(graph_id) for graph_id in graphs.ids}
        self._default_ids = frozenset(self._defaults.values())
        self._cache: dict[str, Assistant] = {}
        self._generation = 0
        self._looks: dict[tuple[object, ...], dict[str, Any]] = {}

    # -- for runs and crons -----------------------------------------------------------------
    async def ensure_defaults(self) -> None:
        """Make the default assistant of each graph, in their order, where it is missing.

        One that nobody has changed follows what the server's config says of its graph.
        """
        for graph_id, assistant_id in self._defaults.items():
            spec = self._graphs.spec(graph_id)
            values = {
                "assistant_id": assistant_id,
                "graph_id": graph_id,
                "name": graph_id,
                "description": spec.description,
                "config": spec.config,
                "context": spec.config.get("configurable", {}),
                "metadata": {"created_by": "system"},
            }
            if await self._insert(values) is None:
                await self._describe(values)
        self.forget()

    async def _describe(self, values: dict[str, Any]) -> None:
        every = _params(values)
        names = ("assistant_id", "description", "config", "context")
        params = {name: every[name] for name in names}

        async def body(transaction: Transaction) -> None:
            if await transaction.execute(queries.DESCRIBE_UNCHANGED, params):
                await transaction.execute(queries.DESCRIBE_FIRST_VERSION, params)

        await self._database.write(body)

    def id_of(self, named: object) -> str:
        """The id of the assistant that a run names by it or by its graph. Raises ``Invalid``."""
        if not isinstance(named, str):
            raise self._no_assistant(named)
        found_id = self._defaults.get(named)
        if found_id is not None:
            return found_id
        try:
            return str(UUID(named))
        except ValueError:
            raise self._no_assistant(named) from None

    async def resolve(self, named: object, caller: Caller = ANYONE) -> Assistant:
        """The assistant that ``id_of`` finds, as ``runnable`` gives it."""
        return await self.runnable(self.id_of(named), caller)

    async def runnable(self, assistant_id: str, caller: Caller) -> Assistant:
        """An assistant to run; answered from memory. Everyone may run the default ones.

        Raises ``NotFound`` if there is none that the caller may see.
        """
        gate = None
        if assistant_id not in self._default_ids:
            gate = await authorize(caller, "assistants", "read", {"assistant_id": assistant_id})
        if gate is None and (cached := self._cache.get(assistant_id)) is not None:
            return cached
        assistant = await self._find(assistant_id, gate)
        if assistant is None:
            raise NotFound("Thread or assistant not found.")
        return assistant

    def forget(self, assistant_id: str | None = None) -> None:
        """Drop what is kept in memory of one assistant, or of all: it has changed."""
        self._generation += 1
        if assistant_id is None:
            self._cache.clear()
        else:
            self._cache.pop(assistant_id, None)

    # -- reading ----------------------------------------------------------------------------
    def parse_id(self, text: str, or_graph: bool = False) -> str:
        """The assistant id of a path; with ``or_graph`` the graph's name will do."""
        if or_graph and text in self._defaults:
            return self._defaults[text]
        return parse_id(text, "assistant")

    async def get(self, caller: Caller, assistant_id: str) -> Assistant:
        """The assistant; ``NotFound`` if there is none that the caller may see."""
        gate = await authorize(caller, "assistants", "read", {"assistant_id": assistant_id})
        found = await self._find(assistant_id, gate)
        if found is None:
            raise _not_found(assistant_id)
        return found

    async def search(
        self, caller: Caller, wanted: AssistantSearch
    ) -> tuple[list[dict[str, Any]], int]:
        """One page of what matches, as dicts of the selected fields, and how many match."""
        where, params = await self._where(caller, wanted)
        select = queries.SEARCH.format(where=where, order=_order(wanted))
        count = queries.COUNT.format(where=where)
        rows, total = await page_of(
            self._database, select, count, params, wanted.limit, wanted.offset
        )
        found = [_fields(_assistant(row)) for row in rows]
        if wanted.select:
            chosen = set(wanted.select)
            found = [{k: v for k, v in item.items() if k in chosen} for item in found]
        return found, total

    async def count(self, caller: Caller, wanted: AssistantCount) -> int:
        """How many assistants match."""
        where, params = await self._where(caller, wanted)
        rows = await self._database.scan(queries.COUNT.format(where=where), params)
        return rows[0]["n"]

    async def versions(
        self, caller: Caller, assistant_id: str, wanted: VersionsSearch
    ) -> list[AssistantVersion]:
        """The versions of an assistant, newest first."""
        await self.get(caller, assistant_id)
        where, params = self._contains("assistant_versions.metadata", wanted.metadata, "metadata")
        params |= {
            "assistant_id": assistant_id,
            "limit": wanted.limit,
            "offset": wanted.offset,
        }
        rows = await self._database.scan(queries.VERSIONS.format(where=where), params)
        return [_version(row) for row in rows]

    # -- writing ----------------------------------------------------------------------------
    async def create(self, caller: Caller, given: AssistantCreate) -> Assistant:
        """A new assistant at version 1, or with ``do_nothing`` the one that is there."""
        chosen = given.assistant_id
        assistant_id = parse_id(chosen, "assistant") if chosen else str(uuid4())
        self._check_graph(given.graph_id)
        sent_config = check_config({} if given.config is UNSET else given.config)
        config, context = _mirrored(sent_config, {} if given.context is UNSET else given.context)
        values = {
            "assistant_id": assistant_id,
            "graph_id": given.graph_id,
            "name": "Untitled" if given.name is UNSET or not given.name else given.name,
            "description": given.description,
            "config": config,
            "context": context,
            "metadata": {} if given.metadata is UNSET else given.metadata,
        }
        value = asked.creation(values)
        gate = await authorize(caller, "assistants", "create", value)
        values["metadata"] = value["metadata"]
        created = await self._insert(values)
        if created is not None:
            return self._keep(created)
        existing = await self._find(assistant_id, gate)
        if existing is None or given.if_exists == "raise":
            raise Conflict(f"Assistant {assistant_id} already exists")
        return existing

    async def patch(self, caller: Caller, assistant_id: str, given: AssistantPatch) -> Assistant:
        """Change an assistant: each accepted patch makes a new version, even an empty one."""
        if given.graph_id is not UNSET:
            self._check_graph(given.graph_id)
        if given.config is not UNSET:
            given.config = check_config(given.config)
        _mirrored(
            {} if given.config is UNSET else given.config,
            {} if given.context is UNSET else given.context,
        )
        value = asked.patch(assistant_id, given)
        gate = await authorize(caller, "assistants", "update", value)
        given.metadata = value["metadata"]

        async def body(transaction: Transaction) -> Row:
            row = await self._row(transaction, assistant_id, gate)
            values = _patched(_assistant(row), given)
            newest = await transaction.fetch_one(
                queries.NEWEST_VERSION, {"assistant_id": assistant_id}
            )
            assert newest is not None
            values["version"] = newest["version"] + 1
            return await self._update(transaction, values, new_version=True)

        return self._keep(await self._database.write(body))

    async def set_latest(self, caller: Caller, assistant_id: str, version: int) -> Assistant:
        """Make a version the current one, with all that belongs to it."""
        value = {"assistant_id": assistant_id, "version": version}
        gate = await authorize(caller, "assistants", "update", value)

        async def body(transaction: Transaction) -> Row:
            await self._row(transaction, assistant_id, gate)
            found = None
            if abs(version) < 2**63:
                found = await transaction.fetch_one(
                    queries.GET_VERSION, {"assistant_id": assistant_id, "version": version}
                )
            if found is None:
                raise NotFound(f"Version {version} not found for assistant {assistant_id}")
            values = _fields(_version(found))
            del values["created_at"]
            return await self._update(transaction, values, new_version=False)

        return self._keep(await self._database.write(body))

    async def delete(self, caller: Caller, assistant_id: str, delete_threads: bool) -> None:
        """Delete an assistant with all its versions, and if wished the threads that name it."""
        gate = await authorize(caller, "assistants", "delete", {"assistant_id": assistant_id})

        async def body(transaction: Transaction) -> None:
            await self._row(transaction, assistant_id, gate)
            params = {"assistant_id": assistant_id}
            await transaction.execute(queries.DELETE_VERSIONS, params)
            await transaction.execute(queries.DELETE, params)

        await self._database.write(body)
        self.forget(assistant_id)
        if delete_threads:
            named = {"assistant_id": assistant_id}
            where, params = self._contains("threads.metadata", named, "thread")
            for row in await self._database.scan(queries.THREADS.format(where=where), params):
                try:
                    await self._delete_thread(caller, row["thread_id"])
                except RequestError as error:
                    if error.status not in (403, 404):  # gone, or not the caller's to delete
                        raise

    # -- the graph behind an assistant ------------------------------------------------------
    async def draw(self, caller: Caller, assistant_id: str, xray: bool | int) -> dict[str, Any]:
        """The assistant's graph, built for its own config, as nodes and edges."""
        assistant = await self.get(caller, assistant_id)
        return await self._look(
            caller, assistant, ("drawing", xray), lambda g: introspection.draw(g, {}, xray)
        )

    async def subgraphs(
        self, caller: Caller, assistant_id: str, namespace: str | None, recurse: bool
    ) -> dict[str, Any]:
        """The schemas of the graph's subgraphs, or of the one at ``namespace``, by path."""
        assistant = await self.get(caller, assistant_id)
        return await self._look(
            caller,
            assistant,
            ("subgraphs", namespace, recurse),
            lambda graph: introspection.subgraphs(graph, namespace, recurse),
        )

    async def schemas(self, caller: Caller, assistant_id: str) -> dict[str, Any]:
        """The JSON schemas of the assistant's graph."""
        assistant = await self.get(caller, assistant_id)
        found = await self._look(
            caller,
            assistant,
            ("schemas",),
            lambda graph: asyncio.to_thread(introspection.schemas, graph),
        )
        return {"graph_id": assistant.graph_id, **found}

    async def output_names(self, caller: Caller, assistant_id: str) -> Collection[str] | None:
        """What the values are called that the assistant's graph gives out; None if all of them."""
        assistant = await self.runnable(assistant_id, caller)
        found = await self._look(caller, assistant, ("outputs",), introspection.outputs)
        return found["names"]

    async def _look(
        self,
        caller: Caller,
        assistant: Assistant,
        what: tuple[object, ...],
        look: Callable[[Any], Awaitable[dict[str, Any]]],
    ) -> dict[str, Any]:
        """What ``look`` finds in an assistant's graph: once for all, unless a factory makes it."""
        is_static = self._graphs.static(assistant.graph_id) is not None
        # The type tells 1 from True, which are equal.
        key = (assistant.graph_id, *((type(part), part) for part in what))
        if is_static and (found := self._looks.get(key)) is not None:
            return found
        async with self._open(caller, assistant) as graph:
            found = await look(graph)
        if is_static:
            if len(self._looks) >= MAX_LOOKS:
                self._looks.clear()
            self._looks[key] = found
        return found

    @asynccontextmanager
    async def _open(self, caller: Caller, assistant: Assistant) -> AsyncGenerator[Any]:
        """The graph of an assistant, whose factory gets a config of its own.

        ``Refused``, with the factory's words, if it makes no graph of that config.
        """
        config = {**assistant.config}
        configurable: dict[str, Any] = assistant.config.get("configurable") or {}
        config["configurable"] = configurable | auth_configurable(caller)
        async with AsyncExitStack() as stack:
            opening = self._graphs.open(
                assistant.graph_id,
                config,
                access="assistants.read",
                store=self._store,
                caller=caller,
                context=without_auth_keys(assistant.context),
            )
            try:
                graph = await stack.enter_async_context(opening)
            except RequestError:
                raise
            except Exception as error:
                raise Refused(
                    f"Graph '{assistant.graph_id}' cannot be made with the config of assistant"
                    f" {assistant.assistant_id}: {str(error) or type(error).__name__}"
                ) from error
            yield graph

    # -- inside -----------------------------------------------------------------------------
    def _no_assistant(self, given: object) -> Invalid:
        graphs = ", ".join(self._graphs.ids)
        return Invalid(
            f"Invalid assistant: {given!r}. Must be either:\n- A valid assistant UUID, or\n"
            f"- One of the registered graphs: {graphs}"
        )

    def _check_graph(self, graph_id: str) -> None:
        if graph_id not in self._defaults:
            known = sorted(self._graphs.ids)
            raise NotFound(f"Graph '{graph_id}' not found. Expected one of: {known}")

    async def _find(self, assistant_id: str, gate: Filter | None) -> Assistant | None:
        """From the database; what is seen without a filter is kept in memory."""
        generation = self._generation
        sql, params = self._get(assistant_id, gate)
        row = await self._database.read_one(sql, params)
        if row is None:
            return None
        found = _assistant(row)
        if generation == self._generation:
            if len(self._cache) >= MAX_CACHED:
                self._cache.clear()
            self._cache[assistant_id] = found
        return found

    def _keep(self, row: Row) -> Assistant:
        """What a write has made; it takes the place of what was kept in memory."""
        written = _assistant(row)
        self.forget(written.assistant_id)
        return written

    def _get(self, assistant_id: str, gate: Filter | None) -> tuple[str, dict[str, Any]]:
        visible, params = condition(self._database.dialect, "assistants.metadata", gate)
        return queries.GET.format(visible=visible), params | {"assistant_id": assistant_id}

    async def _row(self, transaction: Transaction, assistant_id: str, gate: Filter | None) -> Row:
        sql, params = self._get(assistant_id, gate)
        row = await transaction.fetch_one(f"{sql} /*postgres FOR UPDATE*/", params)
        if row is None:
            raise _not_found(assistant_id)
        return row

    async def _insert(self, values: dict[str, Any]) -> Row | None:
        """The new row, or None if the id is taken."""
        params = _params(values)

        async def body(transaction: Transaction) -> Row | None:
            row = await transaction.fetch_one(queries.INSERT, params)
            if row is not None:
                await transaction.execute(queries.INSERT_VERSION, params | {"version": 1})
            return row

        return await self._database.write(body)

    async def _update(
        self, transaction: Transaction, values: dict[str, Any], new_version: bool
    ) -> Row:
        params = _params(values)
        if new_version:
            await transaction.execute(queries.INSERT_VERSION, params)
        row = await transaction.fetch_one(queries.UPDATE, params)
        assert row is not None
        return row

    def _contains(self, column: str, value: Any, prefix: str) -> tuple[str, dict[str, Any]]:
        """A condition that holds for every row if there is nothing to look for."""
        if value is None or value is UNSET or value == {}:
            return "1 = 1", {}
        return self._database.dialect.json_contains(column, value, prefix)

    async def _where(self, caller: Caller, wanted: AssistantCount) -> tuple[str, dict[str, Any]]:
        if wanted.graph_id is not UNSET:
            self._check_graph(wanted.graph_id)
        gate = await authorize(caller, "assistants", "search", asked.search(wanted))
        visible, params = condition(self._database.dialect, "assistants.metadata", gate)
        named, more = self._contains("assistants.metadata", wanted.metadata, "metadata")
        conditions, params = [visible, named], {**params, **more}
        if wanted.graph_id is not UNSET:
            conditions.append("graph_id = :graph_id")
            params["graph_id"] = wanted.graph_id
        if wanted.name is not UNSET and wanted.name:
            conditions.append(r"name_folded LIKE :name ESCAPE '\'")
            params["name"] = f"%{_literal(wanted.name.casefold())}%"
        return " AND ".join(conditions), params


def _not_found(assistant_id: str) -> NotFound:
    return NotFound(f"Assistant {assistant_id} not found")


def _literal(text: str) -> str:
    """``text`` for LIKE, its wildcards taken literally."""
    return text.replace("\\", "\\\\").replace("%", r"\%").replace("_", r"\_")


def _order(wanted: AssistantSearch) -> str:
    """The ORDER BY of a search: equal keys keep the order of creation."""
    direction = "ASC" if wanted.sort_order == "asc" else "DESC"
    if wanted.sort_by is UNSET or wanted.sort_by == "created_at":
        return f"created_at {direction}, seq {direction}"
    column = "name_folded" if wanted.sort_by == "name" else wanted.sort_by
    return f"{column} {direction}, seq ASC"


def _mirrored(
    config: dict[str, Any], context: dict[str, Any]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Config and context, each with what the other brings; both together are refused."""
    configurable: dict[str, Any] = config.get("configurable") or {}
    if configurable and context:
        raise Refused(
            "Cannot specify both configurable and context. Prefer setting context alone."
            " config.configurable is set from it."
        )
    if context:
        return {**config, "configurable": dict(context)}, context
    return config, dict(configurable)


def _patched(before: Assistant, given: AssistantPatch) -> dict[str, Any]:
    """The values of ``before`` with the patch on top."""
    config, context = before.config, before.context
    configurable: dict[str, Any] = {}
    if given.config is not UNSET and given.config:
        config = given.config
        configurable = config.get("configurable") or {}
        context = dict(configurable) or context
    if given.context is not UNSET and not configurable:
        context = given.context
        config = {k: v for k, v in config.items() if k != "configurable"}
        if context:
            config["configurable"] = dict(context)
    values: dict[str, Any] = {"config": config, "context": context}
    values["metadata"] = before.metadata
    if given.metadata is not UNSET:
        values["metadata"] = before.metadata | given.metadata
    for field in ("graph_id", "name", "description"):
        sent = getattr(given, field)
        values[field] = getattr(before, field) if sent is UNSET else sent
    values["assistant_id"] = before.assistant_id
    return values


def _params(values: Mapping[str, Any]) -> dict[str, Any]:
    """The values of an assistant as parameters: JSON as text, and what is derived."""
    documents = {key: dump_text(values[key]) for key in ("config", "context", "metadata")}
    folded = values["name"].casefold()
    return {**values, **documents, "name_folded": folded, "now": now_us()}


def _assistant(row: Row) -> Assistant:
    return Assistant(
        assistant_id=row["assistant_id"],
        graph_id=row["graph_id"],
        config=loads(row["config"]),
        context=loads(row["context"]),
        metadata=loads(row["metadata"]),
        name=row["name"],
        description=row["description"],
        version=row["version"],
        created_at=iso(row["created_at"]),
        updated_at=iso(row["updated_at"]),
    )


def _version(row: Row) -> AssistantVersion:
    return AssistantVersion(
        assistant_id=row["assistant_id"],
        version=row["version"],
        graph_id=row["graph_id"],
        config=loads(row["config"]),
        context=loads(row["context"]),
        metadata=loads(row["metadata"]),
        created_at=iso(row["created_at"]),
        name=row["name"],
        description=row["description"],
    )


def _fields(value: Assistant | AssistantVersion) -> dict[str, Any]:
    return {name: getattr(value, name) for name in value.__struct_fields__}
