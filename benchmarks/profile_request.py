"""Where the time of one request goes, in process and without a socket.

    python benchmarks/profile_request.py CONFIG METHOD PATH [BODY] [--count 1000] [--lines 25]

Calls the application directly, ``--count`` times, and prints the processor time of a call and
cProfile's table. ``{thread}`` in PATH stands for a thread that is made first.
"""

from __future__ import annotations

import argparse
import asyncio
import cProfile
import json
import pstats
import tempfile
import time
from pathlib import Path
from typing import Any

from treadle import logs
from treadle.config import load_config
from treadle.runs.loops import loop_factory
from treadle.server import Server
from treadle.settings import Settings


async def call(app: Any, method: str, path: str, body: str) -> bytes:
    sent: list[bytes] = []
    asked = asyncio.Event()

    async def receive() -> dict[str, Any]:
        if asked.is_set():
            await asyncio.Event().wait()
        asked.set()
        return {"type": "http.request", "body": body.encode(), "more_body": False}

    async def send(message: dict[str, Any]) -> None:
        sent.append(message.get("body", b""))

    scope = {
        "type": "http",
        "method": method,
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "root_path": "",
        "scheme": "http",
        "http_version": "1.1",
        "headers": [(b"host", b"test")],
        "client": ("127.0.0.1", 1),
        "server": ("test", 80),
    }
    await app(scope, receive, send)
    return b"".join(sent)


async def main(args: argparse.Namespace) -> None:
    config = load_config(args.config)
    config.enter()
    with tempfile.TemporaryDirectory() as folder:
        settings = Settings(database_uri=f"sqlite:///{folder}/bench.db", log_level="WARNING")
        logs.configure(settings)
        async with Server(config, settings).open() as app:
            thread = json.loads(await call(app, "POST", "/threads", "{}"))["thread_id"]
            path = args.path.format(thread=thread)
            print((await call(app, args.method, path, args.body))[:300])
            began = time.process_time()
            for _ in range(args.count):
                await call(app, args.method, path, args.body)
            print(f"{(time.process_time() - began) / args.count * 1e6:.0f} µs a call")
            profile = cProfile.Profile()
            profile.enable()
            for _ in range(args.count):
                await call(app, args.method, path, args.body)
            profile.disable()
            pstats.Stats(profile).sort_stats("tottime").print_stats(args.lines)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("config", type=Path)
    parser.add_argument("method")
    parser.add_argument("path")
    parser.add_argument("body", nargs="?", default="{}")
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--lines", type=int, default=25)
    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        runner.run(main(parser.parse_args()))
