"""What the history does not look at: streams, webhooks, crons, the store, requests sent again.

On each stage one speaker has runs speak on a thread that nobody else touches, and followers read
all of it, coming again where they left off. What they saw is compared with what is kept.
"""

from __future__ import annotations

import hashlib
import hmac
import itertools
import json
import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import httpx
from history import IN_FLIGHT

Json = dict[str, Any]
Url = Callable[[], str]
"""Gives the URL of a process that may answer."""

SECRET = "of the stage"
CHANNELS = ["values", "updates", "messages", "tools", "custom", "lifecycle", "input", "tasks"]
SPOKEN = "SELECT * FROM events WHERE thread_id = :thread_id ORDER BY id"
RUNS = "SELECT * FROM runs WHERE thread_id = :thread_id ORDER BY created_at, seq"
ITEMS = "SELECT key, value FROM store_items WHERE namespace = :namespace"


class Receiver(ThreadingHTTPServer):
    """Takes webhooks. ``got`` has the bodies of each delivery, ``forged`` what was not signed."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Hook)
        self.got: dict[str, list[bytes]] = {}
        self.forged: list[str] = []
        threading.Thread(target=self.serve_forever, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/ended"

    def close(self) -> None:
        self.shutdown()
        self.server_close()

    def take(self, delivery: str, signature: str, body: bytes) -> None:
        fields = dict(part.split("=", 1) for part in signature.split(","))
        signed = fields.get("t", "").encode() + b"." + body
        expected = hmac.new(SECRET.encode(), signed, hashlib.sha256).hexdigest()
        if not hmac.compare_digest(expected, fields.get("v1", "")):
            self.forged.append(f"{delivery}: {signature}")
        self.got.setdefault(delivery, []).append(body)


class _Hook(BaseHTTPRequestHandler):
    server: Receiver

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        name = self.headers["X-Treadle-Delivery"]
        self.server.take(name, self.headers["X-Treadle-Signature"] or "t=", body)
        self.send_response(204)
        self.end_headers()

    def log_message(self, format: str, *args: Any) -> None:
        pass


class Follower(threading.Thread):
    """Reads all that is told of a thread, and comes again, anywhere, when a stream breaks off.

    ``events`` are places in the order of events, and what was there. Of protocol v1 the place is
    an id, of ``numbered`` events a number.
    """

    def __init__(self, url: Url, thread_id: str, *, numbered: bool, over: threading.Event) -> None:
        super().__init__(name=f"follower of {thread_id}", daemon=True)
        self.events: list[tuple[Any, str]] = []
        self.connections: list[tuple[float, str, Any]] = []
        """When, where and after what the streams began."""
        self.failure: BaseException | None = None
        self._url, self._thread_id, self._over = url, thread_id, over
        self.numbered = numbered

    @property
    def last(self) -> Any:
        return self.events[-1][0] if self.events else 0

    def run(self) -> None:
        try:
            while not self._over.is_set():
                try:
                    self._read()
                except httpx.HTTPError:
                    time.sleep(0.05)
        except BaseException as failure:
            self.failure = failure

    def _read(self) -> None:
        url = self._url()
        path = f"{url}/threads/{self._thread_id}/stream"
        if self.numbered:
            body = {"channels": CHANNELS, "since": self.last}
            options: Json = {"method": "POST", "url": f"{path}/events", "json": body}
        else:
            seen = self.last
            last = f"{seen[0]}-{seen[1]}" if seen else "-"
            options = {"method": "GET", "url": path, "headers": {"last-event-id": last}}
        with httpx.stream(**options, timeout=15) as answer:
            self.connections.append((time.time(), url, self.last))
            if answer.status_code == 503:
                time.sleep(0.05)
                return
            assert answer.status_code == 200, answer.read()
            for frame in _frames(answer, self._over):
                if self.numbered:
                    event = json.loads(frame["data"])
                    told = json.dumps([event["method"], event["params"]], sort_keys=True)
                    self.events.append((event["seq"], told))
                else:
                    milliseconds, _, counter = frame["id"].partition("-")
                    place = int(milliseconds), int(counter)
                    self.events.append((place, f"{frame['event']} {frame['data']}"))


def _frames(answer: httpx.Response, over: threading.Event) -> Iterator[dict[str, str]]:
    """The whole events of a stream; half of one is none."""
    frame: dict[str, str] = {}
    for line in answer.iter_lines():
        if over.is_set():
            return
        if line and not line.startswith(":"):
            name, _, value = line.partition(": ")
            frame[name] = value
        elif not line and "data" in frame:
            yield frame
            frame = {}


class Stage(threading.Thread):
    """A thread on which run after run speaks, and all who follow it.

    ``faults`` are looked for at the end, once no run is in flight and ``is_heard``.
    """

    def __init__(self, url: Url, seed: str, number: int, receiver: Receiver) -> None:
        super().__init__(name=f"stage {number}")
        self.failure: BaseException | None = None
        self._url, self._receiver, self._number = url, receiver, number
        self._choice = random.Random(f"{seed}/stage {number}")
        self._quiet, self._over = threading.Event(), threading.Event()
        self.thread_id = f"57a6e000-0000-4000-8000-{self._choice.getrandbits(48):012x}"
        self._tokens: dict[str, str] = {}
        self._items: list[str] = []
        self._followers = [
            Follower(url, self.thread_id, numbered=numbered, over=self._over)
            for numbered in (False, True, False, True)
        ]

    def run(self) -> None:
        try:
            body = {"thread_id": self.thread_id, "if_exists": "do_nothing"}
            self._insist("POST", "/threads", body)
            for follower in self._followers:
                follower.start()
            for count in itertools.count():
                if self._quiet.wait(self._choice.uniform(0, 0.3)):
                    return
                self._speak(f"s{self._number}n{count}")
        except BaseException as failure:
            self.failure = failure

    def _speak(self, token: str) -> None:
        """Have a run speak, and store an item that says so."""
        body = {
            "assistant_id": "chatter",
            "input": {
                "token": token,
                "events": self._choice.choice([1, 10, 40]),
                "seconds": self._choice.choice([0, 0.1, 0.4]),
            },
            "stream_mode": ["custom", "updates"],
            "stream_resumable": True,
            "durability": self._choice.choice(["sync", "async", "exit"]),
            "webhook": self._receiver.url,
        }
        path = f"/threads/{self.thread_id}/runs"
        run = self._insist("POST", path, body, {"Idempotency-Key": f"{self.thread_id} {token}"})
        self._tokens[token] = run["run_id"]
        item = {"namespace": ["stage", str(self._number)], "key": token, "value": {"of": token}}
        self._insist("PUT", "/store/items", item)
        self._items.append(token)
        self._insist("GET", f"{path}/{run['run_id']}/join")

    def _insist(self, method: str, path: str, body: Any = None, headers: Any = None) -> Any:
        """The answer to a request that is made again until there is one."""
        while True:
            try:
                answer = httpx.request(
                    method, self._url() + path, json=body, headers=headers, timeout=15
                )
            except httpx.HTTPError:
                time.sleep(0.05)
                continue
            if answer.status_code != 503:
                assert answer.is_success, f"{method} {path}: {answer.status_code} {answer.text}"
                return answer.json() if answer.content else None
            time.sleep(0.05)

    # -- the end ---------------------------------------------------------------------------

    def fall_silent(self) -> None:
        """Have no more runs speak."""
        self._quiet.set()

    def is_heard(self, books: Any) -> bool:
        """Whether the followers have come to the end of what is kept."""
        ids, numbers = _kept(books, self.thread_id)
        ends = {False: next(reversed(ids), 0), True: next(reversed(numbers), 0)}
        return all(one.last == ends[one.numbered] for one in self._followers)

    def close(self) -> None:
        """Call it when no stream is open any more."""
        self._over.set()
        for follower in self._followers:
            if follower.is_alive():
                follower.join(20)

    def faults(self, books: Any) -> list[str]:
        """All that is not as it has to be."""
        found = [f"{one.name}: {one.failure!r}" for one in self._followers if one.failure]
        ids, numbers = _kept(books, self.thread_id)
        runs = books.rows(RUNS, thread_id=self.thread_id)
        cut_off = {row["run_id"] for row in runs if row["attempt"] > 1}
        if list(numbers) != list(range(1, len(numbers) + 1)):
            found.append(f"the numbers of {self.thread_id} are {list(numbers)}")
        first: dict[int, str] = {}
        for follower in self._followers:
            kept: dict[Any, Any] = numbers if follower.numbered else ids
            places = [place for place, _ in follower.events]
            what = f"follower {self._followers.index(follower)} of {self.thread_id}"
            if any(one >= other for one, other in itertools.pairwise(places)):
                found.append(f"{what}: events come again, or too late: {_disorder(places)}")
            seen = set(places)
            if missing := [place for place in kept if place not in seen]:
                names = [f"{place}: {str(kept[place])[:150]}" for place in missing[:20]]
                found.append(f"{what} has missed {len(missing)} of {len(kept)}: {names}")
                found += [
                    f"  it came {when:.3f} to {url} after {place}"
                    for when, url, place in follower.connections
                ]
            strange = [one for one in follower.events if one[0] not in kept]
            # A crash takes what was told and not kept yet: the next attempt tells it anew.
            if strange and (follower.numbered or not cut_off):
                found.append(f"{what}: {len(strange)} events are not kept: {strange[:3]}")
            for place, told in follower.events:
                wanted = first.setdefault(place, told) if follower.numbered else kept.get(place)
                if wanted not in (None, told):
                    found.append(f"{what}: {told[:200]} was {wanted[:200]}")
        return [*found, *self._run_faults(books, runs), *self._item_faults(books)]

    def _run_faults(self, books: Any, runs: list[Json]) -> Iterator[str]:
        by_id = {row["run_id"]: row for row in runs}
        for token, run_id in self._tokens.items():
            made = [row["run_id"] for row in runs if json.dumps(token) in row["kwargs"]]
            if made != [run_id]:
                yield f"{token} has made {made}, was told {run_id}"
        for row in runs:
            if row["status"] != "success":
                yield f"run {row['run_id']} on a stage is {row['status']}: {row['error']}"
        thread = books.rows("SELECT * FROM threads WHERE thread_id = :t", t=self.thread_id)
        log = json.loads(thread[0]["state_values"] or "{}").get("log", []) if thread else []
        expected = [f"{token}:{node}" for token in self._tokens for node in ("talk", "end")]
        spoken = Counter(log)
        if wrong := [one for one in expected if spoken[one] != 1]:
            yield f"the log of {self.thread_id} has {[(one, spoken[one]) for one in wrong[:10]]}"
        waiting = {row["run_id"] for row in books.rows("SELECT run_id FROM webhook_outbox")}
        for run_id in by_id:
            bodies = self._receiver.got.get(run_id, [])
            if not bodies and run_id not in waiting:
                yield f"the webhook of run {run_id} has not come"
            said = [{**json.loads(body), "webhook_sent_at": ""} for body in bodies]
            if any(one != said[0] for one in said):
                yield f"the webhooks of run {run_id} differ: {bodies}"

    def _item_faults(self, books: Any) -> Iterator[str]:
        rows = books.rows(ITEMS, namespace=f"stage.{self._number}")
        there = {row["key"]: json.loads(row["value"]) for row in rows}
        for key in self._items:
            if there.get(key) != {"of": key}:
                yield f"the item {key} was stored, and is {there.get(key)}"

    def __str__(self) -> str:
        seen = [(len(one.events), len(one.connections)) for one in self._followers]
        return f"{len(self._tokens)} runs spoke, followers saw (in connections) {seen}"


def _kept(books: Any, thread_id: str) -> tuple[dict[tuple[int, int], str], dict[int, Json]]:
    """The kept events of a thread: of protocol v1 by id, and those with numbers."""
    rows = books.rows(SPOKEN, thread_id=thread_id)
    ids = {
        (row["id"] >> 20, row["id"] & 0xFFFFF): f"{row['name']} {bytes(row['data']).decode()}"
        for row in rows
        if row["kind"] in ("event", "end") and row["name"]
    }
    by_number = sorted((row for row in rows if row["seq"]), key=lambda row: row["seq"])
    return ids, {row["seq"]: row for row in by_number}


def _disorder(places: list[Any]) -> list[Any]:
    return [pair for pair in itertools.pairwise(places) if pair[0] >= pair[1]][:5]


class Clockwork:
    """A cron that is due each second, on a thread of its own: each tick has one run."""

    def __init__(self, call: Callable[..., Any]) -> None:
        self.thread_id = call("POST", "/threads", {})["thread_id"]
        body = {
            "assistant_id": "plain",
            "schedule": "* * * * * *",
            "input": {"log": []},
            "catch_up": "all",
        }
        cron = call("POST", f"/threads/{self.thread_id}/runs/crons", body)
        self._began, self._cron_id = time.time(), cron["cron_id"]

    def stop(self, call: Callable[..., Any]) -> None:
        call("DELETE", f"/runs/crons/{self._cron_id}")
        self._ended = time.time()

    def faults(self, books: Any) -> list[str]:
        runs = books.rows(RUNS, thread_id=self.thread_id)
        ticks = int(self._ended) - int(self._began)
        made = Counter(row["status"] for row in runs)
        # The last may have come as the cron went; those of the last outage may still have to.
        if not ticks - 3 <= len(runs) <= ticks + 1:
            return [f"{ticks} ticks have made {len(runs)} runs"]
        return [] if set(made) <= {"success"} else [f"runs of a cron are {made}"]


def settled(books: Any, stages: list[Stage]) -> bool:
    """Whether all that was asked for is done and heard."""
    sql = f"SELECT run_id FROM runs WHERE status IN {IN_FLIGHT}"
    return not books.rows(sql) and all(stage.is_heard(books) for stage in stages)
