"""Streams that are cut, at any byte: who reconnects gets exactly what is left."""

from __future__ import annotations

import contextlib
import http.client
import random
import signal
import socket
import threading
import time
from collections.abc import Callable
from itertools import pairwise

import pytest
from arena import LONG, Event, Server, parse_events, until

MOST_CUTS = 10**6 if LONG else 120
READERS = 40 if LONG else 15
MOST_TORN = 3
MIB = 2**20
FLOOD_EVENTS = 160 if LONG else 80  # of one MiB each: more than may wait for a reader


def read(server: Server, path: str, last_id: str, most: int | None = None) -> bytes:
    """The body of a stream, up to ``most`` bytes; then the connection is cut."""
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)
    try:
        connection.request("GET", path, headers={"Last-Event-ID": last_id})
        response = connection.getresponse()
        assert response.status == 200, response.read()
        return response.read(most)
    finally:
        connection.close()


def reset(server: Server, path: str, last_id: str, most: int) -> bytes:
    """Like ``read``, but the connection is reset and not closed."""
    with socket.create_connection(("127.0.0.1", server.port), 30) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        request = f"GET {path} HTTP/1.1\r\nHost: x\r\nLast-Event-ID: {last_id}\r\n\r\n"
        sock.sendall(request.encode())
        response = http.client.HTTPResponse(sock)
        response.begin()
        body = response.read(most)
        response.close()
        return body


Cut = Callable[[Server, str, str, int], bytes]


def finished(server: Server) -> tuple[str, str]:
    """The paths of a finished resumable run's stream, and of its thread's."""
    thread_id = server.thread()
    body = {"token": "A", "events": 12, "bytes": 20}
    run_id = server.run(
        thread_id,
        "chatter",
        input=body,
        stream_resumable=True,
        stream_mode=["values", "custom", "updates"],
    )
    assert server.ended(thread_id, run_id) == "success"
    return f"/threads/{thread_id}/runs/{run_id}/stream", f"/threads/{thread_id}/stream"


def last_id(events: list[Event]) -> str:
    return events[-1].id if events else "-"


def check_order(events: list[Event]) -> None:
    ids = [tuple(map(int, event.id.split("-"))) for event in events]
    assert all(one < other for one, other in pairwise(ids)), "ids do not grow"


@pytest.mark.parametrize("cut", [read, reset])
def test_cut_at_any_byte(server: Server, cut: Cut) -> None:
    server.start()
    path, _ = finished(server)
    whole = read(server, path, "-")
    events = parse_events(whole)
    check_order(events)
    assert len(events) == 18
    positions = range(len(whole) + 1)
    if len(positions) > MOST_CUTS:
        positions = sorted(random.Random(0).sample(positions, MOST_CUTS))
    for position in positions:
        part = cut(server, path, "-", position)
        assert part == whole[:position]
        seen = parse_events(part)
        rest = read(server, path, last_id(seen))
        assert seen + parse_events(rest) == events, f"cut at byte {position}"


def test_cut_at_any_byte_and_across_restarts(server: Server) -> None:
    server.start()
    path, _ = finished(server)
    whole = read(server, path, "-")
    for position in random.Random(1).sample(range(len(whole)), 12 if LONG else 4):
        seen = parse_events(read(server, path, "-", position))
        server.restart()
        assert seen + parse_events(read(server, path, last_id(seen))) == parse_events(whole)


class Follower(threading.Thread):
    """Follows a run's stream with a connection that is cut every few bytes, until it ends."""

    def __init__(self, server: Server, path: str, bites: random.Random) -> None:
        super().__init__()
        self.events: list[Event] = []
        self.failure: BaseException | None = None
        self._server, self._path, self._bites = server, path, bites

    def run(self) -> None:
        try:
            while not self._bite():
                pass
        except BaseException as failure:
            self.failure = failure

    def _bite(self) -> bool:
        """Read a bit; whether the stream has ended."""
        most = self._bites.choice((50, 300, 1000, 4000))
        try:
            body = read(self._server, self._path, last_id(self.events), most)
        except (OSError, http.client.HTTPException):
            time.sleep(0.02)  # the server is not there
            return False
        self.events += parse_events(body)
        if len(body) == most:
            return False
        run_path = self._path.removesuffix("/stream")
        with contextlib.suppress(OSError, http.client.HTTPException):
            return b'"status":"success"' in read(self._server, run_path, "-")
        return False


def follow(server: Server) -> tuple[str, str, list[Follower]]:
    """A run that goes on for a while, and many who follow it."""
    thread_id = server.thread()
    body = {"token": "A", "events": 60, "bytes": 10, "seconds": 1.5}
    run_id = server.run(
        thread_id,
        "chatter",
        input=body,
        stream_resumable=True,
        stream_mode=["custom", "values"],
        durability="sync",
    )
    path = f"/threads/{thread_id}/runs/{run_id}/stream"
    followers = [Follower(server, path, random.Random(seed)) for seed in range(READERS)]
    for follower in followers:
        follower.start()
    return thread_id, run_id, followers


