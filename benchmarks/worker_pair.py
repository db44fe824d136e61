"""How much sooner two workers finish a queue of light runs than one, each with a core of its own.

    python benchmarks/worker_pair.py [--runs 1000] [--rounds 5] [--cores 0,1]

The queue is filled while no worker is there, each run on a thread of its own, and becomes due when
all workers have started. What is told is the time from then to the end of the last run, and how
many processor seconds the workers had of it; the best of all rounds counts, since whatever else
goes on on these cores makes it longer.
"""

from __future__ import annotations

import argparse
import asyncio
import math
import os
import sys
import time
import uuid
from contextlib import ExitStack

import aiohttp
import psycopg
from serving import HERE, Server

sys.path.insert(0, str(HERE.parent / "tests"))

from postgres_server import PREFIX, drop_databases, make_database

CONFIG = "queue_graphs.json"
SECOND_US = 1_000_000
LATER_SECONDS = 3600
LEAD_SECONDS = 10.0
PATIENCE_SECONDS = 300.0
LEFT = "SELECT count(*) FROM runs WHERE status IN ('pending', 'running')"


async def fill(url: str, runs: int) -> None:
    body = {
        "assistant_id": "light",
        "input": {"number": 1},
        "if_not_exists": "create",
        "after_seconds": LATER_SECONDS,
    }
    lanes = asyncio.Semaphore(50)
    async with aiohttp.ClientSession(url) as http:

        async def create() -> None:
            async with lanes, http.post(f"/threads/{uuid.uuid4()}/runs", json=body) as answer:
                assert answer.status == 200, await answer.text()

        await asyncio.gather(*(create() for _ in range(runs)))


def play(cores: list[str], runs: int) -> tuple[float, float]:
    """A queue that is worked off by a worker on each of ``cores``: seconds, processor seconds."""
    name = f"{PREFIX}pair_{os.getpid()}"
    uri = make_database(name)
    with ExitStack() as stack:
        stack.callback(drop_databases, name)
        api = Server(CONFIG, uri, "serve", "--api-only")
        stack.callback(api.stop)
        api.wait_ready()
        asyncio.run(fill(api.url, runs))
        database = stack.enter_context(psycopg.connect(uri, autocommit=True))
        due = int((time.time() + LEAD_SECONDS) * SECOND_US)
        database.execute("UPDATE runs SET created_at = %s", [due])
        database.execute("VACUUM ANALYZE runs")
        workers: list[Server] = []
        for core in cores:
            workers.append(Server(CONFIG, uri, "worker", before=("taskset", "-c", core)))
            stack.callback(workers[-1].stop)
        for worker in workers:
            worker.wait_ready()
        rest = due / SECOND_US - time.time()
        assert rest > 0, "the workers took too long to start"
        time.sleep(rest)
        before = sum(worker.seconds for worker in workers)
        wait(database)
        row = database.execute(
            "SELECT max(updated_at), count(*) FILTER (WHERE status <> 'success'),"
            " count(DISTINCT owner) FROM runs"
        ).fetchone()
        assert row is not None
        assert row[1:] == (0, len(cores)), row
        return (row[0] - due) / SECOND_US, sum(worker.seconds for worker in workers) - before


def wait(database: psycopg.Connection) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while (row := database.execute(LEFT).fetchone()) is not None and row[0]:
        if time.monotonic() > deadline:
            raise SystemExit(f"{row[0]} runs did not end")
        time.sleep(0.2)


def main(args: argparse.Namespace) -> None:
    cores = args.cores.split(",")
    best = {1: math.inf, 2: math.inf}
    for _ in range(args.rounds):
        for count in best:
            load = os.getloadavg()[0]
            seconds, cpu = play(cores[:count], args.runs)
            best[count] = min(best[count], seconds)
            print(f"{count}: {seconds:.2f} s, {cpu:.2f} of processor, load {load:.1f}", flush=True)
    print(f"{best[1]:.2f} s, {best[2]:.2f} s: {best[1] / best[2]:.2f} times as fast")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--cores", default="0,1")
    main(parser.parse_args())
