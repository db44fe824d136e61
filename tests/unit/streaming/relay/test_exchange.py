"""Two processes' hubs over one database: one executes, the other has readers."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from treadle.cluster.signals import Signals
from treadle.database.postgres import PostgresDatabase
from treadle.runs.outcome import Outcome
from treadle.streaming.entries import Entry
from treadle.streaming.log import EventHub, Reader
from treadle.streaming.relay import watching
from treadle.streaming.relay.batches import Chunk, pack, sent, unpack
from treadle.streaming.relay.exchange import Exchange
from treadle.streaming.relay.relays import DatabaseRelay

THREAD = "thread"


class House:
    """What a process has of the relay."""

    def __init__(self, database: PostgresDatabase) -> None:
        self.database = database
        self.signals = Signals(database)
        self.hub = EventHub(database)
        self.ends = DatabaseRelay(database, self.signals)
        self.exchange = Exchange(self.hub, database, self.signals, self.ends, None, Outcome.unpack)
        self.forwarding: Any = None

    async def open(self) -> None:
        await self.signals.open()
        await self.exchange.open(self._outcome)

    async def _outcome(self, thread_id: str, run_id: str) -> Outcome:
        return Outcome.told("success", b"{}")

    async def close(self) -> None:
        await self.exchange.close()
        await self.signals.close()

    # -- executing -------------------------------------------------------------------------

    def begin(self, watchers: str | None = None, told: int = 0, kept: bool = False) -> Any:
        log = self.hub.log(THREAD)
        log.hold()
        row = {"last_event_id": told, "floor_id": told, "watchers": watchers}
        self.forwarding = self.exchange.begin(log, row, kept)
        return log

    async def go_on(self, told: int, attempt: int = 1, kept: bool = False) -> Entry:
        """The first event of a run that is claimed after others have told up to ``told``."""
        log = self.begin(told=told)
        kwargs = json.dumps({"resumable": kept})
        row = {"last_event_id": told, "run_id": "new", "attempt": attempt, "kwargs": kwargs}
        await self.exchange.catch_up(log, row)
        return log.append("new", "event", "metadata", b"")

    async def end(self, *names: str) -> list[Entry]:
        log = self.hub.log(THREAD)
        self.exchange.flush()
        after = log.handed_id
        told = [log.entry("run", "event", name, b"") for name in names]
        told.append(log.entry("run", "end", "metadata", b"{}", Outcome("success", {"a": 1})))
        await self.database.write(lambda tx: self.exchange.end_in(tx, THREAD, told, after, False))
        for entry in told:
            log.publish(entry, forwarded=True)
        self.exchange.end(self.forwarding)
        return told


@pytest.fixture
async def database(postgres_uri: str, empty_postgres: Any) -> AsyncIterator[PostgresDatabase]:
    database = PostgresDatabase(postgres_uri)
    await database.open()
    empty_postgres()
    await database.write(_make_thread)
    yield database
    await database.close()


async def _make_thread(tx: Any) -> None:
    await tx.execute("DELETE FROM watches")
    await tx.execute("DELETE FROM live_batches")
    await tx.execute(
        "INSERT INTO threads (thread_id, created_at, updated_at, state_updated_at)"
        " VALUES ('thread', 0, 0, 0)"
    )


@pytest.fixture
async def houses(database: PostgresDatabase) -> AsyncIterator[tuple[House, House]]:
    works, reads = House(database), House(database)
    await works.open()
    await reads.open()
    yield works, reads
    await works.close()
    await reads.close()


async def running(house: House, tx: Any) -> None:
    await tx.execute(
        "INSERT INTO runs (run_id, thread_id, assistant_id, graph_id, status, created_at,"
        " updated_at, metadata, kwargs, multitask_strategy, owner)"
        " VALUES ('run', 'thread', 'a', 'g', 'running', 0, 0, '{}', '{}', 'enqueue', :owner)",
        {"owner": f"host:1:{house.signals.me}.1"},
    )


async def read(reader: Reader, count: int) -> list[Entry]:
    entries: list[Entry] = []
    async with asyncio.timeout(5):
        while len(entries) < count:
            entries += await reader.next(5) or ()
    return entries


async def test_a_reader_that_joins_gets_what_follows(houses, database):
    works, reads = houses
    await database.write(lambda tx: running(works, tx))
    log = works.begin()
    for number in range(5):
        log.append("run", "event", f"before {number}", b"")
    reader = await reads.hub.open_reader(THREAD)
    assert reader.start_id == log.told_id
    made = [log.append("run", "event", f"{number}", b"x") for number in range(50)]
    last = await works.end("error")
    got = await read(reader, 52)
    assert [(one.id, one.name, one.data) for one in got] == [
        (one.id, one.name, one.data) for one in (*made, *last)
    ]
    assert got[-1].payload.json() == b'{"a":1}'
    reader.close()


async def test_one_who_is_known_at_the_claim_gets_the_first_event(houses, database):
    works, reads = houses
    log_there = reads.hub.log(THREAD)
    reader = log_there.read()
    assert reads.exchange.expect(log_there, True)
    await database.write(lambda tx: reads.exchange.watch_in(tx, THREAD, True))
    reads.exchange.created(log_there, True)
    assert not reads.exchange.expect(log_there, True)
    log = works.begin(f"{reads.signals.me} 3")
    entry = log.append("run", "event", "metadata", b"{}")
    assert (await read(reader, 1))[0].id == entry.id
    reader.close()


async def test_who_only_waits_gets_no_events(houses, database):
    works, reads = houses
    await database.write(lambda tx: running(works, tx))
    log = works.begin()
    reader = await reads.hub.open_reader(THREAD, watches=False)
    assert log.watched == 0
    log.append("run", "event", "x", b"")
    await works.end()
    (entry,) = await read(reader, 1)
    assert entry.kind == "end"
    reader.close()


async def test_nobody_watches_nothing_is_sent(houses, database):
    works, _ = houses
    log = works.begin()
    assert log.forward is None
    log.append("run", "event", "x", b"")
    await works.end()
    assert await database.read_all("SELECT origin FROM live_batches") == []


async def test_numbered_events_keep_their_numbers(houses, database):
    works, reads = houses
    await database.write(lambda tx: running(works, tx))
    log = works.begin()
    asked: list[int] = []
    log.on_numbered_reader = lambda: asked.append(1)
    reader = await reads.hub.open_reader(THREAD, watches=False, numbered=True)
    assert asked == [1]
    for _ in range(3):
        log.append("run", "event", "x", b"", numbered=True)
    got = await read(reader, 3)
    assert [entry.seq for entry in got] == [1, 2, 3]
    reader.close()


class Heard:
    """A watched thread whose pieces the test hands over itself."""

    def __init__(self, house: House, reader: Reader) -> None:
        self._house, self.reader = house, reader

    def take(
        self,
        after: int,
        *ids: int,
        kept: bool = False,
        end: bool = False,
        seq: int | None = None,
    ) -> None:
        entries = [sent(Entry(id, "run", "event", f"{id}", b"", seq=seq)) for id in ids]
        if end:
            outcome = Outcome("success")
            entries.append(sent(Entry(ids[-1] + 1, "run", "end", "metadata", b"", outcome)))
        chunk = Chunk(THREAD, after, entries, kept, is_end=end)
        self._house.exchange._watches.receive("other", pack([chunk]))

    async def ids(self, count: int) -> list[int]:
        return [entry.id for entry in await read(self.reader, count)]


@pytest.fixture
async def heard(houses: Any, monkeypatch: Any) -> AsyncIterator[Heard]:
    monkeypatch.setattr(watching, "HOLD_SECONDS", 0.05)
    _, reads = houses
    reader = await reads.hub.open_reader(THREAD)
    yield Heard(reads, reader)
    reader.close()


async def keep(database: PostgresDatabase, *ids: int, numbered: bool = False) -> None:
    """Have events in the database; their numbers begin with 1."""

    async def insert(tx: Any) -> None:
        for seq, id in enumerate(ids, 1):
            await tx.execute(
                "INSERT INTO events (thread_id, id, run_id, kind, name, data, seq)"
                " VALUES ('thread', :id, 'run', 'event', :name, '', :seq)",
                {"id": id, "name": f"{id}", "seq": seq if numbered else None},
            )

    await database.write(insert)


async def test_what_comes_twice_is_told_once(heard):
    heard.take(0, 5, 6)
    heard.take(0, 5, 6)
    heard.take(6, 7)
    assert await heard.ids(3) == [5, 6, 7]


async def test_what_overtakes_waits(heard):
    heard.take(0, 5)
    heard.take(7, 8)
    heard.take(6, 7)
    heard.take(5, 6)
    assert await heard.ids(4) == [5, 6, 7, 8]


async def test_a_gap_is_filled_with_what_is_kept(heard, database):
    heard.take(0, 5)
    await keep(database, 5, 6, 7)
    heard.take(7, 8, kept=True)
    assert await heard.ids(4) == [5, 6, 7, 8]


async def test_a_gap_that_cannot_be_filled_breaks_streams_off(heard):
    heard.take(0, 5)
    await heard.ids(1)
    heard.take(7, 8)
    async with asyncio.timeout(5):
        while await heard.reader.next(5) is not None:
            pass
    assert heard.reader.cut_off


async def test_a_gap_of_numbered_events_is_filled_once(heard, houses, database):
    _, reads = houses
    reader = await reads.hub.open_reader(THREAD, watches=False, numbered=True)
    await keep(database, 5, 6, 7, 8, numbered=True)
    log = reads.hub.log(THREAD)
    heard.take(0, 5, seq=1)
    heard.take(7, 8, kept=True, seq=4)
    assert await heard.ids(4) == [5, 6, 7, 8]
    assert [one.seq for one in await read(reader, 4)] == [1, 2, 3, 4]
    assert log.told_seq == 4
    reader.close()


@pytest.mark.parametrize("attempt", [1, 2])
async def test_a_run_that_is_claimed_here_skips_nothing_that_was_kept(
    heard, houses, database, attempt
):
    """What the run before it, or its own last attempt, has told elsewhere was lost on the way."""
    _, reads = houses
    heard.take(0, 5)
    await keep(database, 5, 6, 7)
    before = json.dumps({"resumable": attempt == 1})

    async def run_before(tx: Any) -> None:
        await running(reads, tx)
        await tx.execute("UPDATE runs SET started_at = 1, kwargs = :kwargs", {"kwargs": before})

    await database.write(run_before)
    begun = await reads.go_on(7, attempt, kept=attempt == 2)
    assert await heard.ids(4) == [5, 6, 7, begun.id]
    heard.take(7, 7, end=True)  # too late
    assert [entry.kind for entry in await read(heard.reader, 1)] == ["end"]


async def test_a_run_that_is_claimed_here_waits_for_what_is_on_its_way(heard, houses):
    _, reads = houses
    heard.take(0, 5)
    begins = asyncio.create_task(reads.go_on(7))
    await asyncio.sleep(0)
    heard.take(5, 6, end=True)
    begun = await begins
    assert await heard.ids(4) == [5, 6, 7, begun.id]
    assert not heard.reader.cut_off


async def test_a_run_that_is_claimed_here_breaks_off_streams_that_have_missed_something(
    heard, houses
):
    _, reads = houses
    heard.take(0, 5)
    await heard.ids(1)
    await reads.go_on(7)
    assert heard.reader.cut_off


async def test_an_end_that_overtakes_the_first_event_waits(houses, database):
    _, reads = houses
    log = reads.hub.log(THREAD)
    reader = log.read()
    reads.exchange.expect(log, True)
    reads.exchange.created(log, True)
    heard = Heard(reads, reader)
    heard.take(6, 7, end=True)
    heard.take(3, 5, 6)
    assert await heard.ids(4) == [5, 6, 7, 8]
    reader.close()


async def test_an_end_that_comes_late_still_reaches_those_who_wait(heard):
    heard.take(0, 9)
    heard.take(4, 5, end=True)
    entries = await read(heard.reader, 2)
    assert [(entry.kind, entry.name) for entry in entries] == [("event", "9"), ("end", "")]


async def test_what_nobody_reads_is_no_longer_watched(houses, database, monkeypatch):
    monkeypatch.setattr(watching, "IDLE_SECONDS", 0.0)
    _, reads = houses
    reader = await reads.hub.open_reader(THREAD)
    assert len(await database.read_all("SELECT thread_id FROM watches")) == 1
    reader.close()
    async with asyncio.timeout(5):
        while await database.read_all("SELECT thread_id FROM watches"):  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    assert reads.hub.current(THREAD) is None


def test_pieces_are_what_they_were():
    outcome = Outcome("error", None, {"error": "E", "message": "m"})
    entry = Entry(7, "run", "end", "metadata", b"\x00\xff", outcome, 3, "label", b"params")
    [chunk] = unpack(pack([Chunk("t", 5, [sent(entry)], True)]))
    [one] = chunk.entries
    assert (one.id, one.data, one.seq, one.params) == (7, b"\x00\xff", 3, b"params")
    again = Outcome.unpack(one.payload or b"")
    assert (again.status, again.json(), again.error) == (
        "error", b'{"__error__":{"error":"E","message":"m"}}', outcome.error,
    )  # fmt: skip
