"""Reading and writing the states of threads."""

import asyncio

import pytest

from treadle.auth import ANYONE
from treadle.errors import Conflict, Invalid, NotFound, Refused
from treadle.ids import new_id
from treadle.threads import models
from treadle.threads.models import StateUpdate, Superstep, SuperstepUpdate


def supersteps(*steps):
    return [Superstep([SuperstepUpdate(node, values)]) for node, values in steps]


@pytest.fixture
def read(service, plain):
    async def read(thread_id, checkpoint=None, **options):
        return plain(await service.states.get(ANYONE, thread_id, checkpoint, **options))

    return read


@pytest.fixture
def history(service, plain):
    async def history(thread_id, limit=50, **options):
        return plain(await service.states.history(ANYONE, thread_id, limit=limit, **options))

    return history


# reading ------------------------------------------------------------------------------------------
@pytest.mark.parametrize("graph", [None, "chain"])
async def test_a_thread_that_never_ran_has_an_empty_state(make, read, graph):
    thread = await make(graph)
    assert await read(thread["thread_id"]) == {
        "values": {}, "next": [], "tasks": [], "metadata": None, "created_at": None,
        "checkpoint": None, "parent_checkpoint": None, "interrupts": [],
        "checkpoint_id": None, "parent_checkpoint_id": None,
    }  # fmt: skip


async def test_a_graph_that_is_not_served_is_named(make, read):
    thread = await make("nope")
    with pytest.raises(NotFound, match=r"Graph 'nope' not found. Expected one of: \['chain',"):
        await read(thread["thread_id"])


@pytest.mark.parametrize("graph", ["chain", "made_chain"])
async def test_state_names_its_checkpoint_and_parent(make, update, read, graph):
    thread_id = (await make(graph))["thread_id"]
    first = await update(thread_id, {"log": ["x"]})
    second = await update(thread_id, {"log": ["y"]}, as_node="a")
    state = await read(thread_id)
    assert state["values"] == {"log": ["x", "y"]}
    assert state["next"] == ["b"]
    assert state["checkpoint"] == second["checkpoint"]
    assert state["parent_checkpoint"] == first["checkpoint"]
    assert state["checkpoint_id"] == second["checkpoint_id"]
    assert {k: state["metadata"][k] for k in ("source", "step", "graph_id", "thread_id")} == {
        "source": "update", "step": 1, "graph_id": graph, "thread_id": thread_id,
    }  # fmt: skip
    [task] = state["tasks"]
    assert {**task, "id": None} == {
        "id": None, "name": "b", "path": ["__pregel_pull", "b"], "error": None,
        "interrupts": [], "checkpoint": None, "state": None, "result": None,
    }  # fmt: skip
    assert (await read(thread_id, first["checkpoint"]))["values"] == {"log": ["x"]}


@pytest.mark.parametrize(
    "checkpoint", [{"checkpoint_id": new_id()}, {"checkpoint_id": "zzz"}, {"checkpoint_ns": "no"}]
)
async def test_unknown_checkpoints_are_not_found_and_not_forked(
    make, update, read, history, checkpoint
):
    for thread_id in [(await make("chain"))["thread_id"], (await make())["thread_id"]]:
        with pytest.raises(NotFound):
            await read(thread_id, checkpoint)
    thread_id = (await make("chain"))["thread_id"]
    await update(thread_id, {"log": ["x"]})
    with pytest.raises(NotFound):
        await update(thread_id, {"log": ["y"]}, checkpoint=checkpoint)
    assert len(await history(thread_id)) == 1


@pytest.mark.parametrize(
    "checkpoint", [{"checkpoint_id": 5}, {"checkpoint_ns": []}, {"checkpoint_map": "x"}]
)
async def test_a_malformed_checkpoint_is_explained(make, read, checkpoint):
    thread = await make("chain")
    with pytest.raises(Invalid, match=f"checkpoint.{next(iter(checkpoint))} is"):
        await read(thread["thread_id"], checkpoint)


