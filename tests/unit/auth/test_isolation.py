"""What a caller may not see is to them as if it were not there."""

from __future__ import annotations

from typing import Any
from uuid import uuid4

import pytest
from auth_house import ALL, House, owner

RUN = {"assistant_id": "echo", "input": {}}
LATER = {**RUN, "after_seconds": 3600}
CRON = {**RUN, "schedule": "0 0 1 1 *"}
ALICE, BOB = owner("alice"), owner("bob")


@pytest.fixture
async def hers(house: House) -> dict[str, str]:
    """Alice's: a thread with a run, one that waits for an answer, one with a run that waits, an
    assistant, and crons of both kinds."""
    thread, asking, busy = [
        (await house.gives(ALICE, "POST", "/threads", {"metadata": {"topic": "hers"}}))["thread_id"]
        for _ in "tqb"
    ]
    ended = await house(ALICE, "POST", f"/threads/{thread}/runs/wait", RUN)
    await house.gives(
        ALICE, "POST", f"/threads/{asking}/runs/wait", {**RUN, "assistant_id": "approval"}
    )
    state = await house.gives(ALICE, "GET", f"/threads/{thread}/state")
    waiting = await house.gives(ALICE, "POST", f"/threads/{busy}/runs", LATER)
    assistant = await house.gives(ALICE, "POST", "/assistants", {"graph_id": "echo"})
    cron = await house.gives(ALICE, "POST", "/runs/crons", CRON)
    on_thread = await house.gives(ALICE, "POST", f"/threads/{thread}/runs/crons", CRON)
    return {
        "t": thread, "q": asking, "b": busy, "w": waiting["run_id"],
        "r": ended.headers["content-location"].rpartition("/")[2],
        "s": state["checkpoint"]["checkpoint_id"], "a": assistant["assistant_id"],
        "c": cron["cron_id"], "d": on_thread["cron_id"],
    }  # fmt: skip


async def _snapshot(house: House, ids: dict[str, str]) -> list[Any]:
    """All of alice's, as she sees it."""
    asked = [("GET", f"/threads/{ids[t]}") for t in "tqb"]
    asked += [("GET", f"/threads/{ids[t]}/{what}") for t in "tqb" for what in ("runs", "history")]
    asked += [("GET", f"/assistants/{ids['a']}"), ("POST", "/assistants/search")]
    asked += [("GET", f"/runs/crons/{ids[c]}") for c in "cd"]
    asked += [("POST", "/threads/search"), ("POST", "/runs/crons/search")]
    return [
        await house.gives(ALICE, method, path, {} if method == "POST" else None)
        for method, path in asked
    ]


async def test_an_id_that_is_taken_is_a_conflict_and_tells_nothing(
    house: House, hers: dict[str, str]
):
    for if_exists in ("raise", "do_nothing"):
        thread = {"thread_id": hers["t"], "if_exists": if_exists}
        assistant = {"assistant_id": hers["a"], "graph_id": "echo", "if_exists": if_exists}
        for path, body in (("/threads", thread), ("/assistants", assistant)):
            answer = await house(BOB, "POST", path, body)
            assert answer.status_code == 409
            assert "alice" not in answer.text
    supersteps = [{"updates": [{"as_node": "node", "values": {"out": 1}}]}]
    body = {"thread_id": hers["t"], "metadata": {"graph_id": "echo"}, "supersteps": supersteps}
    assert (await house(BOB, "POST", "/threads", body)).status_code == 409


async def test_if_not_exists_opens_no_hidden_thread(house: House, hers: dict[str, str]):
    before = await _snapshot(house, hers)
    for path in ("runs", "runs/wait", "runs/stream"):
        body = {**RUN, "if_not_exists": "create"}
        answer = await house(BOB, "POST", f"/threads/{hers['t']}/{path}", body)
        assert answer.json() == {"detail": "Thread or assistant not found."}
        assert answer.status_code == 404
    assert await _snapshot(house, hers) == before


async def test_cancelling_all_leaves_the_runs_of_others(house: House, hers: dict[str, str]):
    mine = (await house.gives(BOB, "POST", "/threads", {}))["thread_id"]
    run = (await house.gives(BOB, "POST", f"/threads/{mine}/runs", LATER))["run_id"]
    assert (await house(BOB, "POST", "/runs/cancel", {"status": "all"})).status_code == 204
    ended = await house.gives(BOB, "GET", f"/threads/{mine}/runs/{run}")
    hers_too = await house.gives(ALICE, "GET", f"/threads/{hers['b']}/runs/{hers['w']}")
    assert (ended["status"], hers_too["status"]) == ("interrupted", "pending")


