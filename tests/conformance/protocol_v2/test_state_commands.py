"""The commands that look at a thread or change it: its states, its forks, its messages."""

import asyncio

import pytest

pytestmark = pytest.mark.beyond

HI = {"messages": [{"role": "user", "content": "hi"}]}
NOWHERE = "00000000-0000-4000-8000-000000000000"


async def result(thread, method, **params) -> dict:
    answer = await thread.command(method, params)
    assert answer["type"] == "success", answer
    return answer["result"]


async def refusal(thread, method, **params) -> tuple[str, str]:
    answer = await thread.command(method, params)
    assert answer["type"] == "error", answer
    return answer["error"], answer["message"]


async def ran(thread, graph="steps", input=None) -> None:
    await thread.start(graph, {} if input is None else input)
    await thread.settled()


async def test_the_state_of_a_thread(thread):
    await ran(thread)
    state = await result(thread, "state.get")
    assert state["values"]["items"] == ["a", "b", "c"]
    latest = (await thread.client.get(f"{thread.path}/state")).json()["checkpoint"]
    assert state["checkpoint"] == {"id": latest["checkpoint_id"], "ns": ""}


async def test_the_state_may_be_narrowed_to_keys(thread):
    await ran(thread)
    assert (await result(thread, "state.get", keys=["items"]))["values"] == {
        "items": ["a", "b", "c"]
    }
    assert (await result(thread, "state.get", keys=["none"]))["values"] == {}


async def test_checkpoints_are_listed_newest_first_and_by_pages(thread):
    await ran(thread)
    every = (await result(thread, "state.listCheckpoints", limit=100))["checkpoints"]
    assert [one["next"] for one in every][:4] == [[], ["c"], ["b"], ["a"]]
    assert [one["parent_id"] for one in every[:-1]] == [one["id"] for one in every[1:]]
    first = (await result(thread, "state.listCheckpoints", limit=2))["checkpoints"]
    rest = (await result(thread, "state.listCheckpoints", before=first[-1]["id"]))["checkpoints"]
    assert first + rest == every


@pytest.mark.parametrize(
    ("method", "params"),
    [
        ("state.get", {"keys": "items"}),
        ("state.get", {"namespace": "outer"}),
        ("state.listCheckpoints", {"limit": 0}),
        ("state.listCheckpoints", {"limit": "2"}),
        ("state.listCheckpoints", {"before": 1}),
        ("state.listCheckpoints", {"before": "nonsense"}),
        ("state.fork", {}),
        ("state.fork", {"checkpoint_id": 5}),
        ("input.inject", {}),
        ("input.inject", {"message": {"role": "pirate", "content": "x"}}),
        ("input.inject", {"message": {"role": "user"}}),
    ],
    ids=repr,
)
async def test_wrong_params_are_refused_by_name(thread, method, params):
    await ran(thread)
    code, message = await refusal(thread, method, **params)
    assert code == "invalid_argument"
    assert (next(iter(params)) if params else method) in message


async def test_what_was_never_run_cannot_be_forked_nor_added_to(thread):
    message = {"role": "user", "content": "x"}
    for method, params in (
        ("state.fork", {"checkpoint_id": NOWHERE}),
        ("input.inject", {"message": message}),
    ):
        assert (await refusal(thread, method, **params))[0] == "no_such_run"


@pytest.mark.parametrize("method", ["state.get", "state.listCheckpoints"])
async def test_what_does_not_exist_has_a_code_of_its_own(thread, method):
    assert (await refusal(thread, method))[0] == "no_such_run"
    await ran(thread)
    if method == "state.get":
        assert (await refusal(thread, method, namespace=["nowhere"]))[0] == "no_such_namespace"


