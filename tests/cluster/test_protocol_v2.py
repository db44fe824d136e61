"""Event streaming v2 over several processes: it does not matter which one a client is at."""

from __future__ import annotations

import itertools
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from uuid import uuid4

import httpx
import psycopg
import pytest
from houses import Cluster, Process, stream, until
from websockets.exceptions import WebSocketException
from websockets.sync.client import connect

Json = dict[str, Any]

CHANNELS = ["values", "updates", "custom", "lifecycle", "input"]
TRANSPORTS = ["sse", "websocket"]
IDS = itertools.count(1)


@contextmanager
def watch(process: Process, thread: str, transport: str, since: int) -> Iterator[Iterator[Json]]:
    """The events of a thread after ``since``, as they come."""
    path = f"/threads/{thread}/stream/events"
    wanted = {"channels": CHANNELS, "since": since}
    if transport == "sse":
        with stream(process, path, wanted) as events:
            yield (json.loads(event.data) for event in events)
    else:
        address = process.url.replace("http", "ws", 1) + path
        with connect(address, open_timeout=20, proxy=None) as socket:
            subscribe = {"id": 1, "method": "subscription.subscribe", "params": wanted}
            socket.send(json.dumps(subscribe))
            messages = (json.loads(message) for message in socket)
            yield (message for message in messages if message["type"] == "event")


class Watcher(threading.Thread):
    """A client that comes again, with the last number that it saw, when its stream breaks off."""

    def __init__(self, process: Process, thread: str, transport: str) -> None:
        super().__init__(daemon=True)
        self.events: list[Json] = []
        self._place = process, thread, transport
        self.start()

    def run(self) -> None:
        process, thread, transport = self._place
        while True:
            since = self.events[-1]["seq"] if self.events else 0
            try:
                with watch(process, thread, transport, since) as events:
                    self.events.extend(events)
            except (httpx.HTTPError, WebSocketException, OSError):
                if process.process is None or process.process.poll() is not None:
                    return

    def ends(self) -> list[str]:
        """What became of the runs so far."""
        return [told for told in lifecycle(self.events) if told != "running"]


def lifecycle(events: list[Json]) -> list[str]:
    return [one["params"]["data"]["event"] for one in events if one["method"] == "lifecycle"]


def numbers(events: list[Json]) -> list[int]:
    """What the graph said."""
    return [one["params"]["data"]["number"] for one in events if one["method"] == "custom"]


def whole(process: Process, thread: str, transport: str, last: int, since: int = 0) -> list[Json]:
    """What is kept from ``since`` to the event numbered ``last``."""
    with watch(process, thread, transport, since) as events:
        return list(itertools.islice(events, last - since))


def command(process: Process, thread: str, method: str, **params: Any) -> Any:
    body = {"id": next(IDS), "method": method, "params": params}
    answer = process.call("POST", f"/threads/{thread}/commands", body)
    assert answer["type"] == "success", answer
    return answer["result"]


def start(process: Process, thread: str, **given: Any) -> str:
    result = command(process, thread, "run.start", assistant_id="dialogue", input=given)
    return result["run_id"]


def executing(cluster: Cluster, run: str) -> Process:
    """The process that executes a run."""

    def owner() -> str | None:
        with psycopg.connect(cluster.database) as connection:
            row = connection.execute("SELECT owner FROM runs WHERE run_id = %s", (run,)).fetchone()
        return row[0] if row else None

    pid = int(until(owner, "somebody to take the run").split(":")[1])
    return next(process for process in cluster.processes if process.pid == pid)


@pytest.fixture(scope="module", params=["database", "redis"])
def cluster(request: Any, make_cluster: Callable[..., Cluster], redis: Any) -> Cluster:
    env = {"REDIS_URI": redis.uri} if request.param == "redis" else {}
    cluster = make_cluster(BG_JOB_SHUTDOWN_GRACE_PERIOD_SECS="1", **env)
    for name in ("a", "b"):
        cluster.server(name)
    cluster.start()
    return cluster


