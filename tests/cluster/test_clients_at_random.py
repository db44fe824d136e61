"""Twenty clients do what they like, over three processes that are killed: the history holds.

Meanwhile the database restarts now and then, and Redis comes and goes. ``CHAOS_SECONDS`` says for
how long; the checker is the one of the tests of one process.
"""

from __future__ import annotations

import contextlib
import os
import random
import re
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest
from arena import CHAOS_SECONDS, LAST_WORD, LONG, ORPHANS, THERE, TWO_RUNNING, UNSETTLED, Journal
from conftest import OwnPostgres, OwnRedis
from history import IN_FLIGHT, Call, History
from houses import Cluster, Process, until
from psycopg.rows import dict_row
from stage import SECRET, Clockwork, Receiver, Stage, settled
from test_history import Client, World

CLIENTS = 20
STAGES = 3
CHAOS = Path(__file__).parents[1] / "chaos"
LIFE_SECONDS = (5.0, 20.0) if LONG else (1.0, 3.0)
DATABASE_SECONDS = (5.0, 40.0) if LONG else (2.0, 4.0)
REDIS_SECONDS = (1.0, 10.0)
AWAY_SECONDS = (0.0, 2.0)
GIVEN_BACK_SECONDS = 90
HEARD_SECONDS = 20


class Books:
    """The database, read from outside: what is committed, at one moment each time."""

    def __init__(self, uri: str) -> None:
        self._uri = uri

    def rows(self, sql: str, **params: Any) -> list[dict[str, Any]]:
        with psycopg.connect(self._uri, row_factory=dict_row) as connection:
            sql = re.sub(r":(\w+)", r"%(\1)s", sql.replace("%", "%%"))
            return connection.execute(sql, params).fetchall()

    def faults(self, *, at_rest: bool = True) -> list[str]:
        unsettled = UNSETTLED.replace(
            "BY threads.thread_id", "BY threads.thread_id, threads.status"
        )
        found = [f"{row}" for row in self.rows(unsettled)]
        found += [f"two runs on {row}" for row in self.rows(TWO_RUNNING)]
        for what, sql in ORPHANS.items() if at_rest else ():
            if "thread_labels" not in sql:  # SQLite's own
                sql = sql.replace("IN there", "IN (SELECT thread_id FROM there)")
                if "GROUP BY run_id" in sql:
                    sql = sql.replace("SELECT thread_id, run_id", "SELECT run_id")
                found += [f"{what}: {row}" for row in self.rows(THERE + sql)]
        return found

    def texts(self) -> Iterator[tuple[str, bytes]]:
        """All values but a run's last word, each with the column that it is in."""
        columns = self.rows(
            "SELECT table_name, column_name, data_type FROM information_schema.columns"
            " WHERE table_schema = 'public' AND data_type IN ('text', 'bytea')"
            " AND table_name NOT IN ('live_batches', 'watches', 'leaving')"  # which go with time
        )
        with psycopg.connect(self._uri) as connection:
            for column in columns:
                table, name = column["table_name"], column["column_name"]
                sql = f"SELECT {name} FROM {table}"
                if table == "events":
                    sql += f" WHERE NOT ({LAST_WORD})"
                for (value,) in connection.execute(sql):
                    if value is not None:
                        text = value if isinstance(value, bytes) else value.encode()
                        yield f"{table}.{name}", text


class Roamer(Client):
    """A client that goes to any of the processes, a new one for each call."""

    unclear = 503  # the database was away

    def __init__(self, number: int, seed: str, processes: Sequence[Process], world: World) -> None:
        super().__init__(number, seed, processes[0], world)  # type: ignore[arg-type]
        self._processes = processes
        self._ways = random.Random(f"{seed}/{number}/ways")

    def _call(self, call: Call, *args: Any, **options: Any) -> httpx.Response | None:
        self._http.base_url = self._ways.choice(self._processes).url
        return super()._call(call, *args, **options)


class Watcher(threading.Thread):
    """Looks at the database all the time: what must never be must never be seen."""

    def __init__(self, books: Books, world: World) -> None:
        super().__init__(name="watcher")
        self.found: list[str] = []
        self._books, self._world = books, world

    def run(self) -> None:
        while not self._world.over.is_set():
            with contextlib.suppress(psycopg.OperationalError):  # it restarts
                self.found += self._books.faults(at_rest=False)
            time.sleep(0.1)


