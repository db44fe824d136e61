"""What a user has on a server, and every row that there is in its database."""

from __future__ import annotations

import sqlite3
from collections import Counter
from typing import Any
from uuid import uuid4

import psycopg
from auth_house import House
from langgraph.checkpoint.base.id import uuid6
from psycopg import sql

SECRET = "the-secret-of-alice"
"""In all that is hers; no request to the server but hers ever has it."""

RUN: dict[str, Any] = {"assistant_id": "echo", "input": {"messages": []}}
LATER: dict[str, Any] = {**RUN, "after_seconds": 3600}
CRON: dict[str, Any] = {**RUN, "schedule": "0 0 1 1 *"}

NO_ONES = {"workers", "schema_migrations", "sqlite_sequence", "watches", "leaving",
           "live_batches"}  # fmt: skip
ID_COLUMNS = ("thread_id", "run_id", "assistant_id", "cron_id", "checkpoint_id", "start_id")

Row = tuple[str, tuple[tuple[str, str], ...]]


async def belongings(house: House, user: Any) -> dict[str, str]:
    """Threads (one has run, one waits for an answer, one has a run to come), runs, assistants,
    crons, tasks, items: all of them hold ``SECRET``."""
    topic, key = f"topic-{uuid4().hex}", f"key-{uuid4().hex}"
    metadata = {"topic": topic, "note": SECRET}

    async def made(path: str, body: Any, name: str, **more: Any) -> str:
        answer = await house(user, "POST", path, body, **more)
        assert answer.is_success, answer.text
        return answer.json()[name]

    def says(assistant_id: str, **more: Any) -> dict[str, Any]:
        said = {"messages": [{"role": "user", "content": SECRET}], "note": topic}
        return {"assistant_id": assistant_id, "input": said, "metadata": metadata, **more}

    body = {"metadata": metadata}
    thread, asking, busy = [
        await made("/threads", body, "thread_id", headers={"idempotency-key": f"{key}{number}"})
        for number in range(3)
    ]
    resumable = {"stream_resumable": True}
    ended = await house(user, "POST", f"/threads/{thread}/runs/wait", says("echo", **resumable))
    await house.gives(user, "POST", f"/threads/{asking}/runs/wait", says("approval"))
    state = await house.gives(user, "GET", f"/threads/{thread}/state")
    asked = await house.gives(user, "GET", f"/threads/{asking}")
    waiting = await made(f"/threads/{busy}/runs", says("echo", after_seconds=3600), "run_id",
                         headers={"idempotency-key": f"{key}3"})  # fmt: skip
    tool = f"tool_{uuid4().hex}"
    assistant = {"graph_id": "echo", "name": tool, "description": SECRET, "metadata": metadata,
                 "config": {"configurable": {"note": SECRET}}}  # fmt: skip
    assistant_id = await made("/assistants", assistant, "assistant_id")
    cron = await made("/runs/crons", {**says("echo"), "schedule": "0 0 1 1 *"}, "cron_id")
    on_thread = {**says("echo"), "schedule": "0 0 1 1 *", "assistant_id": assistant_id}
    thread_cron = await made(f"/threads/{thread}/runs/crons", on_thread, "cron_id")
    task = await _task(house, user)
    put = {"namespace": [topic], "key": "key", "value": {"note": SECRET}}
    await house.gives(user, "PUT", "/store/items", put)
    return {
        "thread": thread, "asking": asking, "busy": busy, "waiting": waiting,
        "run": ended.headers["content-location"].rpartition("/")[2],
        "state": state["checkpoint"]["checkpoint_id"],
        "interrupt": next(iter(asked["interrupts"].values()))[0]["id"],
        "assistant": assistant_id, "tool": tool, "cron": cron, "thread_cron": thread_cron,
        "topic": topic, "key": key, **task, **await own(house, user),
    }  # fmt: skip


async def _task(house: House, user: Any) -> dict[str, str]:
    """A task of A2A that asks, and has a push notification config."""

    async def call(method: str, params: Any) -> Any:
        body = {"jsonrpc": "2.0", "id": 1, "method": method, "params": params}
        reader = {**user, "answers": {"assistants.read": None}}
        answer = await house.gives(reader, "POST", "/a2a/approval", body)
        assert "result" in answer, answer
        return answer["result"]

    said = {"role": "user", "messageId": "m", "parts": [{"kind": "text", "text": SECRET}]}
    task = await call("message/send", {"message": said})
    config = {"id": str(uuid4()), "url": f"http://127.0.0.1:9/{SECRET}", "token": SECRET}
    given = {"taskId": task["id"], "pushNotificationConfig": config}
    await call("tasks/pushNotificationConfig/set", given)
    thread, _, run = task["id"].rpartition(":")
    kept = await house.gives(user, "GET", f"/threads/{thread}/runs/{run}")
    start = kept["metadata"]["a2a"]["task_start_id"]
    return {
        "task": task["id"],
        "context": thread,
        "config": config["id"],
        "start": start,
    }


async def own(house: House, user: Any) -> dict[str, str]:
    """What whoever asks has too: a thread that has run."""
    thread = (await house.gives(user, "POST", "/threads", {}))["thread_id"]
    await house.gives(user, "POST", f"/threads/{thread}/runs/wait", RUN)
    return {"mine": thread}


def unknown(ids: dict[str, str]) -> dict[str, str]:
    """Names of what does not exist, that look the same."""
    thread = str(uuid4())
    other = {"topic": f"topic-{uuid4().hex}", "key": f"key-{uuid4().hex}",
             "tool": f"tool_{uuid4().hex}", "interrupt": uuid4().hex,
             "context": thread, "task": f"{thread}:{uuid4()}", "state": str(uuid6())}  # fmt: skip
    return {name: other.get(name) or str(uuid4()) for name in ids}


def rows_of(uri: str) -> Counter[Row]:
    """Every row of the database, but for what is nobody's."""
    return Counter(_of_postgres(uri) if uri.startswith("postgres") else _of_sqlite(uri))


def _of_sqlite(path: str) -> list[Row]:
    with sqlite3.connect(path) as connection:
        connection.row_factory = sqlite3.Row
        tables = [name for (name,) in connection.execute(
            "SELECT name FROM sqlite_master WHERE type = 'table'")]  # fmt: skip
        found = [
            _row(table, dict(row))
            for table in tables
            if table not in NO_ONES
            for row in connection.execute(f'SELECT * FROM "{table}"')
        ]
    connection.close()
    return found


def _of_postgres(uri: str) -> list[Row]:
    with psycopg.connect(uri, row_factory=psycopg.rows.dict_row) as connection:
        tables = [row["name"] for row in connection.execute(
            "SELECT relname AS name FROM pg_class"
            " WHERE relnamespace = 'public'::regnamespace AND relkind = 'r'")]  # fmt: skip
        return [
            _row(table, row)
            for table in tables
            if table not in NO_ONES
            for row in connection.execute(sql.SQL("SELECT * FROM {}").format(sql.Identifier(table)))
        ]


def _row(table: str, row: dict[str, Any]) -> Row:
    shown = ((name, bytes(v).decode("latin-1") if isinstance(v, bytes) else str(v))
             for name, v in row.items())  # fmt: skip
    return table, tuple(shown)
