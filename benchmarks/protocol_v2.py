"""What the event stream of protocol v2 costs the server, in processor time.

    python benchmarks/protocol_v2.py [--tokens 2000] [--rounds 3]

A server of its own on a fresh SQLite file; the client is another process. ``core`` is langgraph's
own v3 event stream of the same run, in process: what no server can save.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import sys
import tempfile
import time
import uuid
import warnings
from collections.abc import Awaitable, Callable
from typing import Any

import aiohttp
from serving import HERE, Server

CHANNELS = ["values", "messages", "lifecycle"]
END = b'"event":"completed"'


async def start(http: aiohttp.ClientSession, thread: str, tokens: int) -> None:
    params = {
        "assistant_id": "tokens",
        "input": {"messages": [{"role": "user", "content": str(tokens)}]},
    }
    body = {"id": 1, "method": "run.start", "params": params}
    async with http.post(f"/threads/{thread}/commands", json=body) as answer:
        assert (await answer.json())["type"] == "success"


async def read(http: aiohttp.ClientSession, thread: str, ready: Callable[[], None]) -> int:
    """All events of a thread up to its run's end; how many."""
    body = {"channels": CHANNELS}
    tail, events = b"", 0
    async with http.post(f"/threads/{thread}/stream/events", json=body) as answer:
        ready()
        async for chunk in answer.content.iter_any():
            events += chunk.count(b"\r\nid: ")
            tail = (tail + chunk)[-2000:]
            if END in tail and tail.endswith(b"\r\n\r\n"):
                return events
    raise SystemExit("the stream ended early")


async def live(http: aiohttp.ClientSession, server: Server, tokens: int, readers: int) -> str:
    thread = str(uuid.uuid4())
    opened = asyncio.Semaphore(0)
    streams = [asyncio.create_task(read(http, thread, opened.release)) for _ in range(readers)]
    for _ in range(readers):
        await opened.acquire()
    before = server.seconds
    await start(http, thread, tokens)
    counts = await asyncio.gather(*streams)
    spent = (server.seconds - before) * 1000
    if readers == 1:
        return f"{spent / tokens:.4f}"
    return f"{spent / sum(counts):.4f}"


async def replay(http: aiohttp.ClientSession, server: Server, tokens: int) -> tuple[str, str]:
    """When the first event of a long replay comes, in ms, and how many follow in a second."""
    thread = str(uuid.uuid4())
    await live_on(http, thread, 10_000)
    body = {"channels": CHANNELS}
    began = time.perf_counter()
    first, events, tail = 0.0, 0, b""
    async with http.post(f"/threads/{thread}/stream/events", json=body) as answer:
        async for chunk in answer.content.iter_any():
            first = first or time.perf_counter() - began
            events += chunk.count(b"\r\nid: ")
            tail = (tail + chunk)[-2000:]
            if END in tail:
                break
    seconds = time.perf_counter() - began
    return f"{first * 1000:.1f}", f"{events / seconds:.0f}"


async def live_on(http: aiohttp.ClientSession, thread: str, tokens: int) -> None:
    opened = asyncio.Event()
    stream = asyncio.create_task(read(http, thread, opened.set))
    await opened.wait()
    await start(http, thread, tokens)
    await stream


async def core(tokens: int) -> str:
    """langgraph's own event stream of the run."""
    warnings.simplefilter("ignore")
    sys.path.insert(0, str(HERE))
    from stream_graphs import tokens as graph

    given: Any = {"messages": [{"role": "user", "content": str(tokens)}]}
    before = time.process_time()
    async for _ in await graph.astream_events(given, version="v3"):
        pass
    return f"{(time.process_time() - before) * 1000 / tokens:.4f}"


async def rounds(count: int, case: Callable[[], Awaitable[str]]) -> str:
    """The median of a case's figures."""
    figures = [float(await case()) for _ in range(count)]
    return f"{statistics.median(figures):g}"


async def main(args: argparse.Namespace) -> None:
    with tempfile.TemporaryDirectory() as folder:
        server = Server("stream_graphs.json", f"{folder}/bench.db")
        try:
            server.wait_ready()
            timeout = aiohttp.ClientTimeout(total=600)
            connector = aiohttp.TCPConnector(limit=0)
            async with aiohttp.ClientSession(
                server.url, timeout=timeout, connector=connector
            ) as http:
                await live(http, server, 200, 1)
                results = {
                    "core, ms a token": await rounds(args.rounds, lambda: core(args.tokens)),
                    "one subscriber, ms a token": await rounds(
                        args.rounds, lambda: live(http, server, args.tokens, 1)
                    ),
                    "40 subscribers, ms an event at a subscriber": await rounds(
                        args.rounds, lambda: live(http, server, args.tokens, 40)
                    ),
                }
                first, rate = await replay(http, server, args.tokens)
                results["replay of 10,000 events, ms to the first"] = first
                results["replay of 10,000 events, events a second"] = rate
        finally:
            server.stop()
    print(json.dumps(results, indent=1))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tokens", type=int, default=2000)
    parser.add_argument("--rounds", type=int, default=3)
    asyncio.run(main(parser.parse_args()))
