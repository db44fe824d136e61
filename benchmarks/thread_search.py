"""How long a search takes among a million threads on PostgreSQL, with and without a policy.

    python benchmarks/thread_search.py [--searches 300] [--at-once 1]

The database is made for it (half a minute) on the PostgreSQL of the tests, and dropped at the end.
A client in this process asks a server in another one, over HTTP, for pages of ten threads; each
search is for another value. First are those whose answers are few, last those that match all.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import aiohttp
from serving import HERE, Server

sys.path.insert(0, str(HERE.parent / "tests"))
sys.path.insert(0, str(HERE.parent / "tests/scale"))

from million import ROWS, SHARED, fill

from postgres_server import PREFIX, drop_databases, make_database
from treadle.database.postgres import PostgresDatabase

Body = dict[str, Any]
Case = Callable[[int], Body]

ONE: Case = lambda n: {"metadata": {"user": f"u{n}"}}  # noqa: E731
CASES: dict[str, Case] = {
    "one thread, by metadata": ONE,
    "none, by metadata": lambda n: {"metadata": {"user": f"nobody{n}"}},
    "a thousand, by metadata": lambda n: {"metadata": {"customer": n % SHARED}},
    "a thousand, by metadata, page 50": lambda n: {
        "metadata": {"customer": n % SHARED},
        "offset": 490,
    },
    "a million, by metadata": lambda n: {"metadata": {"graph_id": "agent"}},
    "a million, without a filter": lambda n: {},
}
OWN_CASES: dict[str, Case] = {
    "one thread, by metadata": ONE,
    "none, by metadata": lambda n: {"metadata": {"user": f"nobody{n}"}},
    "a thousand, by metadata": lambda n: {"metadata": {"graph_id": "agent"}},
    "a thousand, without a filter": lambda n: {},
}


async def migrate(uri: str) -> None:
    database = PostgresDatabase(uri)
    await database.open()
    await database.close()


async def measure(http: aiohttp.ClientSession, case: Case, count: int, at_once: int) -> list[float]:
    """How long each of ``count`` searches takes, in ms."""
    numbers = random.Random(1).sample(range(1, ROWS), count)
    taken: list[float] = []

    async def lane(numbers: list[int]) -> None:
        for number in numbers:
            body, headers = case(number), {"x-customer": str(number % SHARED)}
            began = time.perf_counter()
            async with http.post("/threads/search", json=body, headers=headers) as answer:
                assert answer.status == 200, await answer.text()
                await answer.read()
            taken.append((time.perf_counter() - began) * 1000)

    await asyncio.gather(*(lane(numbers[first::at_once]) for first in range(at_once)))
    return sorted(taken)


async def play(name: str, config: str, cases: dict[str, Case], uri: str, args: Any) -> None:
    server = Server(config, uri)
    try:
        server.wait_ready()
        async with aiohttp.ClientSession(server.url) as http:
            for what, case in cases.items():
                taken = await measure(http, case, args.searches, args.at_once)
                p50, p95 = statistics.median(taken), taken[int(len(taken) * 0.95)]
                print(f"| {what}{name} | {p50:.1f} | {p95:.1f} | {taken[-1]:.1f} |", flush=True)
    finally:
        server.stop()


def main(args: argparse.Namespace) -> None:
    name = f"{PREFIX}search_{os.getpid()}"
    uri = make_database(name)
    try:
        asyncio.run(migrate(uri))
        fill(uri)
        print(f"load {os.getloadavg()[0]:.1f}, {args.at_once} at once")
        print("| what matches | p50, ms | p95, ms | most, ms |\n|---|---|---|---|")
        asyncio.run(play("", "stream_graphs.json", CASES, uri, args))
        asyncio.run(play(", of a policy's thousand", "owners.json", OWN_CASES, uri, args))
    finally:
        drop_databases(name)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--searches", type=int, default=300)
    parser.add_argument("--at-once", type=int, default=1)
    main(parser.parse_args())
