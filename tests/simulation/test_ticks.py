"""Each tick of each cron starts one run, whichever of three processes is there to start it.

Weeks pass in which the clocks are changed, and processes come and go.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from processes import ASSISTANT, Process, connect, simulated
from simulated_time import Clock

from treadle.auth import ANYONE
from treadle.crons.models import CronCreate
from treadle.crons.service import CronService
from treadle.crons.ticker import Ticker

WEEKS = 3
NEW_YORK, BERLIN = "America/New_York", "Europe/Berlin"
SCHEDULES = {
    # (schedule, zone): does a local time match? Written down apart from any library of crons.
    ("*/20 * * * *", NEW_YORK): lambda t: t.minute % 20 == 0,
    ("30 2 * * *", NEW_YORK): lambda t: (t.hour, t.minute) == (2, 30),
    ("30 1 * * *", NEW_YORK): lambda t: (t.hour, t.minute) == (1, 30),
    ("0 * * * *", BERLIN): lambda t: t.minute == 0,
    ("15 2 * * *", BERLIN): lambda t: (t.hour, t.minute) == (2, 15),
    ("0 9 * * 1-5", None): lambda t: (t.hour, t.minute) == (9, 0) and t.weekday() < 5,
}


class Ticking(Process):
    """A process that does nothing but to start the runs of crons."""

    def _build(self, database: Any) -> None:
        super()._build(database)
        self.ticker = Ticker(database, self.service)
        assistants: Any = self.service._assistants
        self.crons = CronService(
            database, assistants, check_webhook=_nothing, changed=self.ticker.wake
        )
        self.loop.call_now(self.ticker.open)


async def _nothing(target: str) -> None:
    """No webhooks here."""


class World:
    """Three processes, of which at least one is there."""

    def __init__(self, clock: Clock, folder: Path, seed: int) -> None:
        self.clock, self.random = clock, random.Random(seed)
        self.connection = connect(folder)
        self.connection.execute(
            "INSERT INTO assistants (assistant_id, graph_id, version, name, name_folded, config,"
            " context, metadata, created_at, updated_at)"
            " VALUES (?, 'graph', 1, 'graph', 'graph', '{}', '{}', '{}', 0, 0)",
            [ASSISTANT.assistant_id],
        )
        self.processes = [self.begin(name) for name in range(3)]

    def begin(self, name: int) -> Ticking:
        return Ticking(self.clock, self.connection, name, full=False)

    def cron(self, schedule: str, zone: str | None) -> str:
        sent = {"assistant_id": "graph", "schedule": schedule, "timezone": zone, "catch_up": "all"}
        process = self.processes[0]
        wanted = CronCreate(**sent, on_run_completed="keep")
        made = process.do(process.crons.create(ANYONE, None, wanted, sent))
        process.settle()
        return made.result()["cron_id"]

    def settle(self) -> None:
        """Let all processes go on, a turn here and a turn there, until all are at rest."""
        awake = [process for process in self.processes if process is not None]
        while awake:
            process = self.random.choice(awake)
            if not process.loop.turn():
                awake.remove(process)

    def churn(self) -> None:
        """Now and then a process is killed where it stands, or begins anew."""
        if self.random.random() > 0.05:
            return
        name = self.random.randrange(3)
        if self.processes[name] is None:
            self.processes[name] = self.begin(name)
        elif sum(process is not None for process in self.processes) > 1:
            self.processes[name].kill()
            self.processes[name] = None

    def next_tick(self) -> int:
        return self.connection.execute("SELECT min(next_run_at) FROM crons").fetchone()[0]

    def run_times(self, cron_id: str) -> list[int]:
        rows = self.connection.execute(
            "SELECT created_at FROM runs WHERE json_extract(metadata, '$.cron_id') = ?"
            " ORDER BY created_at",
            [cron_id],
        )
        return [row[0] for row in rows]

    def close(self) -> None:
        for process in self.processes:
            if process is not None:
                process.kill()
        self.connection.close()


@pytest.fixture
def clock() -> Iterator[Clock]:
    with simulated() as clock:
        yield clock


def expected(schedule: tuple[str, str | None], begin_us: int, end_us: int) -> list[int]:
    """The ticks between two moments, minute by minute."""
    matches, zone = SCHEDULES[schedule], ZoneInfo(schedule[1] or "UTC")
    every_hour = schedule[0].split()[1] == "*"
    moment = datetime.fromtimestamp(begin_us / 1e6, UTC).replace(second=0, microsecond=0)
    found: list[int] = []
    while (moment := moment + timedelta(minutes=1)).timestamp() * 1e6 <= end_us:
        here, before = moment.astimezone(zone), (moment - timedelta(minutes=1)).astimezone(zone)
        skipped = int((here.utcoffset() - before.utcoffset()).total_seconds()) // 60
        if every_hour:
            due = matches(here)
        else:
            naive = here.replace(tzinfo=None)
            missed = any(matches(naive - timedelta(minutes=n + 1)) for n in range(skipped))
            due = here.fold == 0 and (matches(here) or missed)
        if due:
            found.append(int(moment.timestamp()) * 1_000_000)
    return found


@pytest.mark.parametrize("begin", ["2026-03-06", "2026-10-20"])
def test_each_tick_starts_one_run(clock: Clock, tmp_path: Path, begin: str):
    clock.us = int(datetime.fromisoformat(f"{begin}T00:00:30+00:00").timestamp()) * 1_000_000
    began, end = clock.us, clock.us + WEEKS * 7 * 86_400 * 1_000_000
    world = World(clock, tmp_path, seed=began)
    crons = {schedule: world.cron(*schedule) for schedule in SCHEDULES}
    while (tick := world.next_tick()) <= end:
        clock.us = max(clock.us, tick) + world.random.randrange(900_000)
        world.churn()
        world.settle()
    for schedule, cron_id in crons.items():
        ticks, runs = expected(schedule, began, end), world.run_times(cron_id)
        late = [(run - tick) / 1e6 for tick, run in zip(ticks, runs, strict=True)]
        assert all(0 <= seconds < 1 for seconds in late), schedule
    world.close()
