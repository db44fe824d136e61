"""Finding threads."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

from treadle.auth import Caller, authorize
from treadle.database import Database, Row
from treadle.errors import Invalid, Refused
from treadle.ids import parse_id
from treadle.threads import queries
from treadle.threads.extract import parse_extracts
from treadle.threads.models import ThreadCount, ThreadSearch
from treadle.threads.rows import picked_columns, picker

Json = dict[str, Any]


class Page(NamedTuple):
    """One page of what a search found."""

    threads: list[Json]
    total: int
    """How many there are on all pages."""
    next_offset: int | None
    """Where the next page begins; None on the last."""


class ThreadFinder:
    """Searches and counts, whatever they cost never on the event loop's time."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def search(self, caller: Caller, wanted: ThreadSearch) -> Page:
        """One page of the threads that match every filter."""
        ids = _parse_ids(wanted.ids)
        extracts = parse_extracts(wanted.extract) if wanted.extract else {}
        value = {**_filters(wanted), "limit": wanted.limit, "offset": wanted.offset}
        if ids:
            value["ids"] = ids
        allowed = await authorize(caller, "threads", "search", value)
        columns = picked_columns(wanted.select, extracts)
        search = queries.Search(self._database.dialect, wanted, ids, allowed, columns)
        rows, total = await self._page(search, wanted)
        pick = picker(wanted.select, extracts)
        threads = [pick(row) for row in rows[: wanted.limit]]
        more = len(rows) > wanted.limit
        return Page(threads, total, wanted.offset + wanted.limit if more else None)

    async def count(self, caller: Caller, wanted: ThreadCount) -> int:
        """How many threads match every filter."""
        value = {**_filters(wanted), "limit": 0, "offset": 0}
        allowed = await authorize(caller, "threads", "search", value)
        return await self._total(queries.Search(self._database.dialect, wanted, (), allowed))

    async def _page(self, search: queries.Search, wanted: ThreadSearch) -> tuple[list[Row], int]:
        """The rows of a page, and one more if there is one; and how many there are in all.

        A page that is read off an index, or from few threads that an index selects, is read
        right here; anything else is a scan.
        """
        database = self._database
        read = database.scan
        if search.is_read_off_an_index:
            read = database.read_all
        elif search.is_selective:
            found = [row["seq"] for row in await database.read_all(search.probe, search.params)]
            if len(found) <= queries.MAX_SELECTED:
                page, params = search.page_of(database.dialect, found)
                return list(await database.read_all(page, params)), len(found)
        rows = list(await read(search.page, search.params))
        is_end = len(rows) <= wanted.limit and (rows or not wanted.offset)
        return rows, wanted.offset + len(rows) if is_end else await self._total(search)

    async def _total(self, search: queries.Search) -> int:
        (row,) = await self._database.scan(search.count, search.params)
        return row["total"]


def _filters(wanted: ThreadCount | ThreadSearch) -> Json:
    status = wanted.status if isinstance(wanted.status, str) else None
    return {"metadata": wanted.metadata, "values": wanted.values, "status": status}


def _parse_ids(texts: Iterable[str]) -> list[str]:
    ids: list[str] = []
    for text in texts:
        try:
            ids.append(parse_id(text, "thread"))
        except Invalid:
            raise Refused(f"Invalid thread ID {text}") from None
    return ids
