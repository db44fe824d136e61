"""SIGKILL at every point of a run's way: what follows is exact, not merely plausible."""

from __future__ import annotations

import contextlib
from typing import Any

import httpx
import pytest
from arena import LONG, Server, parse_events, until

LAYERS: dict[str, list[set[str]]] = {
    "steps": [{"one"}, {"two"}, {"three"}],
    "fan": [{"open"}, {"left", "right"}, {"close"}],
}

DURABILITIES = ("sync", "async", "exit")
RUN_SAVER = "treadle.checkpoints.run_saver:RunSaver"
EXECUTION = "treadle.runs.execution:Execution"
END_RUN = "SET status = :status, error = :error"


def point(call: str, nth: int = 1, when: str = "before", having: str = "") -> dict[str, Any]:
    return {"call": call, "nth": nth, "when": when, "having": having}


ENDED = point("treadle.streaming.log:EventHub.keep_in", 1, "committed")
POINTS = {
    "accepted, not answered": point("treadle.runs.service:RunService._tell"),
    "claiming": point("treadle.runs.worker:Worker._claim", 3),
    "claimed, not started": point("treadle.runs.worker:Worker._start"),
    "started": point("treadle.runs.driving:Drive.run"),
    **{
        f"superstep {nth - 2}, {when} its checkpoint is put": point(f"{RUN_SAVER}.aput", nth, when)
        for nth in range(1, 6)
        for when in ("before", "after")
    },
    **{
        f"task result {nth}, {when} it is put": point(f"{RUN_SAVER}.aput_writes", nth, when)
        for nth in range(1, 6)
        for when in ("before", "after")
    },
    **{
        f"checkpoint write {nth}, {when}": point("treadle.checkpoints.run_saver:insert", nth, when)
        for nth in range(1, 7)
        for when in ("after", "committed")
    },
    "the graph is over": point(f"{EXECUTION}._end"),
    "within the end's transaction": point(
        "treadle.database.sqlite:SQLiteTransaction.send", 1, "after", END_RUN
    ),
    "ended, not announced": ENDED,
    "announced": point(f"{EXECUTION}._perform", 1, "after"),
    **{
        f"events saved {nth}, {when}": point("treadle.streaming.saving:Save.commit", nth, when)
        for nth in (1, 2, 4)
        for when in ("before", "after", "committed")
    },
}
SAMPLE = (
    "accepted, not answered",
    "claimed, not started",
    "superstep -1, before its checkpoint is put",
    "superstep 1, after its checkpoint is put",
    "task result 3, after it is put",
    "checkpoint write 3, after",
    "the graph is over",
    "within the end's transaction",
    "ended, not announced",
    "events saved 2, after",
)


def try_run(server: Server, thread_id: str, graph: str, **body: Any) -> str:
    """Create a run that the server may not live to answer for; the id that it got anyway."""
    with contextlib.suppress(httpx.HTTPError):
        server.run(thread_id, graph, **body)
    return server.database.one("SELECT run_id FROM runs")["run_id"]


def await_fault(server: Server, thread_id: str, run_id: str) -> bool:
    """Wait for the death of the server; False, and kill it, if the run has ended before."""

    def check() -> str | None:
        with contextlib.suppress(httpx.HTTPError):
            if server.status(thread_id, run_id) == "success":
                return "over"
        return None if server.exit_code is None else "struck"

    found = until(check, "the fault")
    server.kill()
    return found == "struck"


def check_settled(server: Server, thread_id: str, run_id: str, log: list[str]) -> None:
    """The run has succeeded, everyone says so, and nothing is left over."""
    path = f"/threads/{thread_id}"
    assert server.ended(thread_id, run_id) == "success"
    thread = server.call("GET", path)
    assert thread["status"] == "idle"
    assert sorted(thread["values"]["log"]) == sorted(log)
    assert server.call("GET", f"{path}/state")["values"] == thread["values"]
    assert server.call("GET", f"{path}/runs/{run_id}/join") == thread["values"]
    stream = server.http.get(f"{path}/runs/{run_id}/stream", headers={"last-event-id": "-"})
    events = parse_events(stream.content)
    assert events[-1].data == thread["values"]
    assert len({event.id for event in events}) == len(events)
    ends = server.database.rows(
        "SELECT id FROM events WHERE run_id = :r AND kind = 'end'", r=run_id
    )
    assert len(ends) == 1
    assert server.database.faults() == []
    assert len(server.database.rows("SELECT owner FROM workers")) == 1


