"""The thread endpoints over HTTP."""

import pytest

from treadle.auth.filters import parse_filter

MISSING = "00000000-0000-4000-8000-000000000000"


async def test_a_thread_over_http(http):
    made = await http.post("/threads", json={"metadata": {"a": 1}, "unknown": 1})
    assert made.status_code == 200
    path = f"/threads/{made.json()['thread_id']}"
    assert (await http.get(path)).json() == made.json()
    assert (await http.get(path.upper().replace("/THREADS", "/threads"))).json() == made.json()
    patched = await http.patch(path, json={"metadata": {"b": 2}})
    assert patched.json()["metadata"] == {"a": 1, "b": 2}
    minimal = await http.patch(path, json={}, headers={"Prefer": "return=minimal"})
    assert (minimal.status_code, minimal.content) == (204, b"")
    copied = await http.post(f"{path}/copy")
    assert copied.json()["metadata"] == {"a": 1, "b": 2}
    assert (await http.get(f"{path}/storage")).json()["total_bytes"] == 0
    gone = await http.delete(path)
    assert (gone.status_code, gone.content) == (204, b"")
    assert (await http.get(path)).status_code == 404


async def test_search_puts_the_total_and_the_next_page_in_headers(http):
    for _ in range(3):
        await http.post("/threads", json={})
    first = await http.post("/threads/search", json={"limit": 2})
    assert len(first.json()) == 2
    assert first.headers["x-pagination-total"] == "3"
    assert first.headers["x-pagination-next"] == "2"
    last = await http.post("/threads/search", json={"limit": 2.0, "offset": 2})
    assert last.headers["x-pagination-total"] == "3"
    assert "x-pagination-next" not in last.headers
    assert (await http.post("/threads/count", json={})).json() == 3


@pytest.mark.parametrize("include", ["?include=ttl", "?include=x,ttl", "?include=x&include=ttl"])
async def test_ttl_is_shown_on_request(http, include):
    thread = (await http.post("/threads", json={"ttl": {"ttl": 5}})).json()
    assert "ttl" not in thread
    shown = (await http.get(f"/threads/{thread['thread_id']}{include}")).json()
    assert (shown["ttl"]["strategy"], shown["ttl"]["ttl_minutes"]) == ("delete", 5)


async def test_states_over_http(http):
    thread = (await http.post("/threads", json={"metadata": {"graph_id": "chain"}})).json()
    path = f"/threads/{thread['thread_id']}"
    body = {"values": {"log": ["x"]}, "as_node": "a"}
    written = (await http.post(f"{path}/state", json=body)).json()
    assert written["configurable"] == written["checkpoint"]
    await http.post(f"{path}/state", json={"values": None})
    state = (await http.get(f"{path}/state/{written['checkpoint_id']}")).json()
    at = await http.post(f"{path}/state/checkpoint", json={"checkpoint": written["checkpoint"]})
    assert state == at.json()
    latest = (await http.get(f"{path}/state?subgraphs=true&select=next&select=values.log")).json()
    assert latest == {"next": ["a"], "values": {"log": ["x"]}}
    assert len((await http.get(f"{path}/history")).json()) == 2
    assert len((await http.post(f"{path}/history", json={})).json()) == 1
    before = await http.get(f"{path}/history?before={state['checkpoint_id']}")
    assert before.json() == []
    assert (await http.get(f"{path}/history?limit=0")).json() == []


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("POST", "/threads", {"metadata": None}, 422),
        ("POST", "/threads", {"ttl": {"ttl": 0}}, 422),
        ("POST", "/threads", {"ttl": {"ttl": 1e300}}, 422),
        ("POST", "/threads", {"thread_id": "abc"}, 422),
        ("POST", "/threads", {"supersteps": [{"updates": [{"values": {}}]}]}, 422),
        ("POST", "/threads/search", {"offset": 2**60}, 422),
        ("POST", "/threads/search", {"extract": {str(i): "values" for i in range(11)}}, 422),
        ("POST", "/threads/search", {"ids": ["x"]}, 400),
        ("POST", "/threads/prune", {"thread_ids": ["x"]}, 422),
        ("POST", "/threads/{}/state", {"values": "x"}, 422),
        ("POST", "/threads/{}/state", {"values": {}, "checkpoint": {"checkpoint_id": 1}}, 422),
        ("POST", "/threads/{}/state/checkpoint", {}, 422),
        ("POST", "/threads/{}/history", {"before": {"no": 1}}, 422),
        ("GET", "/threads/{}/history?limit=abc", None, 422),
        ("GET", "/threads/{}/state?select=bogus", None, 422),
        ("GET", f"/threads/{{}}/state/{MISSING}", None, 404),
        ("GET", "/threads/{}/state/zzz", None, 404),
        ("GET", "/threads/abc", None, 422),
        ("POST", "/threads/abc/copy", None, 422),
        ("POST", f"/threads/{MISSING}/copy", None, 404),
    ],
)
async def test_what_is_wrong_is_told(http, method, path, body, status):
    thread = (await http.post("/threads", json={"metadata": {"graph_id": "chain"}})).json()
    answer = await http.request(method, path.format(thread["thread_id"]), json=body)
    assert answer.status_code == status
    assert isinstance(answer.json()["detail"], str)


async def test_a_filter_of_the_gate_hides_threads(http, monkeypatch):
    theirs = (await http.post("/threads", json={"metadata": {"graph_id": "chain"}})).json()
    mine = (await http.post("/threads", json={"metadata": {"owner": "me"}})).json()

    async def authorize(caller, resource, action, value):
        return parse_filter({"owner": "me"})

    for module in ("service", "state", "search"):
        monkeypatch.setattr(f"treadle.threads.{module}.authorize", authorize)
    hidden = f"/threads/{theirs['thread_id']}"
    for method, path, body in (
        ("GET", "", None), ("PATCH", "", {}), ("DELETE", "", None), ("POST", "/copy", None),
        ("GET", "/storage", None), ("GET", "/state", None), ("GET", "/history", None),
        ("POST", "/state", {"values": {}}),
    ):  # fmt: skip
        assert (await http.request(method, hidden + path, json=body)).status_code == 404, path
    found = await http.post("/threads/search", json={})
    assert [t["thread_id"] for t in found.json()] == [mine["thread_id"]]
    assert (await http.post("/threads/count", json={})).json() == 1
    again = {"thread_id": theirs["thread_id"], "if_exists": "do_nothing"}
    assert (await http.post("/threads", json=again)).status_code == 409
    for thread_id in (theirs["thread_id"], MISSING):
        both = {"thread_ids": [mine["thread_id"], thread_id]}
        assert (await http.post("/threads/prune", json=both)).status_code == 404
    assert (await http.get(f"/threads/{mine['thread_id']}")).status_code == 200