async def test_select_picks_fields_and_values(make, update, read):
    thread_id = (await make("chain"))["thread_id"]
    await update(thread_id, {"log": ["x"], "last": "x"}, as_node="c")
    assert await read(thread_id, select=["values.last", "values.no", "next"]) == {
        "values": {"last": "x"}, "next": [],
    }  # fmt: skip
    assert await read(thread_id, select=["values", "values.last"]) == {
        "values": {"log": ["x"], "last": "x"}
    }
    with pytest.raises(Invalid, match="Cannot select 'bogus'"):
        await read(thread_id, select=["bogus"])


# history ------------------------------------------------------------------------------------------
@pytest.fixture
async def updated(make, update):
    """A thread of three states."""
    thread_id = (await make("chain"))["thread_id"]
    for word in ("x", "y", "z"):
        await update(thread_id, {"log": [word]}, as_node="a")
    return thread_id


async def test_history_before_a_checkpoint_in_each_form(updated, history):
    whole = await history(updated)
    assert [s["metadata"]["step"] for s in whole] == [2, 1, 0]
    checkpoint = whole[0]["checkpoint"]
    named = {"checkpoint_id": checkpoint["checkpoint_id"]}
    for before in (checkpoint, checkpoint["checkpoint_id"], named, {"configurable": named}):
        assert await history(updated, before=before) == whole[1:]
    assert await history(updated, before="") == whole
    assert await history(updated, before="0") == []
    assert await history(updated, before="zzz") == whole
    with pytest.raises(Invalid, match="before"):
        await history(updated, before={"nonsense": 1})


@pytest.mark.parametrize(
    ("metadata", "steps"),
    [({"step": 1}, [1]), ({"step": "1"}, []), ({"graph_id": "chain"}, [2, 1, 0]), ({"no": 1}, [])],
)
async def test_history_by_metadata(updated, history, metadata, steps):
    found = await history(updated, metadata=metadata)
    assert [s["metadata"]["step"] for s in found] == steps


async def test_history_by_thread_id_means_this_thread(updated, history):
    assert len(await history(updated, metadata={"thread_id": updated})) == 3
    assert await history(updated, metadata={"thread_id": new_id()}) == []


@pytest.mark.parametrize(("limit", "count"), [(-1, 0), (0, 0), (1, 1), (2, 2), (5000, 3)])
async def test_history_limit(updated, history, limit, count):
    assert len(await history(updated, limit)) == count


async def test_history_of_one_checkpoint(updated, history):
    second = (await history(updated))[1]
    assert await history(updated, checkpoint=second["checkpoint"]) == [second]


# updating -----------------------------------------------------------------------------------------
async def test_an_update_shows_on_the_thread_and_is_announced(
    make, update, read, service, plain, announced
):
    before = await make("chain")
    thread_id = before["thread_id"]
    await update(thread_id, {"log": ["x"]}, as_node="a")
    after = plain(await service.get(ANYONE, thread_id))
    assert (after["values"], after["status"]) == ({"log": ["x"]}, "interrupted")
    assert (after["interrupts"], after["error"]) == ({}, None)
    assert after["state_updated_at"] > before["state_updated_at"]
    assert plain(announced) == [[thread_id, await read(thread_id)]]


async def test_the_thread_shows_a_fork(updated, update, history, service, plain):
    oldest = (await history(updated))[-1]
    await update(updated, {"log": ["fork"]}, checkpoint_id=oldest["checkpoint_id"])
    assert plain(await service.get(ANYONE, updated))["values"] == {"log": ["x", "fork"]}
    newest = (await history(updated))[0]
    assert newest["parent_checkpoint"] == oldest["checkpoint"]