CASES = (
    [
        (name, graph, durability)
        for name in POINTS
        for graph in LAYERS
        for durability in DURABILITIES
    ]
    if LONG
    else [(name, "fan", "sync") for name in SAMPLE] + [("the graph is over", "steps", "async")]
)


@pytest.mark.parametrize(("name", "graph", "durability"), CASES)
def test_a_killed_run_goes_on_exactly_where_it_was(
    server: Server, name: str, graph: str, durability: str
) -> None:
    server.start()
    thread_id = server.thread()
    server.kill()
    server.start(POINTS[name])
    run_id = try_run(
        server,
        thread_id,
        graph,
        input={"token": "A", "seconds": 0.03},
        durability=durability,
        stream_resumable=True,
    )
    struck = await_fault(server, thread_id, run_id)
    assert struck or name not in SAMPLE or durability == "exit"
    assert server.database.faults() == []
    before, done = server.journal.nodes(run_id), server.database.done_nodes(run_id, LAYERS[graph])
    nodes = set().union(*LAYERS[graph])
    at_risk = set(before) - done
    if durability == "sync":
        assert any(at_risk <= layer for layer in LAYERS[graph]), "a step began before its turn"
    server.start()
    check_settled(server, thread_id, run_id, [f"A:{node}" for node in nodes])
    after = server.journal.nodes(run_id)[len(before) :]
    assert sorted(after) == sorted(nodes - done)
    wait = server.call(
        "POST", f"/threads/{thread_id}/runs/wait", {"assistant_id": graph, "input": {"token": "B"}}
    )
    assert len(wait["log"]) == 2 * len(nodes)


# -- what was acknowledged holds ---------------------------------------------------------------

SLOW = {"token": "A", "seconds": 0.4}
CANCELS = ("interrupt", "rollback")


@pytest.mark.parametrize("action", CANCELS)
def test_a_cancel_that_was_acknowledged_holds(server: Server, action: str) -> None:
    server.start(point(f"{EXECUTION}._end"))
    thread_id = server.thread()
    run_id = server.run(thread_id, "steps", input=SLOW, durability="sync")
    until(lambda: "one" in server.journal.nodes(run_id), "the first node")
    path = f"/threads/{thread_id}/runs/{run_id}"
    answer = server.http.post(f"{path}/cancel", params={"action": action})
    assert answer.status_code == 202
    server.wait()
    server.start()
    if action == "rollback":
        until(lambda: server.http.get(path).status_code == 404, "the rollback", 5)
        assert server.database.traces(run_id, "A:one") == []
    else:
        assert server.ended(thread_id, run_id) == "interrupted"
    thread = server.call("GET", f"/threads/{thread_id}")
    assert thread["status"] == ("idle" if action == "rollback" else "interrupted")
    state = server.call("GET", f"/threads/{thread_id}/state")["values"]
    assert (thread["values"] or {}) == state
    assert "two" not in server.journal.nodes(run_id)
    assert server.database.faults() == []


def test_a_rollback_beats_the_interrupt_before_it(server: Server) -> None:
    server.start()
    thread_id = server.thread()
    run_id = server.run(thread_id, "stubborn", input={"seconds": 5})
    until(lambda: server.journal.nodes(run_id), "the node")
    path = f"/threads/{thread_id}/runs/{run_id}"
    for action in CANCELS:
        server.call("POST", f"{path}/cancel", params={"action": action})
    until(lambda: server.http.get(path).status_code == 404, "the rollback")
    assert server.call("GET", f"/threads/{thread_id}")["status"] == "idle"
    assert server.database.traces(run_id) == []