class Weather(threading.Thread):
    """One of the services that all stand on goes away and comes again, and so on."""

    def __init__(
        self, service: OwnPostgres | OwnRedis, seconds: tuple[float, float], seed: str, world: World
    ) -> None:
        super().__init__(name="weather")
        self.outages: list[tuple[int, int]] = []
        self.failure: BaseException | None = None
        self._service, self._seconds, self._world = service, seconds, world
        self._choice = random.Random(f"{seed}/{type(service).__name__}")

    def run(self) -> None:
        try:
            while not self._world.over.wait(self._choice.uniform(*self._seconds)):
                begun = time.monotonic_ns()
                self._go_away()
                self._world.over.wait(self._choice.uniform(*AWAY_SECONDS))
                self._service.start()
                self.outages.append((begun, time.monotonic_ns()))
        except BaseException as failure:
            self.failure = failure

    def _go_away(self) -> None:
        if isinstance(self._service, OwnPostgres):
            self._service.stop(self._choice.choice(["fast", "immediate"]))
        else:
            self._service.stop()


@pytest.mark.timeout(CHAOS_SECONDS * 3 + 200)
@pytest.mark.parametrize("relay", ["database", "redis"])
def test_what_was_told_holds(
    make_cluster: Callable[..., Cluster],
    postgres: OwnPostgres,
    redis: OwnRedis,
    relay: str,
    tmp_path: Path,
) -> None:
    seed = os.environ.get("CHAOS_SEED") or f"{time.time_ns()}"
    print(f"CHAOS_SEED={seed}")
    journal = Journal(tmp_path / "journal")
    cluster = make_cluster(
        CHAOS_JOURNAL=str(journal.folder),
        BG_JOB_MAX_RETRIES="1000",
        BG_JOB_SHUTDOWN_GRACE_PERIOD_SECS="0.3",
        RESUMABLE_STREAM_TTL_SECONDS="100000",
        LOG_LEVEL="WARNING",
        TREADLE_WEBHOOK_SECRET=SECRET,
        **({"REDIS_URI": redis.uri} if relay == "redis" else {}),
    )
    cluster.config = CHAOS / "langgraph.json"
    processes = [cluster.server(name) for name in ("a", "b", "c")]
    cluster.start()
    books, world, choice = Books(cluster.database), World(), random.Random(seed)
    watcher = Watcher(books, world)
    clients = [Roamer(number, seed, processes, world) for number in range(CLIENTS)]
    weathers = [Weather(postgres, DATABASE_SECONDS, seed, world)]
    if relay == "redis":
        weathers.append(Weather(redis, REDIS_SECONDS, seed, world))
    receiver, url = Receiver(), lambda: random.choice(processes).url
    stages = [Stage(url, seed, number, receiver) for number in range(STAGES)]
    clockwork = Clockwork(processes[0].call)
    for thread in (watcher, *clients, *weathers, *stages):
        thread.start()
    deadline, lives = time.monotonic() + CHAOS_SECONDS, 0
    try:
        while time.monotonic() < deadline:
            time.sleep(choice.uniform(*LIFE_SECONDS))
            process = choice.choice(processes)
            process.signal(choice.choices([signal.SIGKILL, signal.SIGTERM], [4, 1])[0])
            process.wait()
            assert process.process is not None
            journal.died(process.process.pid)
            process.start()
            lives += 1
    finally:
        world.over.set()
        for stage in stages:
            stage.fall_silent()
        for thread in (watcher, *clients, *weathers, *stages):
            thread.join(60)
    assert [one.failure for one in (*clients, *weathers, *stages) if one.failure] == []
    clockwork.stop(processes[0].call)
    sql = f"SELECT run_id FROM runs WHERE status IN {IN_FLIGHT}"
    until(lambda: not books.rows(sql), "the end of all runs", GIVEN_BACK_SECONDS)
    sql = "SELECT thread_id FROM deleted_threads"
    until(lambda: not books.rows(sql), "the last of deleted threads to go", GIVEN_BACK_SECONDS)
    with contextlib.suppress(AssertionError):  # its faults tell more
        until(lambda: settled(books, stages), "the followers to hear all", HEARD_SECONDS)
    cluster.close()
    for one in (*stages, receiver):
        one.close()
    outages = weathers[0].outages
    history = History(world.calls, journal.visits(), books, world.graphs, outages)  # type: ignore[arg-type]
    counts = Counter(
        f"{c.what} {'?' if c.status is None else c.status // 100 * 100}" for c in world.calls
    )
    times = [len(weather.outages) for weather in weathers]
    print(f"{lives} lives, {times} outages, {len(world.calls)} calls, {len(history.visits)} nodes")
    print(dict(counts))
    print(Counter(row["status"] for row in history.runs.values()))
    print(*stages, sep="\n")
    faults = [*dict.fromkeys(watcher.found), *history.faults(), *receiver.forged]
    for part in (*stages, clockwork):
        faults += part.faults(books)
    assert not faults, "\n".join([f"CHAOS_SEED={seed}", *faults[:40]])