def test_watchers_everywhere_see_the_same_as_the_replay(cluster: Cluster) -> None:
    a, b = cluster.processes
    thread = str(uuid4())
    places = [(process, transport) for process in (a, b) for transport in TRANSPORTS]
    early = [Watcher(process, thread, transport) for process, transport in places]
    run = start(a, thread, n=60, pause=0.01)
    here = executing(cluster, run)
    [there] = [process for process in (a, b) if process is not here]
    until(lambda: len(numbers(early[0].events)) > 5, "the run to speak")
    late = [Watcher(there, thread, transport) for transport in TRANSPORTS]
    watchers = early + late
    until(lambda: all(one.ends() == ["interrupted"] for one in watchers), "the question")
    [asked] = [one for one in early[0].events if one["method"] == "input.requested"]
    answer = {"interrupt_id": asked["params"]["data"]["interrupt_id"], "response": "yes"}
    command(there, thread, "input.respond", **answer)
    until(lambda: all(one.ends() == ["interrupted", "completed"] for one in watchers), "the end")
    first = early[0].events
    assert [event["seq"] for event in first] == list(range(1, len(first) + 1))
    assert numbers(first) == list(range(60))
    assert lifecycle(first) == ["running", "interrupted", "running", "completed"]
    for watcher in watchers:
        assert watcher.events == first
    for process, transport in places:
        for since in (0, 1, 33, len(first) - 1):
            found = whole(process, thread, transport, len(first), since)
            assert found == first[since:]


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_a_client_that_goes_from_one_to_the_other_goes_on_exactly(
    cluster: Cluster, transport: str
) -> None:
    a, b = cluster.processes
    thread = str(uuid4())
    start(a, thread, n=80, pause=0.01)
    seen: list[Json] = []
    for process in itertools.cycle((b, a)):
        with watch(process, thread, transport, len(seen)) as events:
            for event in itertools.islice(events, 9):
                seen.append(event)
                if lifecycle([event]) == ["interrupted"]:
                    break
        if "interrupted" in lifecycle(seen):
            break
        assert len(seen) < 200
    assert [event["seq"] for event in seen] == list(range(1, len(seen) + 1))
    assert numbers(seen) == list(range(80))


def test_who_comes_in_mid_run_elsewhere_knows_at_once(cluster: Cluster) -> None:
    thread = str(uuid4())
    run = start(cluster.processes[0], thread, n=1000, pause=0.05)
    here = executing(cluster, run)
    [there] = [process for process in cluster.processes if process is not here]
    for transport in TRANSPORTS:
        with watch(there, thread, transport, 0) as events:
            assert lifecycle([next(events)]) == ["running"]
    watchers = [Watcher(there, thread, transport) for transport in TRANSPORTS]
    there.call("POST", f"/threads/{thread}/runs/{run}/cancel?wait=1")
    until(lambda: all(one.ends() == ["interrupted"] for one in watchers), "the end")
    assert watchers[0].events == watchers[1].events


def test_a_kill_of_who_executes_loses_and_doubles_nothing(cluster: Cluster) -> None:
    thread = str(uuid4())
    run = start(cluster.processes[0], thread, n=100, pause=0.02)
    here = executing(cluster, run)
    [there] = [process for process in cluster.processes if process is not here]
    watchers = [Watcher(there, thread, transport) for transport in TRANSPORTS]
    until(lambda: all(len(numbers(one.events)) > 20 for one in watchers), "the run to speak")
    here.kill()
    until(lambda: all(one.ends() == ["interrupted"] for one in watchers), "the question", 40)
    first, second = (watcher.events for watcher in watchers)
    assert first == second == whole(there, thread, "sse", len(first))
    assert [event["seq"] for event in first] == list(range(1, len(first) + 1))
    assert lifecycle(first) == ["running", "interrupted"]
    # The node that was cut off speaks anew; the one before it is not done again.
    said = numbers(first)
    again = said.index(0, 1)
    assert said == [*range(again), *range(100)]
    assert again > 20
    steps = [list(one["params"]["data"]) for one in first if one["method"] == "updates"]
    assert steps == [["one"], ["speak"]]
    here.start()  # for whoever comes next
