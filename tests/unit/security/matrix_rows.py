"""Every operation, asked by another user for what is not theirs: a row for each way of naming it.

``{word}`` stands for an id or a name of ``belongings``; ``{mine}`` for the asker's own thread.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from belongings import CRON, LATER, RUN

EVERYTHING: dict[str, Any] = {}
ALL_AGENTS = {"assistants.read": None}


class Row(NamedTuple):
    """A request. ``operation`` is that of the document, or a method below it."""

    operation: str
    method: str
    path: str
    body: Any = None
    headers: dict[str, str] = {}
    status: int | None = None
    """The one answer that is not that of an unknown id (of JSON-RPC the error's code). Whoever may
    choose an id learns from the refusal that it is taken, and nothing else; in protocol v2, and
    with contexts of A2A, a thread is there once it is named."""
    control: dict[str, str] = {}
    """What the owner names instead, where the row names two things that do not belong together."""
    endless: bool = False
    answers: dict[str, Any] = {}
    """What handlers say to asker and owner, by check: else only what is theirs is let through."""
    owners: dict[str, Any] = {}
    """What they say to the owner in the control."""
    ends: int = 200
    """The owner's answer: a success; 300 lets methods fail, 400 lets requests be refused."""


PLACES = {
    "thread_id": "{thread}", "run_id": "{run}", "assistant_id": "{assistant}",
    "cron_id": "{cron}", "checkpoint_id": "{state}", "namespace": "x",
}  # fmt: skip


def on(
    operation: str, body: Any = None, *, query: str = "", at: dict[str, str] | None = None,
    **more: Any,
) -> Row:  # fmt: skip
    method, _, path = operation.partition(" ")
    for name, value in {**PLACES, **(at or {})}.items():
        path = path.replace(f"{{{name}}}", value)
    return Row(operation, method, path + query, body, **more)


def command(method: str, *, thread: str = "{thread}", more: Any = None, **params: Any) -> Row:
    body = {"id": 1, "method": method, "params": params}
    path = f"/threads/{thread}/commands"
    status = None if thread == "{mine}" else 404
    return Row(f"command {method}", "POST", path, body, status=status, **(more or {}))


def a2a(method: str, params: Any, agent: str = "{assistant}", **more: Any) -> Row:
    """``agent``: hers, or a graph's, which everyone may read then."""
    body = {"jsonrpc": "2.0", "id": 1, "method": method, "params": params}
    answers = {} if agent == "{assistant}" else ALL_AGENTS
    return Row(f"a2a {method}", "POST", f"/a2a/{agent}", body, answers=answers, **more)


def mcp(method: str, params: Any = None, **more: Any) -> Row:
    body = {"jsonrpc": "2.0", "id": 1, "method": method, "params": params or {}}
    return Row(f"mcp {method}", "POST", "/mcp", body, **more)


def socket(*commands: Any, thread: str = "{thread}") -> Row:
    status = None if thread == "{mine}" else 4404
    return Row("socket /threads/{thread_id}/stream/events", "SOCKET",
               f"/threads/{thread}/stream/events", list(commands), status=status)  # fmt: skip


BUSY = {"at": {"thread_id": "{busy}", "run_id": "{waiting}"}}
MINE = {"at": {"thread_id": "{mine}"}}
AS_MINE = {**MINE, "control": {"mine": "thread"}}
AS_BUSY = {"at": {"thread_id": "{mine}", "run_id": "{waiting}"}, "control": {"mine": "busy"}}
AT_STATE = {"checkpoint": {"checkpoint_id": "{state}"}}
HERS = {"metadata": {"topic": "{topic}"}}


def _say(method: str) -> dict[str, Any]:
    if method.startswith("Send"):
        return {"role": "ROLE_USER", "parts": [{"text": "x"}], "messageId": "m"}
    return {"role": "user", "parts": [{"kind": "text", "text": "x"}], "messageId": "m"}


SUBSCRIBE = {"id": 1, "method": "subscription.subscribe", "params": {"channels": ["values"]}}
RUNS = "/threads/{thread_id}/runs"
KEPT = {"input": {"note": "x", "messages": []}}
HER_RUN = {**RUN, "assistant_id": "{assistant}"}
HER_CRON = {**CRON, "assistant_id": "{assistant}"}

THREADS = [
    on("POST /threads", {"thread_id": "{thread}"}, status=409, ends=400),
    on("POST /threads", {"thread_id": "{thread}", "if_exists": "do_nothing"}, status=409),
    on("POST /threads", {"thread_id": "{thread}", "if_exists": "do_nothing", "ttl": {"ttl": 1},
                         "metadata": {"x": 1}}, status=409),
    on("POST /threads", {"thread_id": "{thread}", "metadata": {"graph_id": "echo"}, "supersteps":
                         [{"updates": [{"as_node": "node", "values": {"note": "x"}}]}]},
       status=409, ends=400),
    on("POST /threads", HERS, headers={"idempotency-key": "{key}0"}, ends=400),
    on("POST /threads/search", EVERYTHING),
    on("POST /threads/search", {"ids": ["{thread}", "{asking}", "{mine}"]}),
    on("POST /threads/search", HERS), on("POST /threads/search", {"values": {"note": "{topic}"}}),
    on("POST /threads/search", {"status": "interrupted"}),
    on("POST /threads/search", {"sort_by": "status", "sort_order": "asc", "offset": 0}),
    on("POST /threads/search", {"limit": 1, "offset": 1}),
    on("POST /threads/search", {"ids": ["{thread}"], "select": ["values", "metadata"],
                                "extract": {"n": "values.note", "m": "metadata.note"}}),
    on("POST /threads/count", EVERYTHING), on("POST /threads/count", HERS),
    on("POST /threads/count", {"values": {"note": "{topic}"}}),
    on("POST /threads/count", {"status": "interrupted"}),
    on("POST /threads/prune", {"thread_ids": ["{thread}"]}),
    on("POST /threads/prune", {"thread_ids": ["{thread}"], "strategy": "keep_latest"}),
    on("POST /threads/prune", {"thread_ids": ["{mine}", "{busy}", "{asking}"]}),
    on("GET /threads/{thread_id}"), on("GET /threads/{thread_id}", query="?include=ttl"),
    on("PATCH /threads/{thread_id}", {"metadata": {"x": 1}}),
    on("PATCH /threads/{thread_id}", {"ttl": {"ttl": 1}}),
    on("DELETE /threads/{thread_id}"), on("DELETE /threads/{thread_id}", **BUSY),
    on("POST /threads/{thread_id}/copy"),
    on("GET /threads/{thread_id}/storage"), on("GET /threads/{thread_id}/state"),
    on("GET /threads/{thread_id}/state", query="?subgraphs=true"),
    on("POST /threads/{thread_id}/state", {"values": {"note": "x"}}),
    on("POST /threads/{thread_id}/state", {"values": {"note": "x"}, **AT_STATE}),
    on("POST /threads/{thread_id}/state", {"values": {"note": "x"}, "checkpoint_id": "{state}"}),
    on("POST /threads/{thread_id}/state", {"values": {"note": "x"}, **AT_STATE}, **AS_MINE),
    on("POST /threads/{thread_id}/state", {"values": {"note": "x"}, "checkpoint":
       {"checkpoint_id": "{state}", "thread_id": "{thread}"}}, **AS_MINE),
    on("POST /threads/{thread_id}/state", {"values": {"note": "x"}, "checkpoint_id": "{state}"},
       **AS_MINE),
    on("GET /threads/{thread_id}/state/{checkpoint_id}"),
    on("GET /threads/{thread_id}/state/{checkpoint_id}", **AS_MINE),
    on("POST /threads/{thread_id}/state/checkpoint", AT_STATE),
    on("POST /threads/{thread_id}/state/checkpoint", AT_STATE, **AS_MINE),
    on("POST /threads/{thread_id}/state/checkpoint", {"checkpoint":
       {"checkpoint_id": "{state}", "thread_id": "{thread}"}}, **AS_MINE),
    on("GET /threads/{thread_id}/history"),
    on("GET /threads/{thread_id}/history", query="?before={state}", **MINE),
    on("POST /threads/{thread_id}/history", EVERYTHING),
    on("POST /threads/{thread_id}/history", {"before": "{state}"}),
    on("POST /threads/{thread_id}/history", {"before": {"checkpoint_id": "{state}"}}, **MINE),
    on("POST /threads/{thread_id}/history", AT_STATE, **MINE),
    on("POST /threads/{thread_id}/history", {"checkpoint": {"thread_id": "{thread}"}}, **MINE),
    on("POST /threads/{thread_id}/history", {"metadata": {"topic": "{topic}"}}),
]  # fmt: skip

NEW_RUNS = [
    row
    for operation in (f"POST {RUNS}", f"POST {RUNS}/wait", f"POST {RUNS}/stream")
    for row in (
        on(operation, RUN), on(operation, {**RUN, **KEPT}),
        on(operation, {**RUN, "if_not_exists": "create"}, status=404),
        on(operation, {**RUN, "if_not_exists": "create", "metadata": {"x": 1}}, status=404),
        on(operation, {**RUN, "multitask_strategy": "rollback"}, **BUSY),
        on(operation, {**RUN, "multitask_strategy": "interrupt"}, **BUSY),
        on(operation, {**RUN, "multitask_strategy": "reject"}, **BUSY, ends=400),
        on(operation, {**RUN, "checkpoint_id": "{state}"}),
        on(operation, {**RUN, **AT_STATE}, **AS_MINE),
        on(operation, {**RUN, "checkpoint_id": "{state}"}, **AS_MINE),
        on(operation, {**RUN, "config": {"configurable": {
            "checkpoint_id": "{state}", "thread_id": "{thread}"}}}, **AS_MINE),
        on(operation, {**RUN, "config": {"configurable": {"thread_id": "{thread}"}}}, **MINE),
        on(operation, HER_RUN, **MINE),
        on(operation, {"assistant_id": "approval", "command": {"resume": "x"}},
           at={"thread_id": "{asking}"}),
    )
] + [
    on(f"POST {RUNS}", LATER),
    on(f"POST {RUNS}", {**LATER, "webhook": "/runs/crons/{cron}"}, **MINE),
    on(f"POST {RUNS}", {**LATER, "note": "x"}, at={"thread_id": "{mine}"},
       headers={"idempotency-key": "{key}3"}, ends=400),
]  # fmt: skip

RUNS_ALONE = [
    row
    for operation in ("POST /runs", "POST /runs/wait", "POST /runs/stream")
    for row in (
        on(operation, HER_RUN),
        on(operation, {**HER_RUN, "metadata": {"thread_id": "{thread}"}}),
        on(operation, {**RUN, **AT_STATE}, ends=400),
        on(operation, {**RUN, "checkpoint_id": "{state}"}, ends=400),
        on(operation, {**RUN, "config": {"configurable": {
            "thread_id": "{thread}", "checkpoint_id": "{state}"}}}, ends=400),
        on(operation, {**RUN, "config": {"configurable": {"thread_id": "{thread}"}}}),
    )
] + [
    on("POST /runs", {**LATER, "webhook": "/threads/{thread}/state"}),
    on("POST /runs/batch", [LATER, {**LATER, "assistant_id": "{assistant}"}]),
    on("POST /runs/batch", [{**LATER, **AT_STATE}], ends=400),
    on("POST /runs/batch", [{**LATER, "checkpoint_id": "{state}"}], ends=400),
    on("POST /runs/cancel", {"status": "all"}), on("POST /runs/cancel", {"status": "pending"}),
    on("POST /runs/cancel", {"thread_id": "{busy}", "run_ids": ["{waiting}"]}),
    on("POST /runs/cancel", {"thread_id": "{busy}", "run_ids": ["{waiting}"]},
       query="?action=rollback"),
    on("POST /runs/cancel", {"thread_id": "{mine}", "run_ids": ["{waiting}"]},
       control={"mine": "busy"}),
]  # fmt: skip

OLD_RUNS = [
    on(f"GET {RUNS}"), on(f"GET {RUNS}", query="?status=success"),
    on(f"GET {RUNS}/{{run_id}}"), on(f"GET {RUNS}/{{run_id}}", **AS_MINE),
    on(f"GET {RUNS}/{{run_id}}/join"), on(f"GET {RUNS}/{{run_id}}/join", **AS_MINE),
    on(f"GET {RUNS}/{{run_id}}/join", **BUSY, endless=True),
    on(f"GET {RUNS}/{{run_id}}/join", query="?cancel_on_disconnect=true", **BUSY, endless=True),
    on(f"DELETE {RUNS}/{{run_id}}"), on(f"DELETE {RUNS}/{{run_id}}", **AS_MINE),
    on(f"DELETE {RUNS}/{{run_id}}", **BUSY), on(f"DELETE {RUNS}/{{run_id}}", **AS_BUSY),
    on(f"POST {RUNS}/{{run_id}}/cancel", **BUSY), on(f"POST {RUNS}/{{run_id}}/cancel", **AS_BUSY),
    on(f"POST {RUNS}/{{run_id}}/cancel", query="?action=rollback", **BUSY),
    on(f"POST {RUNS}/{{run_id}}/cancel", query="?wait=1", **BUSY),
]  # fmt: skip

STREAMS = [
    on(f"GET {RUNS}/{{run_id}}/stream", endless=True),
    on(f"GET {RUNS}/{{run_id}}/stream", headers={"last-event-id": "-1"}, endless=True),
    on(f"GET {RUNS}/{{run_id}}/stream", **AS_MINE, endless=True),
    on(f"GET {RUNS}/{{run_id}}/stream", **BUSY, endless=True),
    on(f"GET {RUNS}/{{run_id}}/stream", query="?cancel_on_disconnect=true", **BUSY, endless=True),
    on("GET /threads/{thread_id}/stream", endless=True),
    on("GET /threads/{thread_id}/stream", headers={"last-event-id": "-"}, endless=True),
    on("POST /threads/{thread_id}/stream/events", {"channels": ["values"]}, status=404,
       endless=True),
    on("POST /threads/{thread_id}/stream/events", {"channels": ["lifecycle"], "since": 1},
       status=404, endless=True),
    socket(), socket(SUBSCRIBE),
    socket({"id": 1, "method": "run.start", "params": RUN}),
    socket({"id": 1, "method": "run.start", "params": HER_RUN}, thread="{mine}"),
]  # fmt: skip

STATE_COMMANDS = [
    on("POST /threads/{thread_id}/commands", {"id": 1, "method": "run.start", "params": RUN},
       status=404),
    on("POST /threads/{thread_id}/commands", {"id": 1, "method": "x"}, status=404, ends=300),
    command("run.start", **RUN), command("run.start", thread="{busy}", **LATER),
    command("run.start", thread="{mine}", **HER_RUN),
    command("run.start", thread="{busy}", multitaskStrategy="rollback", **RUN),
    command("input.respond", thread="{asking}", interrupt_id="{interrupt}", response="x"),
    command("input.respond", thread="{mine}", interrupt_id="{interrupt}", response="x",
            more={"control": {"mine": "asking"}}),
    command("agent.getTree", more={"ends": 300}), command("state.get"),
    command("state.get", thread="{asking}", keys=["note"]),
    command("state.listCheckpoints"),
    command("state.listCheckpoints", thread="{mine}", before="{state}"),
    command("state.fork", checkpoint_id="{state}"),
    command("state.fork", thread="{mine}", checkpoint_id="{state}",
            more={"control": {"mine": "thread"}}),
    command("input.inject", message={"role": "user", "content": "x"}),
]  # fmt: skip

ASSISTANTS = [
    on("POST /assistants", {"assistant_id": "{assistant}", "graph_id": "echo"}, status=409,
       ends=400),
    on("POST /assistants", {"assistant_id": "{assistant}", "graph_id": "echo",
                            "if_exists": "do_nothing"}, status=409),
    on("POST /assistants/search", EVERYTHING), on("POST /assistants/search", HERS),
    on("POST /assistants/search", {"name": "{tool}"}),
    on("POST /assistants/search", {"graph_id": "echo", "sort_by": "name", "limit": 1}),
    on("POST /assistants/search", {"select": ["config", "metadata"], "limit": 1, "offset": 1}),
    on("POST /assistants/count", EVERYTHING), on("POST /assistants/count", HERS),
    on("POST /assistants/count", {"name": "{tool}"}),
    on("POST /assistants/count", {"graph_id": "echo"}),
    on("GET /assistants/{assistant_id}"), on("PATCH /assistants/{assistant_id}", {"name": "x"}),
    on("PATCH /assistants/{assistant_id}", {"metadata": {"owner": "x"}}),
    on("DELETE /assistants/{assistant_id}"),
    on("DELETE /assistants/{assistant_id}", query="?delete_threads=true"),
    on("POST /assistants/{assistant_id}/versions", EVERYTHING),
    on("POST /assistants/{assistant_id}/versions", HERS),
    on("POST /assistants/{assistant_id}/latest", {"version": 1}),
    on("GET /assistants/{assistant_id}/graph"),
    on("GET /assistants/{assistant_id}/graph", query="?xray=true"),
    on("GET /assistants/{assistant_id}/subgraphs"),
    on("GET /assistants/{assistant_id}/subgraphs/{namespace}"),
    on("GET /assistants/{assistant_id}/schemas"),
]  # fmt: skip

CRONS = [
    on("POST /runs/crons", HER_CRON),
    on("POST /runs/crons", {**CRON, "config": {"configurable": {"thread_id": "{thread}"}}}),
    on("POST /runs/crons", {**CRON, "webhook": "/threads/{thread}/state"}),
    on("POST /threads/{thread_id}/runs/crons", CRON),
    on("POST /threads/{thread_id}/runs/crons", HER_CRON, **MINE),
    on("POST /runs/crons/search", EVERYTHING), on("POST /runs/crons/search", HERS),
    on("POST /runs/crons/search", {"thread_id": "{thread}"}),
    on("POST /runs/crons/search", {"assistant_id": "{assistant}"}),
    on("POST /runs/crons/search", {"limit": 1, "offset": 1, "select": ["payload"]}),
    on("POST /runs/crons/count", EVERYTHING), on("POST /runs/crons/count", HERS),
    on("POST /runs/crons/count", {"thread_id": "{thread}"}),
    on("POST /runs/crons/count", {"assistant_id": "{assistant}"}),
    on("GET /runs/crons/{cron_id}"),
    on("GET /runs/crons/{cron_id}", at={"cron_id": "{thread_cron}"}),
    on("PATCH /runs/crons/{cron_id}", {"enabled": False}),
    on("PATCH /runs/crons/{cron_id}", {"input": {}}, at={"cron_id": "{thread_cron}"}),
    on("DELETE /runs/crons/{cron_id}"),
    on("DELETE /runs/crons/{cron_id}", at={"cron_id": "{thread_cron}"}),
]  # fmt: skip

ITEM = {"namespace": ["{topic}"], "key": "key"}
STORE = [
    on("PUT /store/items", {**ITEM, "value": {"x": 1}}),
    on("PUT /store/items", {**ITEM, "value": {"x": 1}, "namespace": ["alice", "{topic}"]}),
    on("GET /store/items", query="?namespace={topic}&key=key"),
    on("GET /store/items", query="?namespace=alice.{topic}&key=key"),
    on("GET /store/items", query="?namespace={topic}&key=key&refresh_ttl=true"),
    on("DELETE /store/items", ITEM),
    on("DELETE /store/items", {**ITEM, "namespace": ["alice", "{topic}"]}),
    on("POST /store/items/search", {"namespace_prefix": []}),
    on("POST /store/items/search", {"namespace_prefix": ["{topic}"]}),
    on("POST /store/items/search", {"namespace_prefix": ["alice"]}),
    on("POST /store/items/search", {"namespace_prefix": ["*"], "limit": 1, "offset": 1}),
    on("POST /store/items/search", {"namespace_prefix": [], "filter": {"x": {"$ne": 5}}}),
    on("POST /store/namespaces", EVERYTHING), on("POST /store/namespaces", {"prefix": ["alice"]}),
    on("POST /store/namespaces", {"suffix": ["{topic}"]}),
    on("POST /store/namespaces", {"prefix": ["*"], "max_depth": 1}),
]  # fmt: skip

TOOLS = [
    mcp("initialize"), mcp("ping"), mcp("tools/list"),
    mcp("tools/call", {"name": "{tool}", "arguments": {}}),
    mcp("tools/call", {"name": "{assistant}", "arguments": {}}, ends=300),
    Row("mcp notifications/cancelled", "POST", "/mcp",
        {"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": 1}}),
    on("POST /mcp", {"jsonrpc": "2.0", "id": 1, "method": "tools/list"}),
    on("GET /mcp", ends=400), on("DELETE /mcp", ends=400),
]  # fmt: skip