async def test_an_idempotency_key_is_its_users_own(house: House):
    key = {"idempotency-key": "k"}
    made = [(await house(user, "POST", "/threads", {}, headers=key)).json()["thread_id"]
            for user in (ALICE, BOB, ALICE, BOB)]  # fmt: skip
    assert made[0] == made[2] != made[1] == made[3]


async def test_a_repeated_run_asks_for_no_more_than_the_first(house: House):
    blind = owner("eve", answers={"threads.read": False})
    thread = (await house.gives(blind, "POST", "/threads", {}))["thread_id"]
    key = {"idempotency-key": "k"}
    path = f"/threads/{thread}/runs"
    one, again = [(await house(blind, "POST", path, LATER, headers=key)).json() for _ in "ab"]
    assert one["run_id"] == again["run_id"]


async def test_deleting_an_assistants_threads_spares_those_of_others(house: House):
    alices = {**ALICE, "answers": {"assistants.read": None}}
    assistant = (await house.gives(ALICE, "POST", "/assistants", {"graph_id": "echo"}))[
        "assistant_id"
    ]
    threads = []
    for user in (alices, {**BOB, "answers": {"assistants.read": None}}):
        run = {**RUN, "assistant_id": assistant, "if_not_exists": "create"}
        threads.append(str(uuid4()))
        await house.gives(user, "POST", f"/threads/{threads[-1]}/runs/wait", run)
    deleted = await house(ALICE, "DELETE", f"/assistants/{assistant}?delete_threads=true")
    assert deleted.status_code == 204
    assert (await house(ALICE, "GET", f"/threads/{threads[0]}")).status_code == 404
    assert (await house(BOB, "GET", f"/threads/{threads[1]}")).status_code == 200


async def test_crons_on_hidden_threads_are_not_found(house: House, hers: dict[str, str]):
    """Whatever the filter on the crons themselves."""
    user = {**BOB, "answers": {"crons.search": None}}
    found = await house.gives(user, "POST", "/runs/crons/search", {})
    assert [cron["cron_id"] for cron in found] == [hers["c"]]
    assert await house.gives(user, "POST", "/runs/crons/count", {}) == 1


async def test_filters_of_two_checks_both_hold(house: House, hers: dict[str, str]):
    half = {"identity": "half", "answers": {"threads.update": None, "threads.read": {"owner": "x"}}}
    body = {"values": {"out": 1}}
    assert (await house(half, "POST", f"/threads/{hers['t']}/state", body)).status_code == 404
    half["answers"] = {"threads.read": None, "threads.search": {"owner": "x"}}
    assert (await house(half, "GET", f"/threads/{hers['t']}/runs")).status_code == 404
    half["answers"] = {"threads.read": {"owner": "x"}, "threads.create_run": None}
    command = {"id": 1, "method": "run.start", "params": RUN}
    answer = await house(half, "POST", f"/threads/{hers['t']}/commands", command)
    assert answer.status_code == 404


async def test_a_run_is_stamped_and_so_is_the_thread_that_it_makes(house: House):
    made = await house.gives(ALICE, "POST", "/runs", {**LATER, "on_completion": "keep"})
    thread = await house.gives(ALICE, "GET", f"/threads/{made['thread_id']}")
    assert made["metadata"]["owner"] == thread["metadata"]["owner"] == "alice"
    new = str(uuid4())
    await house.gives(ALICE, "POST", f"/threads/{new}/runs", {**LATER, "if_not_exists": "create"})
    assert (await house.gives(ALICE, "GET", f"/threads/{new}"))["metadata"]["owner"] == "alice"


async def test_a_run_inherits_its_threads_metadata(house: House, hers: dict[str, str]):
    run = await house.gives(ALICE, "GET", f"/threads/{hers['t']}/runs/{hers['r']}")
    assert run["metadata"]["topic"] == "hers"


