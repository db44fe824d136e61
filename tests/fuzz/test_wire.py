"""What is sent byte by byte: no request is too large, too odd or too broken for a plain refusal."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from .serving import Server, serving

LIMIT = 1000
NOTHING = "00000000-0000-0000-0000-000000000000"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving("runs", tmp_path_factory.mktemp("wire"), MAX_BODY_BYTES=str(LIMIT)) as server:
        yield server


def head(method: str, path: str, *headers: str) -> bytes:
    lines = [f"{method} {path} HTTP/1.1", "Host: localhost", *headers, "", ""]
    return "\r\n".join(lines).encode("latin-1")


def chunks(body: bytes, size: int) -> bytes:
    parts = [body[at : at + size] for at in range(0, len(body), size)]
    return b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in parts)


def status_of(answer: bytes) -> int:
    """The status of an answer; a refusal has to have a detail."""
    first, _, rest = answer.partition(b"\r\n")
    status = int(first.split(b" ")[1])
    if status >= 400:
        assert isinstance(json.loads(rest.partition(b"\r\n\r\n")[2])["detail"], str)
    return status


# Too large ----------------------------------------------------------------------------------------

CHUNKED = "Transfer-Encoding: chunked"
A = b"a" * 10_000


@pytest.mark.parametrize(
    "parts",
    [
        [head("GET", "/ok?" + "a" * 1_000_000)],
        [head("GET", "/ok", "X-A: " + "a" * 1_000_000)],
        [head("GET", "/ok", *(f"X-{i}: a" for i in range(100_000)))],
        [b"GET /ok HTTP/1.1\r\nX-A: ", *[A] * 100],
        [b"GET /", *[A] * 100],
        [b"\r\n" * 5000] * 100,
        [head("POST", "/threads", CHUNKED), b"2;", *[A] * 100],
        [head("POST", "/threads", CHUNKED), b"2\r\n{}\r\n0\r\nX-A: ", *[A] * 100],
        [head("POST", "/threads", CHUNKED), b"2\r\n{}\r\n0\r\n", *[b"X-A: " + A + b"\r\n"] * 100],
    ],
    ids=["query", "header", "headers", "endless-header", "endless-path", "line-ends",
         "chunk-extension", "endless-trailer", "trailers"],
)  # fmt: skip
def test_a_head_too_large(server: Server, parts: list[bytes]) -> None:
    assert status_of(server.raw(*parts)) == 431
    assert server.request("GET", "/ok").status == 200


def test_a_large_head_is_fine(server: Server) -> None:
    many = [f"X-{i}: {'a' * 1000}" for i in range(60)]
    assert status_of(server.raw(head("GET", "/ok?" + "a" * 50_000, *many))) == 200


def test_a_body_up_to_the_limit(server: Server) -> None:
    body = b"{" + b" " * (LIMIT - 2) + b"}"
    assert status_of(server.raw(head("POST", "/threads", f"Content-Length: {LIMIT}"), body)) == 200
    sent = chunks(body, 100) + b"0\r\n\r\n"
    assert status_of(server.raw(head("POST", "/threads", CHUNKED), sent)) == 200


@pytest.mark.parametrize(
    "parts",
    [
        [head("POST", "/threads", f"Content-Length: {LIMIT + 1}"), b"{}"],
        [head("POST", "/threads", "Content-Length: 1000000000000000")],
        [head("POST", "/threads", CHUNKED), chunks(b" " * (LIMIT + 1), 100)],
        [head("POST", "/threads", CHUNKED), *[chunks(A, 10_000)] * 1000],
        [head("PUT", "/store/items", "Content-Length: 5000"), b" " * 5000],
        [head("DELETE", "/store/items", CHUNKED), chunks(A, 100)],
    ],
    ids=["length", "huge-length", "chunked", "endless", "put", "delete"],
)
def test_a_body_too_large(server: Server, parts: list[bytes]) -> None:
    before = server.request("POST", "/threads/count", {}).json
    assert status_of(server.raw(*parts)) == 413
    assert server.request("POST", "/threads/count", {}).json == before


def test_a_body_that_nobody_reads(server: Server) -> None:
    body = b" " * 500_000
    answer = server.raw(head("GET", "/info", f"Content-Length: {len(body)}"), body)
    assert status_of(answer) == 200


# Odd ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (head("GET", "//ok"), 200),
        (head("GET", "/" * 5000 + "ok"), 200),
        (head("GET", "http://elsewhere/ok"), 200),
        (b"GET /ok HTTP/1.0\r\n\r\n", 200),
        (head("GET", "/ok", "Expect: 200-maybe", "X-Request-ID: \xff\t<b>"), 200),
        (head("GET", "/ok", "Upgrade: h2c", "Connection: Upgrade"), 200),
        (head("GET", "/threads/%00"), 422),
        (head("GET", "/threads/%ff%fe"), 422),
        (head("GET", "/threads/%zz"), 422),
        (head("GET", "/threads%2Fsearch"), 422),
        (head("GET", "/threads/../ok"), 404),
        (head("GET", "/threads/%2e%2e/ok"), 404),
        (head("GET", "//elsewhere/"), 404),
        (head("OPTIONS", "*"), 404),
        (head("GET", "/threads"), 405),
        (head("OPTIONS", "/threads"), 405),
        (head("TRACE", "/info"), 405),
        (head("PROPFIND", "/info"), 405),
        (head("BREW", "/ok"), 400),
        (head("GET", "ok"), 400),
        (head("GET", "/thr\xe9ads"), 400),
        (head("GET", "/ok\x00"), 400),
        (head("GET", "/ok", "X-A: a\x00b"), 400),
        (head("GET", "/ok", "X-A: a", " folded"), 400),
        (head("POST", "/threads", "Content-Length: -1"), 400),
        (head("POST", "/threads", "Content-Length: 2", "Content-Length: 3"), 400),
        (head("POST", "/threads", "Content-Length: 2", CHUNKED) + b"{}", 400),
        (head("POST", "/threads", CHUNKED) + b"zz\r\n", 400),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400),
    ],
    ids=lambda value: repr(value[:40]) if isinstance(value, bytes) else None,
)
def test_odd_requests(server: Server, sent: bytes, status: int) -> None:
    assert status_of(server.raw(sent)) == status
    assert server.request("GET", "/ok").status == 200


@pytest.mark.parametrize(
    ("path", "location"),
    [
        ("/threads/search/?a=%2F", "/threads/search?a=%2F"),
        ("/threads%2F", "/threads"),
        ("/threads/%2F", "/threads"),
        ("//threads//", "/threads"),
        ("/threads/%0d%0aSet-Cookie:a/", "/threads/%0D%0ASet-Cookie%3Aa"),
    ],
)
def test_a_slash_too_many_leads_to_a_path_without(server: Server, path: str, location: str) -> None:
    answer = server.request("GET", path)
    assert (answer.status, answer.headers["location"]) == (307, location)


@pytest.mark.parametrize("kind", ["text/plain", "application/xml; charset=utf-16", "\xff", ""])
def test_the_content_type_does_not_matter(server: Server, kind: str) -> None:
    answer = server.request("POST", "/threads", {}, headers={"content-type": kind})
    assert answer.status == 200


def test_nul_is_the_same_in_bodies_and_queries(server: Server) -> None:
    item = {"namespace": ["a\x00"], "key": "\x00", "value": {"a": 1}}
    assert server.request("PUT", "/store/items", item).status == 204
    found = server.request("GET", "/store/items?namespace=a%00&key=%00").json
    assert found["key"] == "\ufffd"


def test_whole_floats_are_checked_like_everything_else(server: Server) -> None:
    for other in (rb'"\ud800"', b"1e400", b"NaN", b'"\xff"'):
        body = b'{"limit": 5.0, "metadata": {"a": %b}}' % other
        assert server.request("POST", "/threads/search", body=body).status == 422


# Nothing half done --------------------------------------------------------------------------------


def test_a_refused_run_leaves_nothing(server: Server) -> None:
    thread_id = server.request("POST", "/threads", {}).json["thread_id"]
    run = {"assistant_id": "sleeper", "input": {"seconds": 60}}
    run_id = server.request("POST", f"/threads/{thread_id}/runs", run).json["run_id"]
    threads = server.request("POST", "/threads/count", {}).json
    refused = (
        {"checkpoint_id": NOTHING},
        {"assistant_id": NOTHING},
        {"context": {"a": 1}, "config": {"configurable": {"b": 1}}},
        {"command": {"goto": "nowhere"}},
        {"command": {"goto": [None]}},
        {"webhook": "http://127.0.0.1"},
        {"after_seconds": 1e300},
        {"config": {"configurable": {"checkpoint_ns": {}}}},
    )
    for strategy in ("rollback", "interrupt", "reject"):
        for wrong in refused:
            body = {"assistant_id": "echo", "multitask_strategy": strategy, **wrong}
            # What a stateless run would start from is of a thread: it is not looked at.
            stateless = [] if "checkpoint_id" in wrong else ["/runs"]
            for path in (f"/threads/{thread_id}/runs", *stateless):
                assert 400 <= server.request("POST", path, body).status < 500
            body["if_not_exists"] = "create"
            path = f"/threads/{NOTHING}/runs"
            assert 400 <= server.request("POST", path, body).status < 500
    assert server.request("POST", "/threads/count", {}).json == threads
    runs = server.request("GET", f"/threads/{thread_id}/runs").json
    assert [run["run_id"] for run in runs] == [run_id]
    assert runs[0]["status"] in ("pending", "running")
    assert server.request("DELETE", f"/threads/{thread_id}").status == 204


def test_updates_by_command_do_not_spoil_a_thread(server: Server) -> None:
    thread_id = server.request("POST", "/threads", {}).json["thread_id"]
    path = f"/threads/{thread_id}/runs/wait"
    for what in (
        {"input": {"text": "a"}},
        {"command": {"update": {"text": "b"}}},
        {"command": {"update": {"text": "c"}}},
        {"input": {"text": "d"}},
    ):
        answer = server.request("POST", path, {"assistant_id": "echo", **what})
        assert "__error__" not in answer.json
    assert server.request("GET", f"/threads/{thread_id}/state").status == 200
