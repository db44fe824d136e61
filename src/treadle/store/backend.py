"""The store that graphs and the API share: langgraph's ``BaseStore`` over the database.

langgraph's own SQLite store keeps a transaction open across turns of the event loop, on a
connection of its own; beside a writer that commits on the loop the two lock each other out.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Any

import structlog
from langgraph.store.base import (
    BaseStore,
    GetOp,
    Item,
    ListNamespacesOp,
    MatchCondition,
    Op,
    PutOp,
    Result,
    SearchItem,
    SearchOp,
    TTLConfig,
    validate_op_namespace,
)

from treadle.clock import SECOND_US, now_us
from treadle.database import Database, Row, Transaction
from treadle.database.pieces import PIECE_ROWS, Piece, in_pieces
from treadle.serialization import dump_text, loads
from treadle.store import queries
from treadle.store.embedding import Embedder
from treadle.store.filters import check_filter, exact_part, matches

logger = structlog.get_logger("treadle.store")

MINUTE_US = 60 * SECOND_US
LONGEST_TTL_MINUTES = 1e9
CHUNK_ROWS = 100
RANKED_ROWS = 1000
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class DatabaseStore(BaseStore):
    """A ``BaseStore`` whose items live in the database. ``open`` it on the server's event loop.

    The async methods work on any event loop, the sync ones on any thread but the event loop's.
    A put keeps the item's first ``created_at``; searches list the latest update first. What an
    item's ``ttl`` has ended is gone at once, ``sweep`` only frees its room.
    """

    supports_ttl = True

    def __init__(
        self,
        database: Database,
        ttl: TTLConfig | None = None,
        embedder: Embedder | None = None,
    ) -> None:
        self._database = database
        self._embedder = embedder
        self._loop: asyncio.AbstractEventLoop | None = None
        self.ttl_config = ttl

    async def open(self) -> None:
        """Take the running event loop for the one that all work is done on.

        Raises ``StartupError`` if there is an embedder and the database can't have vectors.
        Vectors of another length than the embedder's go: they cannot be compared with its own.
        """
        self._loop = asyncio.get_running_loop()
        if self._embedder is None:
            return
        await self._database.prepare_vectors()
        dims = {"dims": self._embedder.dims}
        forgotten = await self._database.write(
            lambda transaction: transaction.execute(queries.DELETE_OTHER_DIMS, dims)
        )
        if forgotten:
            logger.warning(
                "store.index.dims has changed: items are searched by meaning again once they"
                " are put again",
                vectors=forgotten,
            )

    async def abatch(self, ops: Iterable[Op]) -> list[Result]:
        """Do ``ops``: first all reads, then all writes in one transaction."""
        if asyncio.get_running_loop() is self._loop:
            return await self._do(ops)
        return await asyncio.wrap_future(self._hand_over(ops))

    def batch(self, ops: Iterable[Op]) -> list[Result]:
        """``abatch`` for code on threads. ``InvalidStateError`` on the event loop itself."""
        try:
            on_loop = asyncio.get_running_loop() is self._loop
        except RuntimeError:
            on_loop = False
        if on_loop:
            raise asyncio.InvalidStateError(
                "The store was called synchronously on the server's event loop, which would"
                " stand still forever. In async code use the async methods:"
                " await store.aget(...) instead of store.get(...)"
            )
        return self._hand_over(ops).result()

    async def sweep(self, now: int) -> int:
        """Delete, in small pieces, what is over at ``now``; how many items that were."""

        async def remove(transaction: Transaction, piece: Piece) -> bool:
            expired = {"now": now, "limit": PIECE_ROWS}
            rows = await transaction.fetch_all(queries.EXPIRED, expired)
            for row in rows:
                if piece.spent:
                    return False
                await transaction.send(queries.DELETE, dict(row))
                piece.step()
            return len(rows) < PIECE_ROWS

        return await in_pieces(self._database, remove)

    def _hand_over(self, ops: Iterable[Op]) -> Any:
        if self._loop is None:
            raise RuntimeError("The store is used before it is open")
        return asyncio.run_coroutine_threadsafe(self._do(ops), self._loop)

    async def _do(self, ops: Iterable[Op]) -> list[Result]:
        results: list[Result] = []
        puts: list[PutOp] = []
        for op in ops:
            validate_op_namespace(op)
            if isinstance(op, PutOp):
                puts.append(op)
                results.append(None)
            elif isinstance(op, GetOp):
                results.append(await self._get(op))
            elif isinstance(op, SearchOp):
                results.append(await self._search(op))
            else:
                results.append(await self._namespaces(op))
        if puts:
            await self._put(puts)
        return results

    # -- writing ----------------------------------------------------------------------------
    async def _put(self, ops: list[PutOp]) -> None:
        now = now_us()
        statements: list[tuple[str, dict[str, Any]]] = []
        for op in ops:
            params: dict[str, Any] = {"namespace": ".".join(op.namespace), "key": op.key}
            if op.value is None:
                statements.append((queries.DELETE, params))
                continue
            params["value"] = dump_text(dict(op.value))
            params["now"] = now
            params["ttl_minutes"] = op.ttl
            params["expires_at"] = _expiry(now, op.ttl)
            statements.append((queries.PUT, params))
        statements += await self._vectors(ops)

        async def body(transaction: Transaction) -> None:
            for sql, params in statements:
                await transaction.send(sql, params)

        await self._database.write(body)

    async def _vectors(self, ops: list[PutOp]) -> list[tuple[str, dict[str, Any]]]:
        """The statements that put in the vectors of items that are put."""
        if self._embedder is None:
            return []
        statements: list[tuple[str, dict[str, Any]]] = []
        texts: list[tuple[dict[str, Any], str]] = []
        for op in {(op.namespace, op.key): op for op in ops if op.value is not None}.values():
            item = {"namespace": ".".join(op.namespace), "key": op.key}
            found = self._embedder.texts(dict(op.value or {}), op.index)
            texts += [({**item, "position": n}, text) for n, text in enumerate(found)]
        vectors = await self._embedder.embed([text for _, text in texts]) if texts else []
        dims, vector = self._embedder.dims, self._database.dialect.vector
        for (params, _), found in zip(texts, vectors, strict=True):
            if found is not None:
                row = {**params, "dims": dims, "vector": vector(found)}
                statements.append((queries.INSERT_VECTOR, row))
        return statements

    def _extend(self, rows: Iterable[Row]) -> None:
        """Let the lives of items that were read begin anew."""
        now = now_us()
        extended = [
            {
                "namespace": row["namespace"],
                "key": row["key"],
                "expires_at": _expiry(now, row["ttl_minutes"]),
            }
            for row in rows
            if row["ttl_minutes"] is not None
        ]
        if extended:

            async def body(transaction: Transaction) -> None:
                await transaction.execute_many(queries.EXTEND, extended)

            self._database.write_soon(body, _log_failure)

    # -- reading ----------------------------------------------------------------------------
    async def _get(self, op: GetOp) -> Item | None:
        await asyncio.sleep(0)  # a graph that polls without a pause must not stop the loop
        params = {"namespace": ".".join(op.namespace), "key": op.key, "now": now_us()}
        row = await self._database.read_one(queries.GET, params)
        if row is None:
            return None
        if op.refresh_ttl:
            self._extend((row,))
        return Item(**_item(row))

    async def _search(self, op: SearchOp) -> list[SearchItem]:
        wanted = op.filter or {}
        check_filter(wanted)
        conditions, params = _within(op.namespace_prefix)
        exact = exact_part(wanted)
        if exact:
            sql, more = self._database.dialect.json_contains("store_items.value", exact, "filter")
            conditions.append(sql)
            params |= more
        where = " AND ".join(conditions)
        ranking = await self._ranking(op)
        if ranking is not None:
            found = await self._ranked(where, params, op, *ranking)
        elif len(exact) == len(wanted):
            page = {"limit": op.limit, "offset": op.offset}
            rows = await self._database.scan(queries.SEARCH.format(where=where), params | page)
            found = [(row, _item(row)) for row in rows]
        else:
            found = await self._filtered(where, params, op)
        if op.refresh_ttl:
            self._extend([row for row, _ in found])
        return [SearchItem(**item) for _, item in found]

    async def _ranking(self, op: SearchOp) -> tuple[str, dict[str, Any]] | None:
        """The distance of a vector from the query, and its parameters; None to rank by age."""
        if not op.query or self._embedder is None:
            return None
        [vector] = await self._embedder.embed([op.query])
        if vector is None:
            return None
        dialect = self._database.dialect
        distance = dialect.vector_distance("store_vectors.vector", "query_vector")
        return distance, {"query_vector": dialect.vector(vector)}

    async def _ranked(
        self, where: str, params: dict[str, Any], op: SearchOp, distance: str, more: dict[str, Any]
    ) -> list[tuple[Row, dict[str, Any]]]:
        """One page of what the filter lets through, by the distance from the query."""
        within, _ = _below(op.namespace_prefix)
        sql = queries.RANKED.format(distance=distance, within=within, where=where)
        params = params | more
        if len(exact_part(op.filter or {})) == len(op.filter or {}):
            page = {"limit": op.limit, "offset": op.offset}
            rows = await self._database.scan(sql, params | page)
            return [(row, _scored(row)) for row in rows]
        found: list[tuple[Row, dict[str, Any]]] = []
        needed, offset = op.offset + op.limit, 0
        while len(found) < needed:
            page = {"limit": RANKED_ROWS, "offset": offset}
            rows = await self._database.scan(sql, params | page)
            items = [(row, _scored(row)) for row in rows]
            found += [(row, item) for row, item in items if matches(item["value"], op.filter)]
            if len(rows) < RANKED_ROWS:
                break
            offset += RANKED_ROWS
        return found[op.offset : needed]

    async def _filtered(
        self, where: str, params: dict[str, Any], op: SearchOp
    ) -> list[tuple[Row, dict[str, Any]]]:
        """One page of what the filter lets through, looked for in small chunks of rows."""
        found: list[tuple[Row, dict[str, Any]]] = []
        skip = op.offset
        params = params | {"limit": CHUNK_ROWS, "offset": 0}
        first = queries.SEARCH.format(where=where)
        following = queries.SEARCH.format(where=f"{where} AND {queries.AFTER}")
        rows = await self._database.scan(first, params)
        while rows and len(found) < op.limit:
            for row in rows:
                item = _item(row)
                if matches(item["value"], op.filter):
                    if skip:
                        skip -= 1
                    else:
                        found.append((row, item))
            if len(rows) < CHUNK_ROWS:
                break
            last = rows[-1]
            params["last_update"] = last["updated_at"]
            params["last_namespace"], params["last_key"] = last["namespace"], last["key"]
            rows = await self._database.scan(following, params)
        return found[: op.limit]

    async def _namespaces(self, op: ListNamespacesOp) -> list[tuple[str, ...]]:
        conditions = op.match_conditions or ()
        literal: list[str] = []
        for condition in conditions:
            if condition.match_type == "prefix" and not literal:
                stars = [*condition.path, "*"].index("*")
                literal = list(condition.path[:stars])
        wheres, params = _within(literal)
        sql = queries.NAMESPACES.format(where=" AND ".join(wheres))
        rows = await self._database.scan(sql, params)
        return await asyncio.to_thread(_listed, rows, conditions, op)


def _within(prefix: Iterable[str]) -> tuple[list[str], dict[str, Any]]:
    """The conditions of all living items at or below a namespace."""
    below, params = _below(prefix)
    return [queries.ALIVE, below], {**params, "now": now_us()}


def _below(prefix: Iterable[str]) -> tuple[str, dict[str, Any]]:
    """The condition of everything at or below a namespace."""
    text = ".".join(prefix)
    if not text:
        return "1 = 1", {}
    # "/" is the character after ".", so the range holds what begins with the prefix's dot
    return queries.WITHIN, {"prefix": text, "prefix_dot": f"{text}.", "prefix_end": f"{text}/"}


def _listed(
    rows: Iterable[Row], conditions: Iterable[MatchCondition], op: ListNamespacesOp
) -> list[tuple[str, ...]]:
    """One page of the distinct namespaces that meet the conditions, cut to the depth."""
    found: set[tuple[str, ...]] = set()
    for row in rows:
        path = tuple(row["namespace"].split("."))
        if all(_meets(path, condition) for condition in conditions):
            found.add(path[: op.max_depth])
    return sorted(found)[op.offset :][: op.limit]


def _meets(path: tuple[str, ...], condition: MatchCondition) -> bool:
    wanted = condition.path
    if len(wanted) > len(path):
        return False
    part = path[: len(wanted)] if condition.match_type == "prefix" else path[-len(wanted) :]
    return all(label in ("*", there) for label, there in zip(wanted, part, strict=True))


def _item(row: Row) -> dict[str, Any]:
    """The arguments of an ``Item``."""
    return {
        "namespace": tuple(row["namespace"].split(".")),
        "key": row["key"],
        "value": loads(row["value"]),
        "created_at": _EPOCH + timedelta(microseconds=row["created_at"]),
        "updated_at": _EPOCH + timedelta(microseconds=row["updated_at"]),
    }


def _scored(row: Row) -> dict[str, Any]:
    """The arguments of a ``SearchItem``."""
    distance = row["distance"]
    return {**_item(row), "score": None if distance is None else 1.0 - distance}


def _expiry(now: int, ttl_minutes: float | None) -> int | None:
    if ttl_minutes is None or ttl_minutes > LONGEST_TTL_MINUTES:
        return None
    return now + int(ttl_minutes * MINUTE_US)


def _log_failure(error: Exception) -> None:
    logger.error("ttl not extended", exc_info=error)
