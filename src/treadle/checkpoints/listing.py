"""Lists of checkpoints, a page at a time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from langchain_core.runnables import RunnableConfig

from treadle.checkpoints import queries
from treadle.checkpoints.rows import NewRow, checkpoint_id_of
from treadle.database import Database, Row
from treadle.serialization import dumps, loads


class Listing:
    """The rows of checkpoints that match, the newest first.

    ``filter`` gives top-level keys of the metadata and what they have to equal, exactly.
    """

    def __init__(
        self,
        database: Database,
        config: RunnableConfig | None,
        filter: dict[str, Any] | None,
        before: RunnableConfig | None,
    ) -> None:
        configurable: dict[str, Any] = (config or {}).get("configurable", {})
        self.checkpoint_ns: str | None = configurable.get("checkpoint_ns")
        """The only namespace that is listed; None for all."""
        self.is_over = False
        self._database = database
        self._conditions: list[str] = []
        self._params: NewRow = {}
        self._nested: dict[str, Any] = {}
        if config is not None:
            self._require("thread_id = :thread_id", thread_id=str(configurable["thread_id"]))
            if self.checkpoint_ns is not None:
                self._require("checkpoint_ns = :checkpoint_ns", checkpoint_ns=self.checkpoint_ns)
            if checkpoint_id := checkpoint_id_of(config):
                self._require("checkpoint_id = :checkpoint_id", checkpoint_id=checkpoint_id)
        if before is not None and (before_id := checkpoint_id_of(before)):
            self._require("checkpoint_id < :before", before=before_id)
        if filter:
            wanted: dict[str, Any] = loads(dumps(filter))
            if "thread_id" in wanted:  # langgraph leaves it out of the metadata that is stored
                self._require("thread_id = :wanted_id", wanted_id=str(wanted.pop("thread_id")))
            condition, params = database.dialect.json_contains(
                "checkpoints.metadata", wanted, "filter"
            )
            self._require(condition, **params)
            # Containment is equality for scalars; nested values are compared once more.
            self._nested = {k: v for k, v in wanted.items() if isinstance(v, dict | list)}
        visits_little = config is not None and not filter
        self._fetch = database.read_all if visits_little else database.scan
        self._is_one_namespace = config is not None and self.checkpoint_ns is not None

    def _require(self, condition: str, **params: Any) -> None:
        self._conditions.append(condition)
        self._params.update(params)

    async def turn(self, size: int) -> Sequence[Row]:
        """The matches among the next ``size`` rows; ``is_over`` tells that they were the last."""
        conditions = list(self._conditions)
        if "last_id" in self._params:
            conditions.append(
                "checkpoint_id < :last_id"
                if self._is_one_namespace
                else "(checkpoint_id, checkpoint_ns, thread_id)"
                " < (:last_id, :last_ns, :last_thread)"
            )
        rows = await self._fetch(
            queries.LIST_CHECKPOINTS.format(conditions=" AND ".join(conditions) or "1 = 1"),
            {**self._params, "limit": size},
        )
        self.is_over = len(rows) < size
        if rows:
            last = rows[-1]
            self._params["last_id"] = last["checkpoint_id"]
            self._params["last_ns"] = last["checkpoint_ns"]
            self._params["last_thread"] = last["thread_id"]
        return [row for row in rows if self._matches(row)] if self._nested else rows

    def _matches(self, row: Row) -> bool:
        metadata: dict[str, Any] = loads(row["metadata"])
        return all(metadata.get(key) == value for key, value in self._nested.items())
