"""What a run's metadata may claim opens nothing of another's."""

from __future__ import annotations

from typing import Any

from auth_house import House, owner
from belongings import RUN, SECRET, belongings

ALICE = owner("alice")
BOB = owner("bob", answers={"assistants.read": None})
PUSH = "tasks/pushNotificationConfig"


async def test_push_notifications_stay_those_of_their_thread(house: House):
    """Though the start id of alice's task, which leads to them, is claimed by bob's."""
    hers = await belongings(house, ALICE)
    mine = (await house.gives(BOB, "POST", "/threads", {}))["thread_id"]
    claim = {**RUN, "assistant_id": "approval", "metadata": {"a2a": {
        "task_start_id": hers["start"]}}, "input": {"messages": ["x"]}}  # fmt: skip
    ended = await house(BOB, "POST", f"/threads/{mine}/runs/wait", claim)
    task = f"{mine}:{ended.headers['content-location'].rpartition('/')[2]}"

    async def call(user: Any, method: str, **params: Any) -> Any:
        reader = {**user, "answers": {"assistants.read": None}}
        body = {"jsonrpc": "2.0", "id": 1, "method": method, "params": params}
        return await house.gives(reader, "POST", "/a2a/approval", body)

    assert (await call(BOB, f"{PUSH}/list", id=task))["result"] == []
    assert "error" in await call(BOB, f"{PUSH}/delete", id=task,
                                 pushNotificationConfigId=hers["config"])  # fmt: skip
    changed = {"id": hers["config"], "url": "http://127.0.0.1:9/mine"}
    assert "error" in await call(BOB, f"{PUSH}/set", taskId=task, pushNotificationConfig=changed)
    [kept] = (await call(ALICE, f"{PUSH}/list", id=hers["task"]))["result"]
    assert SECRET in kept["pushNotificationConfig"]["url"]
