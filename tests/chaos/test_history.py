"""Twenty clients do as they like while the server dies again and again; then it is accounted."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import threading
import time
from collections import Counter
from typing import Any

import httpx
import pytest
from arena import CHAOS_SECONDS, LONG, Server, until
from history import IN_FLIGHT, Call, History
from stage import SECRET, Clockwork, Receiver, Stage, settled

CLIENTS = 20
THREADS = 12
LIVES_SECONDS = (0.4, 2.5)
KINDS = {
    "as it comes": {},
    "commits on a thread": {"TREADLE_SQLITE_SYNCHRONOUS": "FULL"},
    "runs on loops of their own": {"BG_JOB_ISOLATED_LOOPS": "true"},
}
WEIGHTS = {
    "thread": 2,
    "create": 10,
    "wait": 4,
    "stream": 4,
    "resume": 3,
    "cancel": 4,
    "update": 3,
    "delete run": 1,
    "delete thread": 0.5,
    "get run": 6,
    "join": 2,
    "follow": 2,
}


class World:
    """What the clients share: the threads and runs that they know of, and the calls made."""

    def __init__(self) -> None:
        self.threads: list[str] = []
        self.runs: list[tuple[str, str]] = []
        self.graphs: dict[str, str] = {}
        self.calls: list[Call] = []
        self.over = threading.Event()


class Client(threading.Thread):
    """One client; what it chooses to do depends on its seed alone."""

    unclear: int | None = None
    """The status of an answer that does not tell whether the call took effect."""

    def __init__(self, number: int, seed: str, server: Server, world: World) -> None:
        super().__init__(name=f"client {number}")
        self._number, self._server, self._world = number, server, world
        self._random = random.Random(f"{seed}/{number}")
        self._count = 0
        self._http = httpx.Client(base_url=server.url, timeout=15)
        self.failure: BaseException | None = None

    def run(self) -> None:
        kinds, weights = list(WEIGHTS), list(WEIGHTS.values())
        try:
            while not self._world.over.is_set():
                (kind,) = self._random.choices(kinds, weights)
                choice = random.Random(self._random.random())
                getattr(self, f"_{kind.replace(' ', '_')}")(choice)
                time.sleep(choice.uniform(0, 0.05))
        except BaseException as failure:
            self.failure = failure
        finally:
            self._http.close()

    def _token(self) -> str:
        self._count += 1
        return f"c{self._number}n{self._count}"

    def _call(
        self, call: Call, method: str, path: str, body: Any = None, **options: Any
    ) -> httpx.Response | None:
        """Make a call and note it; None if the answer was lost."""
        call.begun = time.monotonic_ns()
        self._world.calls.append(call)
        answer = None
        try:
            with self._http.stream(method, path, json=body, **options) as answer:
                call.status = answer.status_code
                if location := answer.headers.get("content-location"):
                    call.run = call.run or location.rpartition("/runs/")[2]
                call.ended = time.monotonic_ns()
                answer.read()
        except httpx.HTTPError:
            if answer is None:
                time.sleep(0.05)  # the server is not there
            answer = None
        call.ended = call.ended or time.monotonic_ns()
        if call.status == self.unclear:
            call.status = answer = None
        assert call.status is None or call.status < 500, (call, answer and answer.text)
        return answer

    def _a_thread(self, choice: random.Random) -> str | None:
        return choice.choice(self._world.threads) if self._world.threads else None

    def _a_run(self, choice: random.Random) -> tuple[str, str] | None:
        return choice.choice(self._world.runs[-30:]) if self._world.runs else None

    # -- what there is to do ---------------------------------------------------------------

    def _thread(self, choice: random.Random) -> None:
        if len(self._world.threads) >= THREADS:
            return
        thread = str(_uuid(choice))
        self._world.graphs[thread] = choice.choice(["steps", "fan", "ask", "stubborn"])
        body = {"thread_id": thread, "metadata": {"graph_id": self._world.graphs[thread]}}
        if self._call(Call(self._number, "thread", thread), "POST", "/threads", body):
            self._world.threads.append(thread)

    def _launch(self, choice: random.Random, how: str, **more: Any) -> None:
        thread = self._a_thread(choice)
        if thread is None:
            return
        token = self._token()
        strategies = ["enqueue"] * 6 + ["reject", "interrupt", "rollback"]
        delay = 0.2 if choice.random() < 0.05 else 0
        body = {
            "assistant_id": self._world.graphs[thread],
            "input": {"token": token, "seconds": choice.choice([0, 0.01, 0.05, 0.1])},
            "multitask_strategy": choice.choice(strategies),
            "durability": choice.choice(["sync", "async", "async", "exit"]),
            "stream_resumable": choice.random() < 0.5,
            "after_seconds": delay,
            **more,
        }
        call = Call(
            self._number,
            "create",
            thread,
            token=token,
            strategy=body["multitask_strategy"],
            delayed=delay > 0,
        )
        if body.get("command") is not None:
            body["input"], body["command"] = None, {"resume": token}
            call.told = "resume"
        self._call(call, "POST", f"/threads/{thread}/runs{how}", body)
        if call.run:
            self._world.runs.append((thread, call.run))

    def _create(self, choice: random.Random) -> None:
        self._launch(choice, "")

    def _wait(self, choice: random.Random) -> None:
        self._launch(choice, "/wait")

    def _stream(self, choice: random.Random) -> None:
        self._launch(choice, "/stream", stream_mode=["values", "updates"])

    def _resume(self, choice: random.Random) -> None:
        thread = self._a_thread(choice)
        if thread is None or self._world.graphs[thread] != "ask":
            return
        call = Call(self._number, "get thread", thread)
        answer = self._call(call, "GET", f"/threads/{thread}")
        if answer is not None and answer.is_success and answer.json().get("interrupts"):
            again = random.Random(0)
            again.choice = lambda options, t=thread, c=choice: (  # type: ignore[method-assign]
                t if options is self._world.threads else c.choice(options)
            )
            self._launch(again, "", command={})

    def _cancel(self, choice: random.Random) -> None:
        if (place := self._a_run(choice)) is not None:
            action, wait = choice.choice(["interrupt", "rollback"]), choice.choice(["0", "1"])
            call = Call(self._number, "cancel", *place, action=action)
            path = f"/threads/{place[0]}/runs/{place[1]}/cancel?action={action}&wait={wait}"
            self._call(call, "POST", path)

    def _update(self, choice: random.Random) -> None:
        if (thread := self._a_thread(choice)) is not None:
            token = self._token()
            call = Call(self._number, "update", thread, token=token)
            body = {"values": {"log": [f"{token}:update"]}}
            self._call(call, "POST", f"/threads/{thread}/state", body)

    def _delete_run(self, choice: random.Random) -> None:
        if (place := self._a_run(choice)) is not None:
            call = Call(self._number, "delete run", *place)
            self._call(call, "DELETE", f"/threads/{place[0]}/runs/{place[1]}")

    def _delete_thread(self, choice: random.Random) -> None:
        if (thread := self._a_thread(choice)) is not None:
            call = Call(self._number, "delete thread", thread)
            self._call(call, "DELETE", f"/threads/{thread}")
            if call.possible and thread in self._world.threads:
                self._world.threads.remove(thread)

    def _get_run(self, choice: random.Random) -> None:
        if (place := self._a_run(choice)) is not None:
            call = Call(self._number, "get run", *place)
            answer = self._call(call, "GET", f"/threads/{place[0]}/runs/{place[1]}")
            if answer is not None and answer.is_success:
                call.told = answer.json()["status"]

    def _join(self, choice: random.Random) -> None:
        if (place := self._a_run(choice)) is not None:
            call = Call(self._number, "join", *place)
            self._call(call, "GET", f"/threads/{place[0]}/runs/{place[1]}/join")

    def _follow(self, choice: random.Random) -> None:
        if (place := self._a_run(choice)) is not None:
            call = Call(self._number, "follow", *place)
            path = f"/threads/{place[0]}/runs/{place[1]}/stream"
            self._call(call, "GET", path, headers={"last-event-id": "-"})


def _uuid(choice: random.Random) -> Any:
    import uuid

    return uuid.UUID(int=choice.getrandbits(128), version=4)


class Watcher(threading.Thread):
    """Looks at the database all the time: what must never be must never be seen."""

    def __init__(self, server: Server, world: World) -> None:
        super().__init__(name="watcher")
        self.found: list[str] = []
        self._server, self._world = server, world

    def run(self) -> None:
        while not self._world.over.is_set():
            self.found += self._server.database.faults(at_rest=False)
            time.sleep(0.03)


@pytest.mark.timeout(CHAOS_SECONDS * 3 + 120)
@pytest.mark.parametrize("kind", KINDS if LONG else list(KINDS)[:1])
def test_what_was_told_holds(make_server: Any, kind: str) -> None:
    seed = os.environ.get("CHAOS_SEED") or f"{time.time_ns()}"
    print(f"CHAOS_SEED={seed}")
    env = {"BG_JOB_MAX_RETRIES": "1000", "BG_JOB_SHUTDOWN_GRACE_PERIOD_SECS": "0.3"}
    server: Server = make_server(TREADLE_WEBHOOK_SECRET=SECRET, **env, **KINDS[kind])
    server.start()
    world, choice = World(), random.Random(seed)
    watcher = Watcher(server, world)
    clients = [Client(number, seed, server, world) for number in range(CLIENTS)]
    receiver = Receiver()
    stage, clockwork = Stage(lambda: server.url, seed, 0, receiver), Clockwork(server.call)
    for thread in (watcher, *clients, stage):
        thread.start()
    deadline = time.monotonic() + CHAOS_SECONDS
    lives = 0
    try:
        while time.monotonic() < deadline:
            time.sleep(choice.uniform(*LIVES_SECONDS))
            server.signal(choice.choices([signal.SIGKILL, signal.SIGTERM], [4, 1])[0])
            server.wait()
            watcher.found += server.database.faults(at_rest=False)
            server.start()
            lives += 1
    finally:
        world.over.set()
        stage.fall_silent()
        for thread in (watcher, *clients, stage):
            thread.join(30)
    assert [one.failure for one in (*clients, stage) if one.failure] == []
    clockwork.stop(server.call)
    sql = f"SELECT run_id FROM runs WHERE status IN {IN_FLIGHT}"
    until(lambda: not server.database.rows(sql), "the end of all runs", 40)
    sql = "SELECT thread_id FROM deleted_threads"
    until(lambda: not server.database.rows(sql), "what large threads have left to go")
    with contextlib.suppress(AssertionError):  # its faults tell more
        until(lambda: settled(server.database, [stage]), "the followers to hear all", 20)
    server.signal(signal.SIGTERM)
    server.wait()
    for one in (stage, receiver):
        one.close()
    history = History(world.calls, server.journal.visits(), server.database, world.graphs)
    counts = Counter(
        f"{c.what} {'?' if c.status is None else c.status // 100 * 100}" for c in world.calls
    )
    print(f"{lives} lives, {len(world.calls)} calls, {len(history.visits)} nodes: {dict(counts)}")
    print(Counter(row["status"] for row in history.runs.values()))
    print(stage)
    faults = [*dict.fromkeys(watcher.found), *history.faults(), *receiver.forged]
    for part in (stage, clockwork):
        faults += part.faults(server.database)
    assert not faults, "\n".join([f"CHAOS_SEED={seed}", *faults[:40]])
