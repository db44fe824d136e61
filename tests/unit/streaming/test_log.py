"""The event log: one order, every reader exactly what came after it, nothing kept for nobody."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest

from treadle.streaming import log as module
from treadle.streaming.entries import COUNTER_BITS, ENTRY_BYTES, Entry, id_text, parse_id_text
from treadle.streaming.log import BURST_SECONDS, TAKE_BYTES, EventHub, Reader, ThreadLog

THREAD = "00000000-0000-0000-0000-000000000001"
RUN, OTHER_RUN = "run", "other run"


def append(log: ThreadLog, data: Any = b"{}", keep: bool = False, run_id: str = RUN) -> Entry:
    return log.append(run_id, "event", "custom", str(data).encode(), keep=keep)


async def read(reader: Reader, many: int) -> list[bytes]:
    """The data of the next entries."""
    found: list[bytes] = []
    while len(found) < many:
        entries = await reader.next(5)
        assert entries
        found += [entry.data for entry in entries]
    assert len(found) == many
    return found


async def until(condition: Callable[[], bool]) -> None:
    """Let the loop turn until ``condition()``."""
    async with asyncio.timeout(5):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0)


async def replayed(hub: EventHub, after: int = 0, until: int = 2**62, run: Any = None) -> list[Any]:
    return [entry.data for entry in await hub.replay(THREAD, run, after, until)]


# -- ids ---------------------------------------------------------------------------------------


def grows(ids: list[int]) -> bool:
    return all(one < other for one, other in pairwise(ids))


def test_ids_grow_strictly_within_a_millisecond(log, monkeypatch):
    monkeypatch.setattr(time, "time_ns", lambda: 1_795_250_979_934_000_000)
    ids = [append(log).id for _ in range(5000)]
    assert grows(ids)
    assert [id_text(id) for id in ids[:2]] == ["1795250979934-0", "1795250979934-1"]


def test_ids_grow_strictly_when_the_clock_goes_back(log, monkeypatch):
    times = iter([9_000_000_000_000, 8_000_000_000_000, 1, 9_000_000_000_001, 9_100_000_000_000])
    monkeypatch.setattr(time, "time_ns", lambda: next(times))
    ids = [append(log).id for _ in range(5)]
    assert grows(ids)
    assert [id_text(id) for id in ids] == [
        "9000000-0",
        "9000000-1",
        "9000000-2",
        "9000000-3",
        "9100000-0",
    ]


def test_ids_grow_across_logs_of_a_thread(hub, monkeypatch):
    """A log that nobody reads or writes is dropped; the next one goes on where it was."""
    monkeypatch.setattr(time, "time_ns", lambda: 1_000_000)
    ids: list[int] = []
    for _ in range(3):
        log = hub.log(THREAD)
        log.hold()
        ids += [append(log).id, append(log).id]
        log.release()
        assert hub.log(THREAD) is not log
    assert grows(ids)


async def test_ids_grow_across_a_restart_with_the_clock_going_back(database, monkeypatch):
    monkeypatch.setattr(time, "time_ns", lambda: 2_000_000_000)
    hub = EventHub(database)
    await hub.open()
    before = append(hub.log(THREAD), keep=True).id
    await database.flush()
    monkeypatch.setattr(time, "time_ns", lambda: 1_000_000_000)
    hub = EventHub(database)
    await hub.open()
    assert append(hub.log(THREAD)).id > before
    assert append(hub.log("another")).id > before


NOTES_OF_TIME = {
    "a thread's update": (
        "INSERT INTO threads (thread_id, created_at, updated_at, state_updated_at)"
        " VALUES ('t', 0, :us, 0)"
    ),
    "a dead worker's lease": "INSERT INTO workers (owner, lease_until) VALUES ('me', :us)",
}


@pytest.mark.parametrize("sql", NOTES_OF_TIME.values(), ids=NOTES_OF_TIME)
async def test_after_a_restart_ids_grow_though_nothing_was_kept_and_the_clock_went_back(
    hub, database, sql, monkeypatch
):
    monkeypatch.setattr(time, "time_ns", lambda: 2_000_000_000_999_999)
    told = [append(hub.log(THREAD)).id for _ in range(3)][-1]

    async def note(transaction: Any) -> None:
        await transaction.execute(sql, {"us": 2_000_000_000_999})

    await database.write(note)
    monkeypatch.setattr(time, "time_ns", lambda: 1_000_000_000)
    hub = EventHub(database)
    await hub.open()
    assert append(hub.log(THREAD)).id > told


async def test_the_lease_of_a_worker_that_lives_says_nothing_of_ids(database, monkeypatch):
    async def note(transaction: Any) -> None:
        await transaction.execute(NOTES_OF_TIME["a dead worker's lease"], {"us": 2 * 10**9})

    await database.write(note)
    monkeypatch.setattr(time, "time_ns", lambda: 10**12)
    hub = EventHub(database)
    await hub.open(alone=False)
    assert append(hub.log(THREAD)).id == 10**6 << COUNTER_BITS


@pytest.mark.parametrize("text", ["1795250979934-0", "1795250979934-1048575", "0-0", "12-3"])
def test_ids_as_clients_see_them_are_read_back(text):
    id = parse_id_text(text)
    assert id is not None
    assert id_text(id) == text


@pytest.mark.parametrize(
    ("text", "same_as"),
    [("5", "5-0"), ("5-9999999", "5-1048575"), ("007-01", "7-1")],
)
def test_ids_that_clients_may_also_write(text, same_as):
    assert parse_id_text(text) == parse_id_text(same_as)


NO_IDS = """
- -1 -0 garbage 1-x x-1 1.5 1-2-3 +1 1e3 \u0661-\u0662 \u00b2 1_0 0x1 99999999999999 1-99999999
"""


@pytest.mark.parametrize("text", ["", " 1-2", "1-2 ", "1\n", *NO_IDS.split()])
def test_what_is_no_id(text):
    assert parse_id_text(text) is None


# -- frames ------------------------------------------------------------------------------------


def test_the_frames_of_an_entry():
    entry = Entry((7 << COUNTER_BITS) + 3, RUN, "event", "values|ä:1", '{"a":"日"}'.encode())
    plain = 'event: values|ä:1\r\ndata: {"a":"日"}\r\n\r\n'.encode()
    assert entry.frame == plain
    assert entry.frame_with_id == plain[:-2] + b"id: 7-3\r\n\r\n"


def test_a_frame_is_made_once_for_all_readers():
    entry = Entry(1, RUN, "event", "values", b"{}")
    assert entry.frame is entry.frame
    assert entry.frame_with_id is entry.frame_with_id


# -- reading -----------------------------------------------------------------------------------


async def test_a_reader_gets_everything_after_its_registration_exactly_once(log):
    append(log, "before")
    first = log.read()
    append(log, 1)
    second = log.read()
    append(log, 2)
    assert await read(first, 2) == [b"1", b"2"]
    append(log, 3)
    assert await read(second, 2) == [b"2", b"3"]
    append(log, 4)
    assert await read(first, 2) == [b"3", b"4"]
    assert await read(second, 1) == [b"4"]


async def test_readers_that_come_and_go_miss_nothing_and_see_nothing_twice(log):
    """Many readers, each at its own pace, while entries are appended in between."""
    total = 600
    seen: list[tuple[int, list[int]]] = []

    async def consume(pace: int) -> None:
        reader = log.read()
        begin = int(appended[-1]) + 1 if appended else 0
        found: list[int] = []
        while not found or found[-1] < total - 1:
            found += [int(entry.data) for entry in await reader.next(5) or ()]
            for _ in range(pace):
                await asyncio.sleep(0)
        reader.close()
        seen.append((begin, found))

    appended: list[int] = []
    readers: list[asyncio.Task[None]] = []
    for number in range(total):
        if number % 50 == 0:
            readers.append(asyncio.create_task(consume(number % 7)))
        append(log, number)
        appended.append(number)
        if number % 3 == 0:
            await asyncio.sleep(0)
    async with asyncio.timeout(10):
        await asyncio.gather(*readers)
    assert len(seen) == 12
    for begin, found in seen:
        assert found == list(range(begin, total))


async def test_start_id_parts_the_past_from_what_is_read(hub, log):
    """What is kept up to it and what is read after it are all there is, once."""
    for number in range(3):
        append(log, number, keep=True)
    reader = log.read()
    for number in range(3, 6):
        append(log, number, keep=True)
    past = await replayed(hub, until=reader.start_id)
    assert past + await read(reader, 3) == [b"0", b"1", b"2", b"3", b"4", b"5"]


async def test_next_gives_nothing_after_its_timeout_and_goes_on(log):
    reader = log.read()
    assert list(await reader.next(0.001) or ()) == []
    append(log, 1)
    assert await read(reader, 1) == [b"1"]


async def test_an_entry_wakes_a_reader_that_waits(log):
    reader = log.read()
    waiting = asyncio.create_task(reader.next(60))
    await asyncio.sleep(0)
    append(log, 1)
    async with asyncio.timeout(5):
        [entry] = await waiting
    assert entry.data == b"1"


async def test_wake_lets_a_reader_look_again(log):
    reader = log.read()
    waiting = asyncio.create_task(reader.next(60))
    await asyncio.sleep(0)
    reader.wake()
    assert list(await waiting) == []


async def test_a_reader_that_is_cancelled_can_go_on(log):
    reader = log.read()
    waiting = asyncio.create_task(reader.next(60))
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    append(log, 1)
    assert await read(reader, 1) == [b"1"]


async def test_in_a_burst_readers_are_woken_once_for_several_entries(log, monkeypatch):
    """The first after a pause at once, what follows it within a moment together."""
    loop = asyncio.get_running_loop()
    now = 1000.0
    monkeypatch.setattr(loop, "time", lambda: now)
    reader = log.read()
    append(log, 0)
    assert await read(reader, 1) == [b"0"]
    waiting = asyncio.create_task(reader.next(60))
    await asyncio.sleep(0)
    for number in range(1, 10):
        append(log, number)
        await asyncio.sleep(0)
        assert not waiting.done()
    now += BURST_SECONDS
    async with asyncio.timeout(None):
        entries = await waiting
    assert [entry.data for entry in entries] == [str(n).encode() for n in range(1, 10)]


# -- what is kept in memory --------------------------------------------------------------------


def in_memory(log: ThreadLog) -> int:
    return len(log._entries)


async def test_without_readers_nothing_is_kept_in_memory(log):
    log.hold()
    for number in range(100):
        append(log, number)
    assert in_memory(log) == 0
    reader = log.read()
    append(log, "new")
    assert await read(reader, 1) == [b"new"]


async def test_what_all_have_passed_is_forgotten(log):
    fast, slow = log.read(), log.read()
    for number in range(1000):
        append(log, number)
    await read(fast, 1000)
    assert in_memory(log) == 1000
    await read(slow, 1000)
    append(log, "more")
    await until(lambda: in_memory(log) <= 1)
    append(log, "end")
    assert await read(slow, 2) == await read(fast, 2) == [b"more", b"end"]
    slow.close()
    fast.close()
    assert in_memory(log) == 0


async def test_a_reader_that_leaves_takes_along_what_only_it_had_to_read(log):
    fast, slow = log.read(), log.read()
    for number in range(1000):
        append(log, number)
    await read(fast, 1000)
    slow.close()
    assert in_memory(log) == 0
    append(log, "more")
    assert await read(fast, 1) == [b"more"]


async def test_a_reader_that_falls_too_far_behind_is_cut_off_and_only_that_one(log, monkeypatch):
    monkeypatch.setattr(module, "READER_LIMIT_BYTES", 10_000)
    slow, fast = log.read(), log.read()
    append(log, "first")
    await read(fast, 1)
    for _ in range(20):
        append(log, "x" * 1000)
        await read(fast, 1)
    await until(lambda: slow.cut_off)
    assert await slow.next(5) is None
    assert await slow.next(5) is None
    assert not fast.cut_off
    assert in_memory(log) == 0
    append(log, "more")
    assert await read(fast, 1) == [b"more"]


async def test_small_entries_count_for_what_they_take(log, monkeypatch):
    monkeypatch.setattr(module, "READER_LIMIT_BYTES", 100 * ENTRY_BYTES)
    slow = log.read()
    for _ in range(102):
        append(log, "")
    await until(lambda: slow.cut_off)
    assert in_memory(log) == 0


async def test_a_backlog_is_taken_in_parts_and_goes_from_memory_as_it_is(log):
    reader = log.read()
    for number in range(100):
        log.append(RUN, "event", "values", b"%06d" % number + b"x" * 100_000)
    waiting, seen = reader.lag_bytes, []
    while len(seen) < 100:
        part = await reader.next(5)
        size = sum(entry.size_bytes for entry in part)
        assert size < TAKE_BYTES + 250_000
        seen += [int(entry.data[:6]) for entry in part]
        waiting -= size
        assert reader.lag_bytes == waiting
        assert in_memory(log) == 100 - len(seen)
    assert seen == list(range(100))


async def test_who_reads_gets_what_was_there_when_the_hub_closed(hub, log):
    reader = log.read()
    append(log, "last")
    hub.close()
    assert await read(reader, 1) == [b"last"]
    assert await reader.next(5) is None


async def test_a_cut_off_reader_that_waits_is_told_at_once(log):
    reader = log.read()
    waiting = asyncio.create_task(reader.next(60))
    await asyncio.sleep(0)
    log.close()
    async with asyncio.timeout(5):
        assert await waiting is None


async def test_closing_the_hub_cuts_off_every_reader(hub):
    readers = [hub.log(thread).read() for thread in ("a", "b", "a")]
    hub.close()
    assert [await reader.next(5) for reader in readers] == [None, None, None]


async def test_watched_counts_those_who_want_events(log):
    assert log.watched == 0
    ends, events, more = log.read(watches=False), log.read(), log.read()
    assert log.watched == 2
    events.close()
    events.close()
    ends.close()
    assert log.watched == 1
    more.close()
    assert log.watched == 0


def test_a_log_lives_as_long_as_somebody_reads_or_writes(hub):
    log = hub.log(THREAD)
    reader = log.read()
    log.hold()
    reader.close()
    assert hub.log(THREAD) is log
    late = log.read()
    log.release()
    assert hub.log(THREAD) is log
    late.close()
    assert hub._logs == {}


def test_threads_have_logs_of_their_own(hub):
    assert hub.log("a") is not hub.log("b")
    assert hub.log("a") is hub.log("a")


# -- keeping -----------------------------------------------------------------------------------


async def test_only_kept_entries_are_replayed(hub, log):
    append(log, 1, keep=True)
    append(log, 2)
    append(log, 3, keep=True)
    assert await replayed(hub) == [b"1", b"3"]


async def test_a_replayed_entry_equals_the_original(hub, log):
    original = log.append(RUN, "event", "values|ä:1", '{"a":"日"}'.encode(), keep=True)
    [entry] = await hub.replay(THREAD, None, 0, original.id)
    for field in ("id", "run_id", "kind", "name", "data", "frame", "frame_with_id"):
        assert getattr(entry, field) == getattr(original, field)


async def test_replay_is_after_one_id_and_up_to_another(hub, log):
    ids = [append(log, number, keep=True).id for number in range(10)]
    assert await replayed(hub, after=ids[3], until=ids[6]) == [b"4", b"5", b"6"]
    assert await replayed(hub, after=ids[4], until=ids[5] - 1) == []
    assert await replayed(hub, after=ids[9]) == []


async def test_replay_of_one_run(hub, log):
    for number in range(6):
        append(log, number, keep=True, run_id=RUN if number % 2 else OTHER_RUN)
    assert await replayed(hub, run=RUN) == [b"1", b"3", b"5"]
    assert await replayed(hub, run="no such run") == []


async def test_threads_are_replayed_apart(hub):
    append(hub.log(THREAD), "mine", keep=True)
    append(hub.log("another"), "theirs", keep=True)
    assert await replayed(hub) == [b"mine"]


async def test_a_long_replay_comes_in_pages(hub, log, monkeypatch):
    monkeypatch.setattr(module, "REPLAY_PAGE", 10)
    ids = [append(log, number, keep=True).id for number in range(25)]
    page = await hub.replay(THREAD, None, 0, ids[-1])
    assert 0 < len(page) <= 10
    seen: list[int] = []
    while page:
        seen += [entry.id for entry in page]
        page = await hub.replay(THREAD, None, seen[-1], ids[-1])
    assert seen == ids


async def test_a_page_of_large_entries_has_few(hub, log, monkeypatch):
    monkeypatch.setattr(module, "REPLAY_BYTES", 1000)
    ids = [append(log, "x" * size, keep=True).id for size in (5000, 400, 400, 400, 1, 1)]
    places = [0, ids[0], ids[3], ids[5]]
    for after, end in pairwise(places):
        for run in (None, RUN):
            page = await hub.replay(THREAD, run, after, ids[-1])
            assert [entry.id for entry in page] == [id for id in ids if after < id <= end]


async def test_kept_entries_survive_the_process(new_database):
    for expected in ([b"0"], [b"0", b"1"], [b"0", b"1", b"2"]):
        database = new_database()
        await database.open()
        hub = EventHub(database)
        await hub.open()
        append(hub.log(THREAD), len(expected) - 1, keep=True)
        assert await replayed(hub) == expected
        await database.close()


async def test_clients_and_what_waits_for_them_are_counted(hub):
    def figures() -> dict[str, Any]:
        return {figure.name: figure.value for figure in hub.figures()}

    assert set(figures().values()) == {0}
    log = hub.log(THREAD)
    reader, waiter = log.read(), log.read(watches=False)
    append(log, "x" * 1000)
    assert figures()["treadle_stream_clients"] == 1
    assert figures()["treadle_event_log_memory_bytes"] > 1000
    await read(reader, 1)
    await read(waiter, 1)
    assert figures()["treadle_event_log_memory_bytes"] == 0
    reader.close()
    assert figures()["treadle_stream_clients"] == 0
