"""How long kept events are kept, and what is said of those that are gone."""

from __future__ import annotations

from typing import Any

import pytest

from treadle.clock import SECOND_US, now_us
from treadle.database import Database, pieces
from treadle.streaming.entries import COUNTER_BITS, Entry, id_text
from treadle.streaming.log import EventHub
from treadle.streaming.retention import ROW_BYTES, EventsTrimmed, KeptEvents, Retention

THREAD = "00000000-0000-0000-0000-000000000001"
OTHER_THREAD = "00000000-0000-0000-0000-000000000002"
RUN, NEXT_RUN, OTHER_RUN = "run-1", "run-2", "other"
TTL_SECONDS = 120
LATER = (TTL_SECONDS + 1) * SECOND_US
ROOM = 10**9


class Kept:
    """Threads with runs that have kept events."""

    def __init__(self, database: Database, hub: EventHub) -> None:
        self.database, self.hub = database, hub
        self.events = KeptEvents(hub)

    async def begin(self, run_id: str, thread_id: str = THREAD) -> None:
        async def insert(tx: Any) -> None:
            await tx.execute(
                "INSERT INTO threads (thread_id, created_at, updated_at, state_updated_at)"
                " VALUES (:thread_id, 1, 1, 1) ON CONFLICT DO NOTHING",
                {"thread_id": thread_id},
            )
            await tx.execute(
                "INSERT INTO runs (run_id, thread_id, assistant_id, graph_id, status, created_at,"
                " updated_at, metadata, kwargs, multitask_strategy)"
                " VALUES (:run_id, :thread_id, 'a', 'g', 'running', 1, 1, '{}', '{}', 'reject')",
                {"run_id": run_id, "thread_id": thread_id},
            )

        await self.database.write(insert)

    async def end(self, run_id: str, thread_id: str = THREAD, status: str = "success") -> Entry:
        async def end(tx: Any) -> None:
            await tx.execute(
                "UPDATE runs SET status = :status, updated_at = :now WHERE run_id = :run_id",
                {"run_id": run_id, "now": now_us(), "status": status},
            )

        await self.database.write(end)
        return self.hub.log(thread_id).append(run_id, "end", "metadata", b"{}", keep=True)

    def happen(
        self, run_id: str, count: int = 5, thread_id: str = THREAD, data: bytes = b"{}"
    ) -> list[int]:
        log = self.hub.log(thread_id)
        return [log.append(run_id, "event", "custom", data, keep=True).id for _ in range(count)]

    async def ended(self, run_id: str, thread_id: str = THREAD) -> list[int]:
        """A run that has ended: the ids of its events, its end last."""
        await self.begin(run_id, thread_id)
        ids = self.happen(run_id, thread_id=thread_id)
        return [*ids, (await self.end(run_id, thread_id)).id]

    async def sweep(self, after: int = LATER, max_bytes: int = ROOM) -> int:
        await self.database.flush()
        return await Retention(self.database, TTL_SECONDS, max_bytes).sweep(now_us() + after)

    async def left(self) -> list[int]:
        await self.database.flush()
        rows = await self.database.read_all("SELECT id FROM events ORDER BY id")
        return [row["id"] for row in rows]

    async def delete(self, table: str, column: str, value: str) -> None:
        async def delete(tx: Any) -> None:
            await tx.execute(f"DELETE FROM {table} WHERE {column} = :value", {"value": value})

        await self.database.write(delete)


@pytest.fixture
async def kept(database: Database, hub: EventHub) -> Kept:
    return Kept(database, hub)


