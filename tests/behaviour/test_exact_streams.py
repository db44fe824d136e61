"""Ids of a thread's events only grow; a client that reconnects gets exactly what follows."""

from __future__ import annotations

import asyncio
import random
from itertools import pairwise
from typing import Any

from promise_server import Event, Server, asking, events, new_thread

TALK = {"stream_mode": ["custom", "values"], "stream_resumable": True}


def number(event: Event) -> tuple[int, int]:
    milliseconds, counter = str(event.id).split("-")
    return int(milliseconds), int(counter)


def grow(found: list[Event]) -> bool:
    return all(number(one) < number(other) for one, other in pairwise(found))


async def test_a_client_that_reconnects_anywhere_gets_what_follows(server: Server) -> None:
    async with server.client() as http:
        thread = await new_thread(http)
        body = asking("talk", input={"events": 500}, **TALK)
        found = await events(http, "POST", f"/threads/{thread}/runs/stream", body)
        assert len(found) > 500
        assert grow(found)
        [run] = (await http.get(f"/threads/{thread}/runs")).json()
        place = f"/threads/{thread}/runs/{run['run_id']}/stream"
        assert await events(http, "GET", place, last="-1") == found
        for at in random.sample(range(len(found)), 20):
            assert await events(http, "GET", place, last=found[at].id) == found[at + 1 :]


async def test_a_client_that_is_cut_off_again_and_again_misses_nothing(server: Server) -> None:
    """While the run goes on: each connection ends after a few events."""
    async with server.client() as http:
        thread = await new_thread(http)
        body = asking("talk", input={"events": 300, "seconds": 0.001}, **TALK)
        run = (await http.post(f"/threads/{thread}/runs", json=body)).json()["run_id"]
        place = f"/threads/{thread}/runs/{run}/stream"
        found: list[Event] = []
        while True:
            last = found[-1].id if found else "-1"
            part = await events(http, "GET", place, last=last, most=random.randint(1, 60))
            if not part:
                break
            found += part
        assert found == await events(http, "GET", place, last="-1")
        assert len(found) > 300


async def test_all_who_watch_see_the_same(server: Server) -> None:
    async with server.client() as http:
        thread = await new_thread(http)
        body = asking("talk", input={"events": 200, "seconds": 0.001}, **TALK)
        run = (await http.post(f"/threads/{thread}/runs", json=body)).json()["run_id"]

        async def watch(after_seconds: float) -> list[Event]:
            await asyncio.sleep(after_seconds)
            return await events(http, "GET", f"/threads/{thread}/runs/{run}/stream", last="-")

        watched = await asyncio.gather(*(watch(n * 0.02) for n in range(12)))
        assert all(found == watched[0] for found in watched)


async def test_ids_grow_across_runs_and_restarts(own_server: Any) -> None:
    server: Server = own_server()
    found: list[Event] = []
    thread = ""
    for is_last in (False, True):
        async with server.client() as http:
            thread = thread or await new_thread(http)
            body = asking("talk", input={"events": 20}, **TALK)
            found += await events(http, "POST", f"/threads/{thread}/runs/stream", body)
            runs = (await http.get(f"/threads/{thread}/runs?limit=100")).json()
            kept: list[Event] = []
            for run in reversed(runs):
                place = f"/threads/{thread}/runs/{run['run_id']}/stream"
                kept += await events(http, "GET", place, last="-1")
            assert kept == found
        if not is_last:
            server.kill()
            server.start()
    assert grow(found)