def _of_task(method: str, name: str, **params: Any) -> list[Row]:
    """A method over a task, by her agent and by the graph's, in each way to name the task."""
    return [
        a2a(method, {name: "{task}", **params}, "approval"),
        a2a(method, {name: "{task}", "contextId": "{context}", **params}, "approval"),
        a2a(method, {name: "{task}", "contextId": "{mine}", **params}, "approval",
            control={"mine": "context"}),
        a2a(method, {name: "{task}", **params}, control={"assistant": "approval"},
            owners=ALL_AGENTS),
    ]  # fmt: skip


CONFIG = {"id": "{config}", "url": "http://127.0.0.1:9/"}
PUSH = "tasks/pushNotificationConfig"
AGENTS = [
    on("POST /a2a/{assistant_id}", {"jsonrpc": "2.0", "id": 1, "method": "ListTasks"}),
    on("GET /a2a/{assistant_id}"),
    on("GET /a2a/{assistant_id}/.well-known/agent-card.json"),
    on("GET /.well-known/agent-card.json", query="?assistant_id={assistant}"),
    *(
        row
        for method in ("message/send", "message/stream", "SendMessage", "SendStreamingMessage")
        for row in (
            a2a(method, {"message": _say(method)}),
            a2a(method, {"message": {**_say(method), "contextId": "{thread}"}}, "echo",
                status=-32602),
            a2a(method, {"message": {**_say(method), "contextId": "{context}"}}, "approval",
                status=-32602),
            a2a(method, {"message": {**_say(method), "taskId": "{task}"}}, "approval"),
            a2a(method, {"message": {**_say(method), "taskId": "{task}",
                                     "contextId": "{context}"}}, "approval"),
            a2a(method, {"message": {**_say(method), "referenceTaskIds": ["{task}"]}}, "echo"),
        )
    ),
    *(row for method in ("tasks/get", "GetTask", "tasks/cancel", "CancelTask", "tasks/resubscribe",
                         "SubscribeToTask")
      for row in _of_task(method, "id")),
    *(row for method in ("tasks/list", "ListTasks") for row in (
        a2a(method, {"pageSize": 10}, "approval"),
        a2a(method, {"contextId": "{context}"}, "approval"),
        a2a(method, {"pageSize": 1, "includeArtifacts": True}, "approval"),
        a2a(method, {"pageSize": 10}),
    )),
    a2a("GetExtendedAgentCard", {}),
    *_of_task(f"{PUSH}/set", "taskId", pushNotificationConfig=CONFIG),
    *_of_task("CreateTaskPushNotificationConfig", "taskId", **CONFIG),
    *_of_task(f"{PUSH}/get", "id", pushNotificationConfigId="{config}"),
    *_of_task(f"{PUSH}/get", "id"),
    *_of_task("GetTaskPushNotificationConfig", "taskId", id="{config}"),
    *_of_task(f"{PUSH}/list", "id"), *_of_task("ListTaskPushNotificationConfigs", "taskId"),
    *_of_task(f"{PUSH}/delete", "id", pushNotificationConfigId="{config}"),
    *_of_task("DeleteTaskPushNotificationConfig", "taskId", id="{config}"),
]  # fmt: skip

PUBLIC = [
    on(f"GET {path}", status=200)
    for path in ("/ok", "/", "/info", "/metrics", "/openapi.json", "/docs")
]

ROWS = [
    *THREADS, *NEW_RUNS, *RUNS_ALONE, *OLD_RUNS, *STREAMS, *STATE_COMMANDS, *ASSISTANTS, *CRONS,
    *STORE, *TOOLS, *AGENTS, *PUBLIC,
]  # fmt: skip