@pytest.fixture(params=["whole", "smallest"])
def any_pieces(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param == "smallest":
        monkeypatch.setattr(pieces, "PIECE_SECONDS", -1)
        monkeypatch.setattr(pieces, "PAUSE_SECONDS", 0)


# -- by age ------------------------------------------------------------------------------------


@pytest.mark.usefixtures("any_pieces")
@pytest.mark.parametrize("status", ["success", "error", "interrupted", "timeout"])
async def test_the_events_of_a_run_go_some_time_after_its_end(kept, status):
    await kept.begin(RUN)
    ids = kept.happen(RUN)
    ids.append((await kept.end(RUN, status=status)).id)
    assert await kept.sweep(LATER - 2 * SECOND_US) == 0
    assert await kept.left() == ids
    assert await kept.sweep() == 6
    assert await kept.left() == []
    assert await kept.sweep() == 0


@pytest.mark.parametrize("status", ["pending", "running"])
async def test_a_run_that_goes_on_keeps_its_events_however_old(kept, status):
    await kept.begin(RUN)
    ids = kept.happen(RUN)
    await kept.end(RUN, status=status)
    assert await kept.sweep(10**6 * SECOND_US) == 0
    assert (await kept.left())[:-1] == ids


async def test_each_run_by_its_own_end(kept):
    await kept.ended(RUN)
    await kept.begin(NEXT_RUN)
    going_on = kept.happen(NEXT_RUN)
    await kept.ended(OTHER_RUN, OTHER_THREAD)
    assert await kept.sweep() == 12
    assert await kept.left() == going_on


async def test_events_of_a_run_that_is_no_more_go_by_their_own_age(kept):
    ids = await kept.ended(RUN)
    await kept.delete("runs", "run_id", RUN)
    assert await kept.sweep(0) == 0
    assert await kept.left() == ids
    assert await kept.sweep() == 6


async def test_events_of_a_thread_that_is_no_more_leave_no_trace(kept, database, orphans):
    await kept.ended(RUN)
    await kept.delete("runs", "run_id", RUN)
    await kept.delete("threads", "thread_id", THREAD)
    assert await kept.sweep() == 6
    assert await orphans(database) == {}


@pytest.mark.parametrize(("ttl", "every"), [(0, 1), (120, 30), (20, 5), (10**6, 30)])
def test_how_often_to_sweep(database, ttl, every):
    assert Retention(database, ttl, ROOM).sweep_seconds == every


# -- by size -----------------------------------------------------------------------------------


@pytest.mark.usefixtures("any_pieces")
async def test_the_oldest_events_of_a_thread_that_has_too_many_go(kept):
    await kept.begin(RUN)
    ids = kept.happen(RUN, 10, data=b"x" * 800)
    others = kept.happen(OTHER_RUN, 3, OTHER_THREAD, data=b"x" * 800)
    size = 800 + ROW_BYTES
    assert await kept.sweep(0, max_bytes=10 * size) == 0
    assert await kept.sweep(0, max_bytes=4 * size - 1) == 7
    assert await kept.left() == sorted([*ids[7:], *others])
    assert await kept.events.trimmed_until(THREAD, RUN) == ids[6]
    assert await kept.events.trimmed_until(OTHER_THREAD, None) == 0


async def test_an_event_larger_than_all_room_goes(kept):
    await kept.begin(RUN)
    kept.happen(RUN, 1, data=b"x" * 1000)
    assert await kept.sweep(0, max_bytes=500) == 1
    assert await kept.left() == []


async def test_the_last_run_keeps_what_it_can(kept):
    first = await kept.ended(RUN)
    await kept.begin(NEXT_RUN)
    second = kept.happen(NEXT_RUN)
    each = 2 + ROW_BYTES
    assert await kept.sweep(0, max_bytes=each * 5) == 6
    assert await kept.left() == second
    assert await kept.events.trimmed_until(THREAD, RUN) == first[4]
    assert await kept.events.trimmed_until(THREAD, NEXT_RUN) == 0
    assert await kept.events.trimmed_until(THREAD, None) == first[5]


# -- what is said of it ------------------------------------------------------------------------


async def test_a_client_that_has_missed_nothing_is_not_refused(kept):
    ids = await kept.ended(RUN)
    assert await kept.events.check(THREAD, RUN, ids[0]) == 0
    await kept.sweep()
    assert await kept.events.check(THREAD, RUN, ids[4]) == ids[4]
    assert await kept.events.check(THREAD, None, ids[5]) == ids[5]
    assert await kept.events.check(THREAD, RUN, ids[5] + 1000) == ids[4]


async def test_a_client_that_has_missed_something_is_told(kept):
    ids = await kept.ended(RUN)
    await kept.sweep()
    with pytest.raises(EventsTrimmed) as raised:
        await kept.events.check(THREAD, RUN, ids[3])
    assert raised.value.status == 410
    for words in (id_text(ids[3]), id_text(ids[4]), f"/threads/{THREAD}/runs/{RUN}/join"):
        assert words in str(raised.value)
    with pytest.raises(EventsTrimmed, match=f"/threads/{THREAD}/state"):
        await kept.events.check(THREAD, None, ids[4])


async def test_going_on_from_where_it_was_trimmed_gives_all_that_is_kept(kept):
    await kept.begin(RUN)
    ids = kept.happen(RUN, 10)
    await kept.sweep(0, max_bytes=4 * (2 + ROW_BYTES))
    until = await kept.events.trimmed_until(THREAD, RUN)
    page = await kept.events.replay(THREAD, RUN, until, ids[-1])
    assert [entry.id for entry in page] == ids[6:]


async def test_who_wants_everything_gets_what_is_kept(kept):
    await kept.begin(RUN)
    ids = kept.happen(RUN, 10)
    await kept.sweep(0, max_bytes=4 * (2 + ROW_BYTES))
    assert await kept.events.check(THREAD, RUN, 0) == ids[5]
    assert len(await kept.events.replay(THREAD, RUN, 0, ids[-1])) == 4


async def test_a_replay_that_is_overtaken_by_a_sweep_has_no_silent_gap(kept):
    ids = await kept.ended(RUN)
    assert await kept.events.check(THREAD, RUN, ids[1]) == 0
    await kept.sweep()
    with pytest.raises(EventsTrimmed):
        await kept.events.replay(THREAD, RUN, ids[1], ids[-1])


async def test_marks_go_with_their_thread(kept, database, orphans):
    await kept.ended(RUN)
    await kept.sweep()
    assert await database.read_all("SELECT * FROM trimmed_events")
    await kept.delete("runs", "run_id", RUN)
    await kept.delete("threads", "thread_id", THREAD)
    assert await orphans(database) == {}


async def test_ids_grow_past_what_was_removed_before_a_restart(kept, database, monkeypatch):
    ids = await kept.ended(RUN)
    await kept.sweep()
    hub = EventHub(database)
    await hub.open()
    monkeypatch.setattr("time.time_ns", lambda: 0)
    fresh = hub.log(THREAD).append(RUN, "event", "custom", b"{}")
    assert fresh.id > ids[-1] >> COUNTER_BITS << COUNTER_BITS
    assert fresh.id > ids[-1]