@pytest.mark.parametrize("strategy", CANCELS)
def test_a_newcomer_that_was_accepted_displaces(server: Server, strategy: str) -> None:
    server.start(point(f"{EXECUTION}._end"))
    thread_id = server.thread()
    first = server.run(thread_id, "steps", input=SLOW, durability="sync")
    until(lambda: "two" in server.journal.nodes(first), "the second node")
    second = server.run(thread_id, "steps", input={"token": "B"}, multitask_strategy=strategy)
    server.wait()
    server.start()
    assert server.ended(thread_id, second) == "success"
    log = server.call("GET", f"/threads/{thread_id}/state")["values"]["log"]
    if strategy == "rollback":
        assert server.http.get(f"/threads/{thread_id}/runs/{first}").status_code == 404
        assert log == ["B:one", "B:two", "B:three"]
        assert server.database.traces(first, "A:one") == []
    else:
        assert server.status(thread_id, first) == "interrupted"
        assert log == ["A:one", "B:one", "B:two", "B:three"]
    assert server.journal.nodes(first) == ["one", "two"]
    assert server.database.faults() == []


def test_a_run_that_waits_to_go_on_is_cancelled_like_one_that_runs(server: Server) -> None:
    server.start()
    earlier, thread_id = server.thread(), server.thread()
    blocking = server.run(earlier, "steps", input={"seconds": 1.0}, durability="sync")
    run_id = server.run(thread_id, "steps", input=SLOW, durability="sync", stream_resumable=True)
    until(lambda: "two" in server.journal.nodes(run_id), "the second node")
    server.kill()
    server.env["N_JOBS_PER_WORKER"] = "1"
    server.start()
    path = f"/threads/{thread_id}"
    assert server.status(thread_id, run_id) == "pending"
    server.call("POST", f"{path}/runs/{run_id}/cancel")
    assert server.ended(thread_id, run_id) == "interrupted"
    assert server.status(earlier, blocking) == "running", "it takes no slot to end"
    assert server.journal.nodes(run_id) == ["one", "two"]
    thread = server.call("GET", path)
    assert thread["status"] == "interrupted"
    assert thread["values"] == server.call("GET", f"{path}/state")["values"]
    kinds = server.database.rows("SELECT kind FROM events WHERE run_id = :r ORDER BY id", r=run_id)
    assert kinds[-1]["kind"] == "end"
    assert server.ended(earlier, blocking) == "success"


@pytest.mark.parametrize(
    ("stops", "reached"),
    [({"interrupt_before": ["two"]}, ["one"]), ({"interrupt_after": ["two"]}, ["one", "two"])],
    ids=["before", "after"],
)
@pytest.mark.parametrize("durability", ["sync", "async"])
def test_nothing_goes_on_past_a_breakpoint(
    server: Server, stops: dict[str, Any], reached: list[str], durability: str
) -> None:
    server.start(point(f"{EXECUTION}._end"))
    thread_id = server.thread()
    run_id = server.run(thread_id, "steps", input={"token": "A"}, durability=durability, **stops)
    server.wait()
    server.start()
    assert server.ended(thread_id, run_id) == "success"
    assert server.journal.nodes(run_id) == reached
    assert server.call("GET", f"/threads/{thread_id}")["status"] == "interrupted"
    values = server.call("POST", f"/threads/{thread_id}/runs/wait", {"assistant_id": "steps"})
    assert values["log"] == ["A:one", "A:two", "A:three"]


def test_a_question_is_asked_again_and_answered_once(server: Server) -> None:
    server.start(point(f"{EXECUTION}._end"))
    thread_id = server.thread()
    run_id = server.run(thread_id, "ask", input={"token": "A"}, durability="sync")
    server.wait()
    server.start(point(f"{EXECUTION}._end", 2))
    assert server.ended(thread_id, run_id) == "success"
    assert server.journal.nodes(run_id) == ["before", "question", "question"]
    thread = server.call("GET", f"/threads/{thread_id}")
    assert thread["status"] == "interrupted"
    (asked,) = (item for items in thread["interrupts"].values() for item in items)
    assert asked["value"] == "A"
    resumed = server.run(thread_id, "ask", command={"resume": "yes"}, durability="sync")
    server.wait()
    server.start()
    assert server.ended(thread_id, resumed) == "success"
    assert server.journal.nodes(resumed) == ["question", "after"]
    values = server.call("GET", f"/threads/{thread_id}/state")["values"]
    assert values["log"] == ["A:before", "yes:answer", "A:after"]
    assert server.database.faults() == []


