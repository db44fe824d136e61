"""Which of a thread's entries the streams of a run and of a thread send, and replays."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from asgi_client import Client

from treadle.errors import Invalid
from treadle.runs.outcome import END, EVENT, GONE, GONE_KIND, STATE
from treadle.runs.streams import last_event_id, replay, run_stream, thread_stream
from treadle.serialization import dumps
from treadle.streaming import log as log_module
from treadle.streaming.entries import COUNTER_BITS, Entry, id_text
from treadle.streaming.log import EventHub, ThreadLog

THREAD, RUN, OTHER = "thread", "run", "other"


class Told:
    """A thread on which things happen, and what a stream of it sends."""

    def __init__(self, hub: EventHub) -> None:
        self.hub = hub
        self.log: ThreadLog = hub.log(THREAD)
        self.log.hold()
        self.client = Client()

    def event(self, name: str, run_id: str = RUN, keep: bool = False, data: str = "{}") -> int:
        return self.log.append(run_id, EVENT, name, data.encode(), keep=keep).id

    def end(self, run_id: str = RUN, keep: bool = False) -> int:
        data = dumps({"status": "run_done", "run_id": run_id})
        return self.log.append(run_id, END, "metadata", data, keep=keep).id

    def gone(self, run_id: str) -> None:
        self.log.append(run_id, GONE_KIND, "error", dumps(GONE))

    def state(self) -> None:
        self.log.append("", STATE, "state_update", b"{}")

    async def sends(self, response: Any, happens: Any = lambda: None) -> list[str]:
        """Names of the events that a response sends while something happens."""
        task = asyncio.create_task(self.client.gets(response))
        while not self.client.status:  # noqa: ASYNC110
            await asyncio.sleep(0)
        happens()
        async with asyncio.timeout(5):
            await task
        return self.names()

    def names(self) -> list[str]:
        lines = self.client.body.decode().split("\r\n")
        return [line.removeprefix("event: ") for line in lines if line.startswith("event: ")]

    def ids(self) -> list[str]:
        lines = self.client.body.decode().split("\r\n")
        return [line.removeprefix("id: ") for line in lines if line.startswith("id: ")]


@pytest.fixture
async def told(database) -> Told:
    return Told(EventHub(database))


def of_run(told: Told, **more: Any) -> Any:
    return run_stream(told.log.read(), RUN, with_ids=False, headers=(), **more)


# -- the stream of a run -----------------------------------------------------------------------


async def test_a_run_stream_has_the_events_of_its_run_and_nothing_else(told):
    def happens() -> None:
        told.event("metadata", OTHER)
        told.end(OTHER)
        told.state()
        told.event("metadata")
        told.event("values|a:1")
        told.event("values", OTHER)
        told.event("error")
        told.end()
        told.event("values", OTHER)

    assert await told.sends(of_run(told), happens) == ["metadata", "values|a:1", "error"]
    assert told.ids() == []
    assert told.client.finished


async def test_ids_are_sent_for_resumable_runs(told):
    ids: list[int] = []

    def happens() -> None:
        ids.extend(told.event(name) for name in ("metadata", "values"))
        told.end()

    reader = told.log.read()
    await told.sends(run_stream(reader, RUN, with_ids=True, headers=()), happens)
    assert told.ids() == [id_text(id) for id in ids]


@pytest.mark.parametrize(
    ("modes", "expected"),
    [
        (
            (),
            [
                "metadata",
                "values",
                "updates",
                "values|a:1",
                "messages/partial",
                "messages",
                "error",
            ],
        ),
        (("values",), ["values", "values|a:1", "error"]),
        (("values", "updates"), ["values", "updates", "values|a:1", "error"]),
        (("messages",), ["messages/partial", "messages", "error"]),
        (("messages-tuple",), ["messages/partial", "messages", "error"]),
        (("bogus",), ["error"]),
    ],
)
async def test_modes_narrow_it_but_never_hide_an_error(told, modes, expected):
    def happens() -> None:
        for name in ("metadata", "values", "updates", "values|a:1", "messages/partial", "messages"):
            told.event(name)
        told.event("error")
        told.end()

    assert await told.sends(of_run(told, modes=frozenset(modes)), happens) == expected


@pytest.mark.parametrize("gone", [RUN, ""], ids=["the run", "the thread"])
async def test_a_run_that_is_deleted_ends_its_stream_with_an_error(told, gone):
    def happens() -> None:
        told.event("metadata")
        told.gone(gone)

    assert await told.sends(of_run(told), happens) == ["metadata", "error"]
    assert dumps(GONE) in told.client.body


async def test_another_run_that_is_deleted_does_not_matter(told):
    def happens() -> None:
        told.gone(OTHER)
        told.event("values")
        told.end()

    assert await told.sends(of_run(told), happens) == ["values"]


# -- the stream of a thread --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("modes", "expected"),
    [
        (["run_modes"], ["metadata", "values", "error", "metadata", "metadata", "metadata"]),
        (["lifecycle"], ["metadata", "metadata", "metadata", "metadata"]),
        (["state_update"], ["state_update"]),
        (
            ["lifecycle", "state_update"],
            ["metadata", "metadata", "state_update", "metadata", "metadata"],
        ),
        (
            ["run_modes", "lifecycle", "state_update"],
            ["metadata", "values", "error", "metadata", "state_update", "metadata", "metadata"],
        ),
    ],
)
async def test_a_thread_stream_by_its_modes(told, modes, expected):
    def happens() -> None:
        told.event("metadata")
        told.event("values")
        told.event("error")
        told.end()
        told.state()
        told.event("metadata", OTHER)
        told.end(OTHER)
        told.log.append("cancelled while pending", END, "", b"")
        told.gone(RUN)
        told.gone("")

    response = thread_stream(told.log.read(), frozenset(modes), None)
    assert await told.sends(response, happens) == expected
    assert len(told.ids()) == len(expected)


# -- replays -----------------------------------------------------------------------------------


async def test_a_replay_and_what_follows_are_everything_once(told):
    ids = [told.event(f"e{number}", keep=True) for number in range(5)]
    told.event("not kept")
    told.event("theirs", OTHER, keep=True)
    reader = told.log.read()
    past = replay(told.hub, THREAD, RUN, ids[1], reader.start_id)
    response = run_stream(reader, RUN, with_ids=True, headers=(), past=past)

    def happens() -> None:
        told.event("e5", keep=True)
        told.end(keep=True)

    assert await told.sends(response, happens) == ["e2", "e3", "e4", "e5"]
    assert told.ids()[:3] == [id_text(id) for id in ids[2:]]


@pytest.mark.parametrize("seen", [1, 3])
async def test_what_was_seen_at_another_process_is_not_sent_when_it_comes_here(told, seen):
    told.event("e0", keep=True)
    reader = told.log.read()
    begin = reader.start_id
    ids = [begin + (seconds * 1000 << COUNTER_BITS) for seconds in range(1, 5)]
    past = replay(told.hub, THREAD, RUN, ids[seen - 1], begin)
    response = run_stream(
        reader, RUN, with_ids=True, headers=(), past=past, seen_until=ids[seen - 1]
    )

    def happens() -> None:
        for number, id in enumerate(ids, 1):
            told.log.publish(Entry(id, RUN, EVENT, f"e{number}", b"{}"))
        told.log.publish(Entry(ids[-1] + 1, RUN, END, "", b""))

    assert await told.sends(response, happens) == [f"e{n}" for n in range(seen + 1, 5)]


async def test_a_replay_of_an_ended_run_closes(told):
    for name in ("metadata", "values", "error"):
        told.event(name, keep=True)
    told.end(keep=True)
    reader = told.log.read()
    past = replay(told.hub, THREAD, RUN, 0, reader.start_id)
    response = run_stream(
        reader, RUN, with_ids=True, headers=(), past=past, ended=True, modes=frozenset(["values"])
    )
    assert await told.sends(response) == ["values", "error"]


async def test_a_replay_of_a_thread_has_the_ends_of_runs(told):
    for run_id in (RUN, OTHER):
        told.event("metadata", run_id, keep=True)
        told.end(run_id, keep=True)
    reader = told.log.read()
    past = replay(told.hub, THREAD, None, 0, reader.start_id)
    response = thread_stream(reader, frozenset(["run_modes"]), past)
    assert await told.sends(response, lambda: told.gone("")) == ["metadata"] * 4


async def test_a_long_replay_comes_in_chunks(told, monkeypatch):
    monkeypatch.setattr(log_module, "REPLAY_PAGE", 7)
    for number in range(100):
        told.event(f"e{number}", keep=True, data=f'"{"x" * 5000}"')
    reader = told.log.read()
    past = replay(told.hub, THREAD, RUN, 0, reader.start_id)
    response = run_stream(reader, RUN, with_ids=True, headers=(), past=past, ended=True)
    assert await told.sends(response) == [f"e{number}" for number in range(100)]
    assert len(told.client.chunks) > 1
    assert max(map(len, told.client.chunks)) < 100_000


@pytest.mark.parametrize("after", [0, 1])
async def test_nothing_is_replayed_where_nothing_is_kept(told, after):
    told.event("not kept")
    reader = told.log.read()
    past = replay(told.hub, THREAD, RUN, after, reader.start_id)
    response = run_stream(reader, RUN, with_ids=True, headers=(), past=past, ended=True)
    assert await told.sends(response) == []


async def test_an_id_in_the_future_replays_nothing(told):
    last = told.event("kept", keep=True)
    assert [entry async for entry in replay(told.hub, THREAD, RUN, last + 1000, last)] == []


# -- Last-Event-ID -----------------------------------------------------------------------------

FIVE_THREE = (5 << COUNTER_BITS) + 3


@pytest.mark.parametrize(
    ("text", "expected"),
    [(None, None), ("", None), ("-", 0), ("-1", 0), ("0", 0), ("0-0", 0), ("5-3", FIVE_THREE)],
)
def test_where_a_client_wants_to_go_on(text, expected):
    assert last_event_id(text, ("-", "-1")) == expected


@pytest.mark.parametrize("text", ["garbage", "-2", "1-2-3", "a-b"])
def test_what_is_no_id_is_refused(text):
    with pytest.raises(Invalid, match="Invalid last-event-id"):
        last_event_id(text, ("-", "-1"))


def test_what_means_everything_is_up_to_the_endpoint():
    with pytest.raises(Invalid):
        last_event_id("-1", ("-",))