async def test_an_update_inside_a_subgraph_leaves_the_root_values(
    make, update, read, service, registry, plain
):
    from treadle.checkpoints.saver import Saver
    from treadle.graphs.registry import bind

    thread_id = (await make("nested"))["thread_id"]
    graph = bind(registry.static("nested"), Saver(service._database), None)
    await graph.ainvoke({"answer": "none"}, {"configurable": {"thread_id": thread_id}})
    root = await read(thread_id, subgraphs=True)
    [task] = root["tasks"]
    assert task["checkpoint"] is None
    assert task["state"]["next"] == ["ask"]
    answer = await update(thread_id, {"answer": "inner"}, checkpoint=task["state"]["checkpoint"])
    assert set(answer["checkpoint"]["checkpoint_map"]) == {"", f"middle:{task['id']}"}
    inner = await read(thread_id, {"checkpoint_ns": f"middle:{task['id']}"})
    assert inner["values"] == {"answer": "inner"}
    thread = plain(await service.get(ANYONE, thread_id))
    assert thread["values"] == {"answer": "none"}
    assert set(thread["interrupts"]) == {task["id"]}
    assert (await read(thread_id))["tasks"][0]["checkpoint"] == {
        "thread_id": thread_id, "checkpoint_ns": f"middle:{task['id']}",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("values", "as_node", "words"),
    [
        ({"log": ["x"]}, "nope", "^Node nope does not exist$"),
        ({"log": ["x"]}, "", "^Node  does not exist$"),
        ({"log": ["x"]}, "__end__", "^Node __end__ does not exist$"),
        ([{"log": ["x"]}], "a", "^Expected dict, got "),
        ({"log": "not a list"}, "a", "can only concatenate list"),
    ],
)
async def test_what_the_graph_cannot_take_is_refused_and_changes_nothing(
    updated, update, read, database, values, as_node, words
):
    async def everything():
        tables = ("threads", "checkpoints", "checkpoint_values", "checkpoint_writes")
        return [[dict(r) for r in await database.read_all(f"SELECT * FROM {t}")] for t in tables]

    before = await everything()
    with pytest.raises(Refused, match=words):
        await update(updated, values, as_node=as_node)
    assert await everything() == before
    assert (await read(updated))["values"] == {"log": ["x", "y", "z"]}


async def test_bad_messages_are_explained(make, update):
    thread_id = (await make("chat"))["thread_id"]
    with pytest.raises(Refused, match="Message dict must contain 'role' and 'content' keys"):
        await update(thread_id, {"messages": [{"bad": 1}]})


async def test_an_update_without_a_graph_says_what_to_do(make, update):
    thread_id = (await make())["thread_id"]
    with pytest.raises(Refused, match=f"^Thread '{thread_id}' has no assigned graph ID"):
        await update(thread_id, {})


async def test_runs_in_flight_are_named(make, update, add_run):
    thread_id = (await make("chain"))["thread_id"]
    for i in range(12):
        await add_run(thread_id, f"run-{i}")
    await add_run(thread_id, "ended", "success")
    with pytest.raises(Conflict) as caught:
        await update(thread_id, {"log": ["x"]})
    assert str(caught.value).startswith(f"Thread {thread_id} has in-flight runs: run-0, run-1,")
    assert str(caught.value).endswith(" and 4 more")


async def test_simultaneous_updates_are_all_kept(make, update, read):
    thread_id = (await make("chain"))["thread_id"]
    await asyncio.gather(*(update(thread_id, {"log": [i]}) for i in range(20)))
    assert sorted((await read(thread_id))["values"]["log"]) == list(range(20))


async def test_an_update_follows_what_was_written_meanwhile(
    make, update, read, make_service, plain
):
    """Two services stand for two processes: no lock is shared."""
    thread_id = (await make("chain"))["thread_id"]
    other = make_service()
    await asyncio.gather(
        *(update(thread_id, {"log": [i]}) for i in range(3)),
        *(other.states.update(ANYONE, thread_id, StateUpdate({"log": [i]})) for i in range(3, 6)),
    )
    assert sorted((await read(thread_id))["values"]["log"]) == list(range(6))


