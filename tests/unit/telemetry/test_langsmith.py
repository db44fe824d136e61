"""Traces that langchain sends to LangSmith, as a server of that kind receives them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import httpx
import pytest
from served import SAY, Collector, Served, until

Serve = Callable[..., Served]
EXAMPLE = "11111111-2222-4333-8444-555555555555"


def tracing(collector: Collector) -> dict[str, str]:
    return {
        "LANGSMITH_TRACING": "true",
        "LANGSMITH_API_KEY": "lsv2_pt_hushhushhushhush",
        "LANGSMITH_ENDPOINT": collector.url,
        "LANGSMITH_PROJECT": "everyday",
        "LANGSMITH_DISABLE_RUN_COMPRESSION": "true",
    }


def sent(collector: Collector, text: str) -> bytes:
    """All that was sent, once there is ``text`` in it."""

    def found() -> bytes:
        whole = b"".join(body for path, body in list(collector.bodies) if "runs" in path)
        return whole if text.encode() in whole else b""

    return until(found, f"{text} in a trace")


@pytest.fixture
def run_with(serve: Serve, collector: Collector) -> Callable[..., tuple[Served, Any]]:
    def run_with(**fields: Any) -> tuple[Served, Any]:
        served = serve(**tracing(collector)).ready()
        with served.client() as http:
            thread = http.post("/threads", json={}).json()["thread_id"]
            body = {"assistant_id": "chat", "input": SAY, "metadata": {"team": "blue"}, **fields}
            run = http.post(f"/threads/{thread}/runs", json=body).json()
            http.get(f"/threads/{thread}/runs/{run['run_id']}/join")
        return served, run

    return run_with


def test_a_trace_is_found_by_its_run_and_thread(
    run_with: Callable[..., Any], collector: Collector
) -> None:
    served, run = run_with(config={"tags": ["urgent"]})
    text = sent(collector, f'"id":"{run["run_id"]}"')
    for part in ("everyday", "urgent", "blue", "tiny-1"):
        assert part.encode() in text, part
    for name in ("thread_id", "run_id", "assistant_id"):
        assert f'"{name}":"{run[name]}"'.encode() in text, name
    assert httpx.get(f"{served.url}/info").json()["flags"]["langsmith"] is True
    assert "hushhush" not in served.log_path.read_text()


def test_a_run_names_its_project_and_example(
    run_with: Callable[..., Any], collector: Collector
) -> None:
    wish = {"project_name": "trials", "example_id": EXAMPLE}
    _, run = run_with(langsmith_tracer=wish)
    text = sent(collector, f'"id":"{run["run_id"]}"')
    assert b'"session_name":"trials"' in text
    assert f'"reference_example_id":"{EXAMPLE}"'.encode() in text
    assert b'"session_name":"everyday"' not in text


def test_a_wish_that_cannot_be_is_refused(serve: Serve) -> None:
    served = serve().ready()
    with served.client() as http:
        body = {"assistant_id": "chat", "langsmith_tracer": {"project_name": 7}}
        answer = http.post("/runs/wait", json=body)
        assert answer.status_code == 422
        for word in ("langsmith_tracer", "7", "project_name"):
            assert word in answer.json()["detail"]
        # Where nothing is traced, a wish is accepted and changes nothing.
        body = {"assistant_id": "chat", "input": SAY, "langsmith_tracer": {"project_name": "x"}}
        assert http.post("/runs/wait", json=body).status_code == 200
        assert http.get("/info").json()["flags"]["langsmith"] is False