async def test_a_run_on_anothers_thread_leaves_it_theirs(house: House, hers: dict[str, str]):
    root = {"identity": "root", "stamp": {"owner": "root"}}
    sent = {**RUN, "metadata": {"owner": "root", "note": "seen"}}
    command = {"id": 1, "method": "run.start", "params": sent}
    await house.gives(root, "POST", f"/threads/{hers['t']}/commands", command)
    await house.gives(root, "POST", f"/threads/{hers['t']}/runs/wait", sent)
    thread = await house.gives(ALICE, "GET", f"/threads/{hers['t']}")
    assert (thread["metadata"]["owner"], thread["metadata"]["note"]) == ("alice", "seen")


async def test_a_copy_takes_the_metadata_that_handlers_give_it(house: House, hers: dict[str, str]):
    copied = await house.gives(ALL, "POST", f"/threads/{hers['t']}/copy")
    assert copied["metadata"]["owner"] == "alice"
    root = {"identity": "root", "stamp": {"owner": "root"}}
    copied = await house.gives(root, "POST", f"/threads/{hers['t']}/copy")
    assert (copied["metadata"]["owner"], copied["metadata"]["topic"]) == ("root", "hers")


async def test_stamps_land_on_what_is_made_and_changed(house: House):
    body = {"metadata": {"owner": "bob", "a": 1}}
    thread = await house.gives(ALICE, "POST", "/threads", body)
    assistant = await house.gives(ALICE, "POST", "/assistants", {"graph_id": "echo", **body})
    cron = await house.gives(ALICE, "POST", "/runs/crons", {**CRON, **body})
    patched = [
        await house.gives(ALICE, "PATCH", f"/threads/{thread['thread_id']}", body),
        await house.gives(ALICE, "PATCH", f"/assistants/{assistant['assistant_id']}", body),
    ]
    for made in (thread, assistant, cron, *patched):
        assert (made["metadata"]["owner"], made["metadata"]["a"]) == ("alice", 1)


async def test_the_store_is_that_of_the_rewritten_namespace(house: House):
    item = {"namespace": ["n"], "key": "k"}
    await house.gives(ALICE, "PUT", "/store/items", {**item, "value": {"a": 1}})
    found = await house.gives(ALICE, "GET", "/store/items?namespace=n&key=k")
    assert found["namespace"] == ["alice", "n"]
    assert await house.gives(BOB, "GET", "/store/items?namespace=n&key=k") is None
    assert await house.gives(BOB, "GET", "/store/items?namespace=alice.n&key=k") is None
    for prefix in ([], ["n"], ["alice"], ["*"]):
        body = {"namespace_prefix": prefix}
        assert (await house.gives(BOB, "POST", "/store/items/search", body))["items"] == []
        body = {"prefix": prefix}
        assert (await house.gives(BOB, "POST", "/store/namespaces", body))["namespaces"] == []
    await house.gives(BOB, "DELETE", "/store/items", item)
    names = await house.gives(ALICE, "POST", "/store/namespaces", {})
    assert names["namespaces"] == [["alice", "n"]]


async def test_a_handler_that_fails_lets_nothing_be_made(house: House):
    for answer in ("nonsense", {"owner": {"$ne": "x"}}):
        user = {"identity": "broken", "answers": {"threads.create": answer,
                                                  "threads.create_run": answer}}  # fmt: skip
        thread_id = str(uuid4())
        assert (await house(user, "POST", "/threads", {"thread_id": thread_id})).status_code == 500
        body = {**RUN, "if_not_exists": "create"}
        path = f"/threads/{thread_id}/runs"
        assert (await house(user, "POST", path, body)).status_code == 500
        assert (await house(ALL, "GET", f"/threads/{thread_id}")).status_code == 404
    assert await house.gives(ALL, "POST", "/threads/count", {}) == 0


async def test_pages_count_what_is_visible(house: House):
    for number in range(3):
        for user in (ALICE, BOB):
            await house.gives(user, "POST", "/threads", {"metadata": {"n": number}})
    page = await house(BOB, "POST", "/threads/search", {"limit": 2})
    assert (page.headers["x-pagination-total"], len(page.json())) == ("3", 2)
    some = {**BOB, "filter": {"$or": [{"n": 0}, {"owner": "bob", "n": 1}]}}
    page = await house(some, "POST", "/threads/search", {"limit": 2})
    assert (page.headers["x-pagination-total"], len(page.json())) == ("3", 2)