def test_a_failure_is_told_by_every_stream(server: Server) -> None:
    server.start(ENDED)
    thread_id = server.thread()
    run_id = server.run(thread_id, "steps", input="not an object", stream_resumable=True)
    server.wait()
    server.start()
    assert server.ended(thread_id, run_id) == "error"
    stream = server.http.get(
        f"/threads/{thread_id}/runs/{run_id}/stream", headers={"last-event-id": "-"}
    )
    assert parse_events(stream.content)[-1].name == "error"


def test_after_three_losses_a_run_is_an_error_and_its_thread_free(server: Server) -> None:
    loss = point(f"{EXECUTION}._end")
    server.start(loss)
    thread_id = server.thread()
    run_id = try_run(server, thread_id, "steps", input={"token": "A"}, durability="sync")
    server.wait()
    for _ in range(3):  # the third start finds all attempts used up, and dies as it says so
        server.start(loss, ready=False)
        server.wait()
    server.start()
    assert server.ended(thread_id, run_id) == "error"
    assert server.journal.nodes(run_id) == ["one", "two", "three"]
    path = f"/threads/{thread_id}"
    thread = server.call("GET", path)
    assert thread["status"] == "error"
    assert thread["error"]["error"] == "AttemptsExhausted"
    assert " times" in thread["error"]["message"]
    assert server.call("GET", f"{path}/runs/{run_id}/join") == {"__error__": thread["error"]}
    state = server.call("GET", f"{path}/state")["values"]
    assert thread["values"] == state
    values = server.call(
        "POST", f"{path}/runs/wait", {"assistant_id": "steps", "input": {"token": "B"}}
    )
    assert values["log"] == [*state["log"], "B:one", "B:two", "B:three"]
    assert server.call("GET", path)["status"] == "idle"
    assert server.database.faults() == []


# -- threads and states ------------------------------------------------------------------------

WHENS = ("before", "after", "committed")


@pytest.mark.parametrize("when", WHENS)
def test_a_thread_is_deleted_wholly_or_not_at_all(server: Server, when: str) -> None:
    server.start(point("treadle.threads.removal:Removal.delete", 1, when))
    thread_id = server.thread()
    done = server.run(thread_id, "steps", input={"token": "A"}, stream_resumable=True)
    server.ended(thread_id, done)
    run_id = server.run(thread_id, "steps", input=SLOW, durability="sync", stream_resumable=True)
    until(lambda: "one" in server.journal.nodes(run_id), "the first node")
    with pytest.raises(httpx.HTTPError):
        server.http.delete(f"/threads/{thread_id}")
    server.wait()
    server.start()
    if when == "committed":
        assert server.http.get(f"/threads/{thread_id}").status_code == 404
        assert server.database.traces(thread_id, run_id, done) == []
        assert "two" not in server.journal.nodes(run_id)
    else:
        assert server.ended(thread_id, run_id) == "success"
        log = server.call("GET", f"/threads/{thread_id}/state")["values"]["log"]
        assert log == ["A:one", "A:two", "A:three"] * 2
    assert server.database.faults() == []