async def test_a_fork_goes_on_from_an_older_checkpoint_and_becomes_the_threads_state(thread):
    await ran(thread)
    checkpoints = (await result(thread, "state.listCheckpoints", limit=100))["checkpoints"]
    [before] = [one["id"] for one in checkpoints if one["next"] == ["b"]]
    forked = await result(
        thread, "state.fork", checkpoint_id=before, input={"items": ["branch"]}
    )
    assert forked["thread_id"] == thread.id
    assert forked["run_id"] in [run["run_id"] for run in await thread.runs()]
    shown = await thread.settled()
    assert shown["values"]["items"] == ["a", "branch", "a", "b", "c"]
    assert (await result(thread, "state.get"))["values"] == shown["values"]


async def test_an_unknown_checkpoint_cannot_be_forked(thread):
    await ran(thread)
    assert (await refusal(thread, "state.fork", checkpoint_id=NOWHERE))[0] == "no_such_checkpoint"
    assert len(await thread.runs()) == 1


async def test_a_message_can_be_put_into_the_state_of_a_thread_at_rest(thread):
    await ran(thread, "chat", HI)
    await result(thread, "input.inject", message={"role": "user", "content": "and this"})
    messages = (await result(thread, "state.get"))["values"]["messages"]
    assert [message["type"] for message in messages] == ["human", "ai", "human"]
    assert messages[-1]["content"] == "and this"


async def test_a_message_that_langgraph_cannot_take_is_not_supported(thread, new_thread):
    message = {"role": "user", "content": "x"}
    await ran(thread)
    code, why = await refusal(thread, "input.inject", message=message)
    assert (code, "messages" in why) == ("not_supported", True)
    busy = new_thread()
    await busy.start("slow_chat", HI)
    assert (await refusal(busy, "input.inject", message=message))[0] == "not_supported"
    await busy.settled()


async def test_the_tree_of_the_last_run_needs_no_socket(thread):
    await ran(thread, "nested", HI)
    tree = (await result(thread, "agent.getTree"))["tree"]
    assert (tree["namespace"], tree["status"], tree["graph_name"]) == ([], "completed", "nested")
    [outer] = tree["children"]
    [deep] = outer["children"]
    assert (outer["graph_name"], deep["graph_name"], deep["status"]) == (
        "outer", "deep", "completed",
    )  # fmt: skip
    assert "children" not in deep


@pytest.mark.parametrize("method", ["subscription.subscribe", "subscription.reconnect"])
async def test_a_subscription_without_a_socket_is_not_supported(thread, method):
    code, message = await refusal(thread, method, channels=["values"], since=0)
    assert (code, "WebSocket" in message) == ("not_supported", True)


@pytest.mark.parametrize("field", ["metadata", "config"])
async def test_run_start_refuses_what_is_no_object_by_name(thread, field):
    for wrong in ("text", 5, ["x"]):
        code, message = await refusal(thread, "run.start", assistant_id="steps", **{field: wrong})
        assert (code, field in message) == ("invalid_argument", True)
    assert (await thread.client.get(thread.path)).status_code == 404


async def test_a_second_update_of_a_key_with_one_value_fails_its_run_and_not_the_thread(thread):
    await ran(thread, "ask_two")
    questions = await thread.questions()
    for name, delay in (("left", 0.1), ("right", 0.2)):
        update = {"delay": delay}
        await thread.respond(interrupt_id=questions[name], response="x", update=update)
        shown = await thread.settled()
    assert shown["status"] == "interrupted"
    events = await thread.replay(ends=3, channels=["lifecycle"])
    end = events[-1]["params"]["data"]
    assert (end["event"], "'delay'" in end["error"]) == ("failed", True)
    await thread.respond(interrupt_id=questions["right"], response="y")
    shown = await thread.settled()
    assert shown["values"]["items"] == ["left=x", "right=y", "join"]
    assert shown["values"]["delay"] == 0.1


async def test_a_commands_run_is_joined_by_the_plain_api_with_its_values(thread):
    run_id = await thread.start("steps", {"delay": 0.1})
    async with asyncio.timeout(10):
        async with thread.client.stream("GET", f"{thread.path}/runs/{run_id}/stream") as response:
            lines = [line async for line in response.aiter_lines()]
    assert "event: values" in lines
    assert not any('"type":"event"' in line for line in lines)
