"""What a durable write costs: TREADLE_SQLITE_SYNCHRONOUS normal and full, alone and under load.

    python benchmarks/commit_cost.py [FOLDER]

FOLDER is where the database lies: give one on the disk in question (default: a temporary one).
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
import time
from pathlib import Path

from treadle.database import Transaction
from treadle.database.sqlite import SQLiteDatabase
from treadle.ids import new_id

WRITES = 4000
LANES = 16

INSERT = """
INSERT INTO threads (thread_id, created_at, updated_at, state_updated_at, metadata)
VALUES (:thread_id, 0, 0, 0, '{"user": "u1"}')
"""


async def lane(database: SQLiteDatabase, count: int) -> None:
    for _ in range(count):
        params = {"thread_id": new_id()}

        async def insert(transaction: Transaction, params: dict[str, str] = params) -> None:
            await transaction.execute(INSERT, params)

        await database.write(insert)


async def measure(folder: Path) -> None:
    for synchronous in ("normal", "full"):
        database = SQLiteDatabase(folder / f"{synchronous}.db", synchronous)
        await database.open()
        for lanes in (1, LANES):
            wall, cpu = time.perf_counter(), time.process_time()
            await asyncio.gather(*(lane(database, WRITES // lanes) for _ in range(lanes)))
            wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
            print(
                f"{synchronous:7} {lanes:3} at a time: {wall / WRITES * 1e6:6.0f} µs a write,"
                f" {cpu / WRITES * 1e6:6.0f} µs of processor time"
            )
        await database.close()


if __name__ == "__main__":
    if len(sys.argv) > 1:
        asyncio.run(measure(Path(sys.argv[1])))
    else:
        with tempfile.TemporaryDirectory() as temporary:
            asyncio.run(measure(Path(temporary)))