@pytest.mark.parametrize("nth", range(1, 6) if LONG else [2])
def test_a_large_thread_is_gone_at_once_and_cleared_away_by_whoever_comes(
    server: Server, nth: int
) -> None:
    server.start(
        point("treadle.threads.removal:_Leftovers.remove", nth, "committed"),
        set={"treadle.threads.removal:AT_ONCE_ROWS": 0, "treadle.database.pieces:PIECE_SECONDS": 0},
    )
    thread_id = server.thread()
    done = server.run(thread_id, "steps", input={"token": "A"}, stream_resumable=True)
    server.ended(thread_id, done)
    run_id = server.run(thread_id, "steps", input=SLOW, durability="sync", stream_resumable=True)
    until(lambda: "one" in server.journal.nodes(run_id)[-1:], "the first node")
    with contextlib.suppress(httpx.HTTPError):
        server.call("DELETE", f"/threads/{thread_id}")
    server.wait()
    assert server.database.traces(thread_id) != []
    server.start()
    assert server.http.get(f"/threads/{thread_id}").status_code == 404
    assert server.http.get(f"/threads/{thread_id}/runs/{done}").status_code == 404
    until(lambda: not server.database.traces(thread_id, run_id, done), "the last of it to go")
    assert "two" not in server.journal.nodes(run_id)
    assert server.database.faults() == []


@pytest.mark.parametrize("when", WHENS)
def test_a_run_is_deleted_wholly_or_not_at_all(server: Server, when: str) -> None:
    server.start(point("treadle.checkpoints.upkeep:delete_runs", 1, when))
    thread_id = server.thread()
    run_id = server.run(thread_id, "steps", input=SLOW, durability="sync", stream_resumable=True)
    waiting = server.run(thread_id, "steps", input={"token": "B"})
    until(lambda: "two" in server.journal.nodes(run_id), "the second node")
    with pytest.raises(httpx.HTTPError):
        server.http.delete(f"/threads/{thread_id}/runs/{run_id}")
    server.wait()
    server.start()
    assert server.ended(thread_id, waiting) == "success"
    log = server.call("GET", f"/threads/{thread_id}/state")["values"]["log"]
    if when == "committed":
        assert log == ["B:one", "B:two", "B:three"]
        assert server.database.traces(run_id, "A:one") == []
    else:
        assert log == [f"{token}:{node}" for token in "AB" for node in ("one", "two", "three")]
    assert server.database.faults() == []


@pytest.mark.parametrize("when", WHENS)
def test_a_state_is_updated_wholly_or_not_at_all(server: Server, when: str) -> None:
    server.start(point("treadle.threads.state:ThreadStates.write_in", 1, when))
    thread_id = server.thread()
    run_id = server.run(thread_id, "steps", input={"token": "A"})
    server.ended(thread_id, run_id)
    with pytest.raises(httpx.HTTPError):
        server.http.post(f"/threads/{thread_id}/state", json={"values": {"log": ["U"]}})
    server.wait()
    server.start()
    thread = server.call("GET", f"/threads/{thread_id}")
    state = server.call("GET", f"/threads/{thread_id}/state")
    new = ["U"] if when == "committed" else []
    assert state["values"]["log"] == ["A:one", "A:two", "A:three", *new]
    assert thread["values"] == state["values"]
    assert thread["status"] == "idle"
    assert server.database.faults() == []


@pytest.mark.parametrize("name", [f"checkpoint write {n}, committed" for n in (1, 2, 3, 4)])
def test_a_command_that_was_cut_off_counts_once(server: Server, name: str) -> None:
    server.start()
    thread_id = server.thread()
    asked = server.run(thread_id, "ask", input={"token": "A"}, durability="sync")
    assert server.ended(thread_id, asked) == "success"
    server.kill()
    server.start(POINTS[name])
    command = {"resume": "yes", "update": {"log": ["update"], "token": "B"}}
    with contextlib.suppress(httpx.HTTPError):
        server.run(thread_id, "ask", command=command, durability="sync")
    server.wait()
    newest = "SELECT run_id FROM runs ORDER BY seq DESC LIMIT 1"
    run_id = server.database.one(newest)["run_id"]
    server.start()
    assert server.ended(thread_id, run_id) == "success"
    values = server.call("GET", f"/threads/{thread_id}/state")["values"]
    assert values["log"] == ["A:before", "update", "yes:answer", "B:after"]
    assert server.database.faults() == []