# supersteps ---------------------------------------------------------------------------------------
async def test_supersteps_make_a_thread_with_states(make, history):
    thread = await make(
        "chat",
        supersteps=supersteps(
            ("__input__", {}),
            ("__start__", {"messages": [{"type": "human", "content": "hello"}]}),
            ("reply", {"messages": [{"type": "ai", "content": "Hi!"}]}),
        ),
    )
    assert [m["content"] for m in thread["values"]["messages"]] == ["hello", "Hi!"]
    assert (thread["status"], thread["interrupts"]) == ("idle", {})
    states = await history(thread["thread_id"])
    assert [(s["metadata"]["step"], s["metadata"]["source"]) for s in states] == [
        (1, "update"), (0, "update"), (-1, "input"),
    ]  # fmt: skip


async def test_a_history_can_be_replayed(make, history):
    thread = await make(
        "chain",
        supersteps=supersteps(
            ("__input__", {}), ("__start__", {}), ("a", {"log": ["a"]}), ("b", {"log": ["b"]})
        ),
    )
    states = await history(thread["thread_id"])
    replay = supersteps(
        ("__input__", {}),
        *((t["name"], t["result"]) for s in reversed(states[1:]) for t in s["tasks"]),
    )
    again = await make("chain", supersteps=replay)
    assert (again["values"], again["status"]) == (thread["values"], thread["status"])
    assert [s["next"] for s in await history(again["thread_id"])] == [s["next"] for s in states]


@pytest.mark.parametrize("goto", ["loud", ["loud"], [models.SendRequest("loud", {})]])
async def test_a_command_goes_to_nodes(make, read, goto):
    command = models.SuperstepCommand(update={"log": ["cmd"]}, goto=goto)
    steps = [Superstep([SuperstepUpdate("choose", command=command)])]
    thread = await make("fan", supersteps=steps)
    assert (thread["values"], thread["status"]) == ({"log": ["cmd"]}, "interrupted")
    assert (await read(thread["thread_id"]))["next"] == ["loud"]


async def test_a_command_may_only_update(make, read):
    steps = [
        Superstep([SuperstepUpdate("a", command=models.SuperstepCommand(update={"log": ["u"]}))])
    ]
    thread = await make("chain", supersteps=steps)
    assert thread["values"] == {"log": ["u"]}


@pytest.mark.parametrize(
    ("graph", "steps", "refusal"),
    [
        (None, supersteps(("a", {})), Refused),
        ("nope", supersteps(("a", {})), NotFound),
        ("chain", supersteps(("nope", {})), Refused),
        ("chain", supersteps(("a", {"log": ["x"]}), ("a", {"log": "no list"})), Refused),
        ("chain", [Superstep([])], Refused),
    ],
)
async def test_supersteps_that_cannot_be_applied_leave_nothing(
    make, database, graph, steps, refusal
):
    with pytest.raises(refusal):
        await make(graph, supersteps=steps)
    for table in ("threads", "checkpoints"):
        assert await database.read_all(f"SELECT * FROM {table}") == []


async def test_supersteps_do_nothing_to_a_thread_that_exists(make, updated, history):
    thread = await make(
        "chain", thread_id=updated, if_exists="do_nothing", supersteps=supersteps(("a", {}))
    )
    assert thread["values"] == {"log": ["x", "y", "z"]}
    assert len(await history(updated)) == 3
    with pytest.raises(Conflict):
        await make("chain", thread_id=updated, supersteps=supersteps(("a", {})))


# storage ------------------------------------------------------------------------------------------
async def test_storage_adds_up(updated, service, plain):
    storage = plain(await service.storage(ANYONE, updated))
    sections = [storage[k] for k in ("checkpoints", "channel_values", "pending_writes")]
    assert storage["thread_id"] == updated
    assert storage["total_bytes"] == sum(s["bytes"] for s in sections) > 0
    assert storage["checkpoints"]["count"] == 3
    assert "log" in storage["channel_values"]["by_channel"]
