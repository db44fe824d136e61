"""What each endpoint asks the handlers, in which order, and what it tells them."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import pytest
from auth_house import ALL, House

from treadle.assistants.service import default_id

RUN = {"assistant_id": "echo", "input": {}}
CRON = {**RUN, "schedule": "0 0 1 1 *"}
ITEM = {"namespace": ["n"], "key": "k", "value": {"a": 1}}

MAKE_RUN = ("threads.create_run", {
    "thread_id", "assistant_id", "run_id", "status", "metadata", "prevent_insert_if_inflight",
    "multitask_strategy", "if_not_exists", "after_seconds", "kwargs"})  # fmt: skip
READ = ("threads.read", {"thread_id"})
CHANGE = ("threads.update", {"thread_id", "action", "metadata"})
FIND = {"metadata", "values", "status", "limit", "offset"}
READ_ASSISTANT = ("assistants.read", {"assistant_id"})
UPDATE_CRON = {"cron_id", "schedule", "end_time", "enabled", "on_run_completed", "payload"}
MAKE_CRON = ("crons.create", {
    "payload", "schedule", "cron_id", "thread_id", "user_id", "end_time", "metadata"})  # fmt: skip
FIND_CRONS = [("crons.search", {"assistant_id", "thread_id", "limit", "offset", "metadata"}),
              ("threads.search", set[str]())]  # fmt: skip
FIND_ASSISTANTS = [("assistants.search", {"graph_id", "metadata", "limit", "offset"})]

# method, path, body, the checks with the keys of their values
TABLE: list[tuple[str, str, Any, list[tuple[str, set[str]]]]] = [
    ("POST", "/threads", {}, [("threads.create", {"thread_id", "metadata", "if_exists"})]),
    ("GET", "/threads/{t}", None, [READ]),
    ("GET", "/threads/{t}?include=ttl", None, [READ]),
    ("GET", "/threads/{t}/state", None, [READ]),
    ("GET", "/threads/{t}/state/{s}", None, [READ]),
    ("POST", "/threads/{t}/state/checkpoint", {"checkpoint": {"checkpoint_id": "{s}"}}, [READ]),
    ("GET", "/threads/{t}/history", None, [READ]),
    ("POST", "/threads/{t}/history", {}, [READ]),
    ("GET", "/threads/{t}/storage", None, [READ]),
    ("PATCH", "/threads/{t}", {}, [("threads.update", {"thread_id", "metadata"})]),
    ("POST", "/threads/{t}/state", {"values": {"out": 1}},
     [("threads.update", {"thread_id"}), READ]),
    ("DELETE", "/threads/{t}", None, [("threads.delete", {"thread_id"})]),
    ("POST", "/threads/{t}/copy", None, [READ, ("threads.create", {"thread_id"})]),
    ("POST", "/threads/search", {}, [("threads.search", FIND)]),
    ("POST", "/threads/search", {"ids": ["{t}"]}, [("threads.search", FIND | {"ids"})]),
    ("POST", "/threads/count", {}, [("threads.search", FIND)]),
    ("POST", "/threads/prune", {"thread_ids": ["{t}"]},
     [("threads.delete", {"thread_ids"}), ("threads.delete", {"thread_id"})]),
    ("POST", "/threads/prune", {"thread_ids": ["{t}"], "strategy": "keep_latest"},
     [("threads.delete", {"thread_ids"}), ("threads.delete", {"thread_id"})]),
    ("GET", "/threads/{t}/runs", None, [READ, ("threads.search", {"thread_id", "metadata"})]),
    ("GET", "/threads/{t}/runs/{r}", None, [READ]),
    ("GET", "/threads/{t}/runs/{r}/join", None, [READ]),
    ("GET", "/threads/{t}/runs/{r}/stream", None, [READ]),
    ("DELETE", "/threads/{t}/runs/{r}", None, [("threads.delete", {"thread_id", "run_id"})]),
    ("POST", "/threads/{b}/runs/{w}/cancel", None, [CHANGE]),
    ("POST", "/threads/{b}/runs/{w}/cancel?wait=1", None, [CHANGE]),
    ("POST", "/runs/cancel", {"thread_id": "{b}", "run_ids": ["{w}"]}, [CHANGE]),
    ("POST", "/runs/cancel", {"status": "pending"}, [CHANGE]),
    ("POST", "/threads/{t}/runs", RUN, [MAKE_RUN]),
    ("POST", "/threads/{t}/runs/wait", RUN, [MAKE_RUN]),
    ("POST", "/threads/{t}/runs/stream", RUN, [MAKE_RUN]),
    ("POST", "/threads/{t}/runs", {**RUN, "assistant_id": "{a}"}, [MAKE_RUN, READ_ASSISTANT]),
    ("POST", "/threads/{t}/runs", {**RUN, "assistant_id": "{default}"}, [MAKE_RUN]),
    ("POST", "/runs", RUN, [MAKE_RUN]),
    ("POST", "/runs/wait", RUN, [MAKE_RUN]),
    ("POST", "/runs/stream", RUN, [MAKE_RUN]),
    ("POST", "/runs/batch", [RUN, {**RUN, "assistant_id": "{a}"}],
     [MAKE_RUN, MAKE_RUN, READ_ASSISTANT]),
    ("POST", "/threads/{t}/commands", {"id": 1, "method": "run.start", "params": RUN},
     [READ, MAKE_RUN]),
    ("POST", "/assistants", {"graph_id": "echo"}, [("assistants.create", {
        "assistant_id", "graph_id", "config", "context", "metadata", "name"})]),
    ("GET", "/assistants/{a}", None, [READ_ASSISTANT]),
    ("GET", "/assistants/{a}/graph", None, [READ_ASSISTANT]),
    ("GET", "/assistants/{a}/schemas", None, [READ_ASSISTANT]),
    ("GET", "/assistants/{a}/subgraphs", None, [READ_ASSISTANT]),
    ("POST", "/assistants/{a}/versions", {}, [READ_ASSISTANT]),
    ("PATCH", "/assistants/{a}", {"name": "n"}, [("assistants.update", {
        "assistant_id", "graph_id", "config", "context", "metadata", "name"})]),
    ("POST", "/assistants/{a}/latest", {"version": 1},
     [("assistants.update", {"assistant_id", "version"})]),
    ("DELETE", "/assistants/{a}", None, [("assistants.delete", {"assistant_id"})]),
    ("POST", "/assistants/search", {}, FIND_ASSISTANTS),
    ("POST", "/assistants/count", {}, FIND_ASSISTANTS),
    ("POST", "/runs/crons", CRON, [MAKE_CRON]),
    ("POST", "/runs/crons", {**CRON, "assistant_id": "{a}"}, [MAKE_CRON, READ_ASSISTANT]),
    ("POST", "/threads/{t}/runs/crons", CRON, [MAKE_CRON, READ]),
    ("GET", "/runs/crons/{c}", None, [("crons.read", {"cron_id"})]),
    ("PATCH", "/runs/crons/{c}", {"enabled": False}, [("crons.update", UPDATE_CRON)]),
    ("DELETE", "/runs/crons/{c}", None, [("crons.delete", {"cron_id"})]),
    ("POST", "/runs/crons/search", {}, FIND_CRONS),
    ("POST", "/runs/crons/count", {}, FIND_CRONS),
    ("PUT", "/store/items", ITEM, [("store.put", {"namespace", "key", "value", "index", "ttl"})]),
    ("GET", "/store/items?namespace=n&key=k", None,
     [("store.get", {"namespace", "key", "refresh_ttl"})]),
    ("DELETE", "/store/items", {"namespace": ["n"], "key": "k"},
     [("store.delete", {"namespace", "key"})]),
    ("POST", "/store/items/search", {"namespace_prefix": ["n"]}, [("store.search", {
        "namespace", "filter", "limit", "offset", "query", "refresh_ttl"})]),
    ("POST", "/store/namespaces", {}, [("store.list_namespaces", {
        "namespace", "suffix", "max_depth", "limit", "offset"})]),
]  # fmt: skip


@pytest.fixture
async def things(house: House) -> dict[str, str]:
    """The ids of what the rows are about."""
    return await _fresh(house)


async def _fresh(house: House) -> dict[str, str]:
    """A thread with a run and a state, one with a run that waits; an assistant and a cron."""
    thread, busy = [(await house.gives(ALL, "POST", "/threads", {}))["thread_id"] for _ in "tb"]
    ended = await house(ALL, "POST", f"/threads/{thread}/runs/wait", RUN)
    state = await house.gives(ALL, "GET", f"/threads/{thread}/state")
    later = {**RUN, "after_seconds": 3600}
    waiting = await house.gives(ALL, "POST", f"/threads/{busy}/runs", later)
    assistant = await house.gives(ALL, "POST", "/assistants", {"graph_id": "echo"})
    cron = await house.gives(ALL, "POST", "/runs/crons", CRON)
    await house.gives(ALL, "PUT", "/store/items", ITEM)
    return {
        "t": thread,
        "r": ended.headers["content-location"].rpartition("/")[2],
        "s": state["checkpoint"]["checkpoint_id"],
        "b": busy,
        "w": waiting["run_id"],
        "a": assistant["assistant_id"],
        "c": cron["cron_id"],
        "default": default_id("echo"),
    }


def filled(body: Any, ids: dict[str, str]) -> Any:
    """``body`` with ids in the place of their letters."""
    if isinstance(body, str):
        return ids.get(body[1:-1], body) if body[:1] == "{" else body
    if isinstance(body, list):
        return [filled(one, ids) for one in body]
    if isinstance(body, dict):
        return {key: filled(one, ids) for key, one in body.items()}
    return body


async def test_each_endpoint_asks_its_handlers(house: House):
    wrong: list[Any] = []
    for number, (method, path, body, expected) in enumerate(TABLE):
        ids = await _fresh(house)
        user = {"identity": f"user {number}"}
        answer = await house(user, method, path.format(**ids), filled(body, ids))
        asked = [(check, set(value)) for check, value in house.asked(user["identity"])]
        if not answer.is_success or asked != expected:
            wrong.append((method, path, answer.status_code, answer.text[:200], asked))
    assert not wrong


async def test_each_command_asks_for_the_thread(house: House, things: dict[str, str]):
    """Those that read ask to read, those that make a run ask for that, too."""
    thread = things["t"]
    commands = {
        "agent.getTree": ["threads.read"],
        "state.get": ["threads.read"],
        "state.listCheckpoints": ["threads.read"],
        "input.inject": ["threads.read", "threads.update"],
        "state.fork": ["threads.read", "threads.create_run"],
        "input.respond": ["threads.read", "threads.create_run"],
    }
    params = {
        "input.inject": {"message": {"role": "user", "content": "hi"}},
        "state.fork": {"checkpoint_id": things["s"]},
        "input.respond": {"interrupt_id": "none"},
    }
    for method, expected in commands.items():
        user = {"identity": method}
        command = {"id": 1, "method": method, "params": params.get(method, {})}
        await house.gives(user, "POST", f"/threads/{thread}/commands", command)
        asked = [check for check, _ in house.asked(method)]
        assert set(asked) >= set(expected) - {"threads.update"}, (method, asked)
        assert set(asked) <= set(expected), (method, asked)


INVALID = [
    ("POST", "/threads", {"metadata": 1}),
    ("POST", "/threads", {"thread_id": "x"}),
    ("GET", "/threads/x", None),
    ("GET", "/threads/{t}/history?before=%7B%7D&limit=x", None),
    ("POST", "/threads/{t}/history", {"before": {"no": 1}}),
    ("POST", "/threads/{t}/state/checkpoint", {"checkpoint": {"checkpoint_id": 1}}),
    ("POST", "/threads/search", {"ids": ["x"]}),
    ("POST", "/threads/search", {"limit": 0}),
    ("POST", "/threads/prune", {"thread_ids": ["{t}", "x"]}),
    ("POST", "/threads/{t}/runs", {}),
    ("POST", "/threads/{t}/runs", {**RUN, "assistant_id": "no"}),
    ("POST", "/threads/{t}/runs", {**RUN, "command": {"no": 1}}),
    ("POST", "/threads/{t}/runs", {**RUN, "webhook": "ftp://x"}),
    ("POST", "/runs/batch", [RUN, {**RUN, "assistant_id": "no"}]),
    ("GET", "/threads/{t}/runs?select=no", None),
    ("GET", "/threads/{t}/stream?stream_modes=no", None),
    ("POST", "/runs/cancel", {}),
    ("POST", "/threads/{t}/stream/events", {"channels": ["no"]}),
    ("POST", "/assistants", {"graph_id": "no"}),
    ("PATCH", "/assistants/{a}", {"graph_id": "no"}),
    ("POST", "/assistants/search", {"graph_id": "no"}),
    ("POST", "/runs/crons", {**CRON, "schedule": "no"}),
    ("POST", "/runs/crons", {**CRON, "assistant_id": "no"}),
    ("PATCH", "/runs/crons/{c}", {}),
    ("POST", "/runs/crons/search", {"thread_id": "x"}),
    ("PUT", "/store/items", {**ITEM, "namespace": ["a.b"]}),
    ("POST", "/store/items/search", {"filter": {"k": {"$no": 1}}}),
]


async def test_a_request_that_fails_validation_asks_nobody(house: House, things: dict[str, str]):
    wrong: list[Any] = []
    for number, (method, path, body) in enumerate(INVALID):
        user = {"identity": f"user {number}"}
        answer = await house(user, method, path.format(**things), filled(body, things))
        if answer.status_code not in (400, 404, 422) or house.asked(user["identity"]):
            wrong.append((method, path, answer.status_code, house.asked(user["identity"])))
    assert not wrong


async def test_what_handlers_are_told_of_a_run(house: House, things: dict[str, str]):
    body = {
        **RUN, "input": {"out": 1}, "metadata": {"m": 1}, "multitask_strategy": "reject",
        "after_seconds": 60, "config": {"configurable": {"c": 1}}, "command": None,
        "if_not_exists": "create", "stream_mode": ["updates"],
    }  # fmt: skip
    user = {"identity": "me"}
    thread = (await house.gives(ALL, "POST", "/threads", {}))["thread_id"]
    made = await house.gives(user, "POST", f"/threads/{thread}/runs", body)
    [(_, value)] = house.asked("me")
    kwargs = value.pop("kwargs")
    assert value == {
        "thread_id": UUID(thread), "assistant_id": UUID(things["default"]),
        "run_id": UUID(made["run_id"]), "status": "pending", "metadata": {"m": 1},
        "prevent_insert_if_inflight": True, "multitask_strategy": "reject",
        "if_not_exists": "create", "after_seconds": 60,
    }  # fmt: skip
    assert kwargs["input"] == {"out": 1}
    assert kwargs["config"] == {"configurable": {"c": 1}}
    assert kwargs["command"] is None
    assert kwargs["stream_mode"] == ["updates"]


async def test_what_handlers_are_told_of_a_cancellation(house: House, things: dict[str, str]):
    path = f"/threads/{things['b']}/runs/{things['w']}/cancel?action=rollback"
    await house.gives({"identity": "one"}, "POST", path)
    assert house.asked("one")[0][1] == {
        "thread_id": UUID(things["b"]), "action": "rollback",
        "metadata": {"run_ids": [things["w"]], "status": None},
    }  # fmt: skip
    await house({"identity": "all of them"}, "POST", "/runs/cancel", {"status": "running"})
    assert house.asked("all of them")[0][1] == {
        "thread_id": None, "action": "interrupt", "metadata": {"run_ids": None, "status": "running"}
    }  # fmt: skip


async def test_a_count_is_told_as_a_search_of_nothing(house: House):
    for room in ("threads", "assistants", "runs/crons"):
        user = {"identity": room}
        await house.gives(user, "POST", f"/{room}/count", {})
        _, value = house.asked(room)[0]
        assert (value["limit"], value["offset"]) == (0, 0)