def joined(server: Server, thread_id: str, run_id: str, followers: list[Follower]) -> list[Event]:
    """All events, once all followers have seen the end."""
    assert server.ended(thread_id, run_id) == "success"
    for follower in followers:
        follower.join(30)
        assert not follower.is_alive()
        assert follower.failure is None
    return parse_events(read(server, f"/threads/{thread_id}/runs/{run_id}/stream", "-"))


def test_cut_again_and_again_while_it_goes_on(server: Server) -> None:
    server.start()
    thread_id, run_id, followers = follow(server)
    events = joined(server, thread_id, run_id, followers)
    assert len(events) == 1 + 60 + 3
    for follower in followers:
        assert follower.events == events


def test_followed_across_a_drain(server: Server) -> None:
    server.start()
    thread_id, run_id, followers = follow(server)
    until(lambda: any(len(f.events) > 20 for f in followers), "some events")
    server.signal(signal.SIGTERM)
    server.wait()
    server.start()
    events = joined(server, thread_id, run_id, followers)
    for follower in followers:
        assert follower.events == events
    check_order(events)


def test_followed_across_a_crash(server: Server) -> None:
    """Ids go on growing, and nobody misses an event that was kept.

    What was told in the last moment before the crash may be torn: the next attempt tells it anew.
    """
    server.start()
    thread_id, run_id, followers = follow(server)
    until(lambda: any(len(f.events) > 20 for f in followers), "some events")
    server.restart()
    events = joined(server, thread_id, run_id, followers)
    check_order(events)
    kept = {event.id for event in events}
    (again,) = (e.id for e in events if e.name == "metadata" and e.data["attempt"] == 2)
    for follower in followers:
        check_order(follower.events)
        assert [event for event in follower.events if event.id in kept] == events
        torn = [event.id for event in follower.events if event.id not in kept]
        places = [event.id for event in follower.events]
        assert torn == places[places.index(again) - len(torn) : places.index(again)]
        assert len(torn) <= MOST_TORN
    assert [e.data["attempt"] for e in events if e.name == "metadata"] == [1, 2]


# -- who does not read -------------------------------------------------------------------------


class Sluggard:
    """A client that opens a stream and does not read it until ``read``."""

    def __init__(self, server: Server, path: str) -> None:
        self._sock = socket.socket()
        self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        self._sock.settimeout(30)
        self._sock.connect(("127.0.0.1", server.port))
        request = f"GET {path} HTTP/1.1\r\nHost: x\r\nLast-Event-ID: -\r\n\r\n"
        self._sock.sendall(request.encode())

    def read(self) -> tuple[bytes, bool]:
        """All that comes, and whether the response was ended properly."""
        response = http.client.HTTPResponse(self._sock)
        response.begin()
        try:
            return response.read(), True
        except http.client.IncompleteRead as cut:
            return cut.partial, False

    def close(self) -> None:
        self._sock.close()


@pytest.mark.timeout(240)
@pytest.mark.parametrize("resumable", [True, False] if LONG else [True])
def test_a_run_never_waits_for_who_does_not_read(server: Server, resumable: bool) -> None:
    server.start()
    thread_id = server.thread()
    body = {"events": FLOOD_EVENTS, "bytes": MIB, "token": "A"}
    options = {"input": body, "stream_mode": ["custom"], "stream_resumable": resumable}
    begun = time.monotonic()
    assert server.ended(thread_id, server.run(thread_id, "chatter", **options)) == "success"
    alone = time.monotonic() - begun

    options["input"]["seconds"] = 0.1
    run_id = server.run(thread_id, "chatter", after_seconds=0.5, **options)
    path = f"/threads/{thread_id}/runs/{run_id}/stream"
    sluggards = [Sluggard(server, path) for _ in range(3)]
    until(lambda: server.journal.nodes(run_id), "the run")
    begun = time.monotonic()
    assert server.ended(thread_id, run_id) == "success"
    assert time.monotonic() - begun < 3 * alone + 2
    assert resident_mib(server) < 600
    for sluggard in sluggards[:2]:
        body, whole = sluggard.read()
        events = parse_events(body)
        numbers = [event.data["number"] for event in events if event.name == "custom"]
        assert numbers == list(range(len(numbers))), "events are missing in between"
        assert not whole, "it was cut off, but its client is told that this is the end"
        if resumable:
            rest = parse_events(read(server, path, last_id(events)))
            numbers += [event.data["number"] for event in rest if event.name == "custom"]
            assert numbers == list(range(FLOOD_EVENTS))
    server.signal(signal.SIGTERM)
    begun = time.monotonic()
    server.wait()
    assert time.monotonic() - begun < 5, "who does not read holds up the end"
    for sluggard in sluggards:
        sluggard.close()


def resident_mib(server: Server) -> float:
    with open(f"/proc/{server.pid}/status") as status:
        (line,) = (line for line in status if line.startswith("VmRSS"))
    return int(line.split()[1]) / 1024
