"""Spans of requests, runs, nodes, tools and models, as a collector receives them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from served import SAY, Collector, Served, until

Serve = Callable[..., Served]
CALLER = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
TRACE, CALLERS_SPAN = CALLER.split("-")[1:3]
SERVER, CLIENT = 2, 3


def asking(graph: str, **more: Any) -> dict[str, Any]:
    return {"assistant_id": graph, "input": SAY, **more}


@pytest.mark.parametrize("isolated", ["false", "true"])
def test_one_trace_from_the_caller_to_the_model(
    serve: Serve, collector: Collector, isolated: str
) -> None:
    served = serve(
        OTEL_EXPORTER_OTLP_ENDPOINT=collector.url,
        OTEL_EXPORTER_OTLP_HEADERS="api-key=hush-hush",
        OTEL_SERVICE_NAME="my-agents",
        BG_JOB_ISOLATED_LOOPS=isolated,
    ).ready()
    with served.client() as http:
        thread = http.post("/threads", json={}).json()["thread_id"]
        run = http.post(
            f"/threads/{thread}/runs?token=hush",
            json=asking("chat"),
            headers={"traceparent": CALLER, "x-request-id": "request-7"},
        ).json()
        http.get(f"/threads/{thread}/runs/{run['run_id']}/join")
    request = collector.named("POST /threads/{thread_id}/runs")
    invoked = collector.named("invoke_agent chat")
    plain, node = collector.named("node plain"), collector.named("node inner")
    inside, tool = collector.named("node reply"), collector.named("execute_tool look")
    model = collector.named("chat tiny-1")

    assert (request.trace, request.parent, request.kind) == (TRACE, CALLERS_SPAN, SERVER)
    assert {span.trace for span in (invoked, plain, node, inside, tool, model)} == {TRACE}
    assert invoked.parent == request.id
    assert (plain.parent, node.parent) == (invoked.id, invoked.id)
    assert (inside.parent, tool.parent, model.parent) == (node.id, inside.id, inside.id)

    assert request.resource["service.name"] == "my-agents"
    assert collector.headers["api-key"] == "hush-hush"
    assert request.attributes["http.response.status_code"] == 200
    assert request.attributes["treadle.thread_id"] == thread
    assert request.attributes["treadle.request_id"] == "request-7"
    for span in (invoked, node, model):
        assert span.attributes["treadle.thread_id"] == thread
        assert span.attributes["treadle.run_id"] == run["run_id"]
        assert span.attributes["treadle.assistant_id"] == run["assistant_id"]
        assert span.attributes["treadle.graph_id"] == "chat"
    assert invoked.attributes["treadle.status"] == "success"
    assert invoked.attributes["gen_ai.conversation.id"] == thread
    expected = {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "scripted",
        "gen_ai.request.model": "tiny-1",
        "gen_ai.request.temperature": 0.5,
        "gen_ai.response.model": "tiny-1-2026",
        "gen_ai.usage.input_tokens": 11,
        "gen_ai.usage.output_tokens": 7,
    }
    assert expected.items() <= model.attributes.items()
    assert model.kind == CLIENT
    # Neither what is said nor what a query holds is recorded.
    assert "secret of theirs" not in repr(collector.spans)
    assert "hush" not in repr(collector.spans)


def test_lines_of_the_log_name_their_run_and_trace(serve: Serve, collector: Collector) -> None:
    served = serve(OTEL_EXPORTER_OTLP_ENDPOINT=collector.url).ready()
    with served.client() as http:
        headers = {"x-request-id": "request-7", "traceparent": CALLER}
        http.post("/runs/wait", json=asking("chat"), headers=headers)
    said = [line for line in served.lines() if line["logger"] == "users.agent"]
    assert [line["event"] for line in said] == ["thinking", "replying"]
    for line in said:
        assert line["request_id"] == "request-7"
        assert line["graph_id"] == "chat"
        assert line["run_id"]
        assert line["thread_id"]
        assert line["trace_id"] == TRACE

    def requests() -> list[Any]:
        return [line for line in served.lines() if line["event"] == "request"]

    assert [line["trace_id"] for line in until(requests, "request in the log")] == [TRACE]


def test_users_own_spans_lie_within_their_node(serve: Serve, collector: Collector) -> None:
    served = serve(OTEL_TRACES_EXPORTER="otlp", OTEL_EXPORTER_OTLP_ENDPOINT=collector.url).ready()
    with served.client() as http:
        http.post("/runs/wait", json=asking("spans"))
    assert collector.named("theirs").parent == collector.named("node own").id


def test_a_failure_is_told_where_it_happened(serve: Serve, collector: Collector) -> None:
    served = serve(OTEL_EXPORTER_OTLP_TRACES_ENDPOINT=f"{collector.url}/v1/traces").ready()
    with served.client() as http:
        http.post("/runs/wait", json=asking("boom"))
    for span in (collector.named("node fail"), collector.named("invoke_agent boom")):
        assert span.failed
        assert span.attributes["error.type"] == "ValueError"
        assert "exception" in span.events
    assert not collector.metrics


def test_a_question_is_no_failure_and_its_answer_another_trace(
    serve: Serve, collector: Collector
) -> None:
    served = serve(OTEL_EXPORTER_OTLP_ENDPOINT=collector.url).ready()
    with served.client() as http:
        thread = http.post("/threads", json={}).json()["thread_id"]
        path = f"/threads/{thread}/runs/wait"
        http.post(path, json=asking("question"))
        answer = {"assistant_id": "question", "command": {"resume": "yes"}}
        http.post(path, json=answer, headers={"traceparent": CALLER})

    def runs() -> list[Any]:
        found = [span for span in collector.spans if span.name == "invoke_agent question"]
        return found if len(found) == 2 else []

    asked, answered = until(runs, "runs")
    nodes = [span for span in collector.spans if span.name == "node ask"]
    assert not any(span.failed for span in (asked, answered, *nodes))
    assert answered.trace == TRACE != asked.trace
    assert {span.attributes["gen_ai.conversation.id"] for span in (asked, answered)} == {thread}


def test_a_run_that_was_cut_off_stays_in_its_trace(serve: Serve, collector: Collector) -> None:
    env = {"OTEL_EXPORTER_OTLP_ENDPOINT": collector.url, "OTEL_TRACES_EXPORTER": "otlp"}
    served = serve(**env).ready()
    with served.client() as http:
        thread = http.post("/threads", json={}).json()["thread_id"]
        run = http.post(
            f"/threads/{thread}/runs", json=asking("cut"), headers={"traceparent": CALLER}
        ).json()
        begun = served.log_path.with_name("begun")
        until(begun.exists, "node")
        served.stop(9)
    served.log_path.unlink()
    again = serve(**env).ready()
    with again.client() as http:
        http.get(f"/threads/{thread}/runs/{run['run_id']}/join")
    invoked = collector.named("invoke_agent cut")
    assert invoked.trace == TRACE
    assert invoked.attributes["treadle.attempt"] == 2
    assert invoked.attributes["treadle.run_id"] == run["run_id"]


def test_a_run_that_another_process_executes(
    serve: Serve, collector: Collector, shared_database: str
) -> None:
    env = {"OTEL_EXPORTER_OTLP_ENDPOINT": collector.url}
    served = serve("--api-only", database=shared_database, **env).ready()
    serve(command="worker", database=shared_database, **env)
    with served.client() as http:
        http.post("/runs/wait", json=asking("chat"), headers={"traceparent": CALLER})
    request, invoked = collector.named("POST /runs/wait"), collector.named("invoke_agent chat")
    assert (invoked.trace, invoked.parent) == (TRACE, request.id)
    instance = "service.instance.id"
    assert invoked.resource[instance] != request.resource[instance]


def test_probes_leave_no_spans(serve: Serve, collector: Collector) -> None:
    served = serve(OTEL_EXPORTER_OTLP_ENDPOINT=collector.url).ready()
    with served.client() as http:
        for path in ("/ok", "/metrics", "/info"):
            assert http.get(path).status_code == 200
    assert collector.named("GET /info")
    assert len(collector.spans) == 1


@pytest.mark.parametrize(
    "env",
    [{}, {"OTEL_SDK_DISABLED": "true"}, {"OTEL_TRACES_EXPORTER": "none"}],
    ids=["nothing", "disabled", "none"],
)
def test_it_is_not_even_imported_unless_asked_for(serve: Serve, env: dict[str, str]) -> None:
    endpoint = (
        {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1"} if "OTEL_SDK_DISABLED" in env else {}
    )
    served = serve(**env, **endpoint).ready()
    with served.client() as http:
        loaded = http.post("/runs/wait", json={"assistant_id": "tell", "input": {}}).json()
    assert "langgraph" in loaded["loaded"]
    assert not {"prometheus_client", "treadle.telemetry.telemetry"} & set(loaded["loaded"])
    # langsmith looks whether it is installed; what exports is not loaded by anyone.
    assert not [name for name in loaded["loaded"] if name.startswith("opentelemetry.exporter")]


def test_a_collector_that_is_down_holds_nothing_up(serve: Serve) -> None:
    served = serve(OTEL_EXPORTER_OTLP_ENDPOINT="http://127.0.0.1:1").ready()
    with served.client() as http:
        assert http.post("/runs/wait", json=asking("chat")).status_code == 200
    assert served.stop() < 8
    served.lines()


def test_metrics_are_exported(serve: Serve, collector: Collector) -> None:
    served = serve(OTEL_EXPORTER_OTLP_METRICS_ENDPOINT=f"{collector.url}/v1/metrics").ready()
    with served.client() as http:
        http.post("/runs/wait", json=asking("chat"))
        wanted = {
            "http.server.request.duration",
            "treadle.run.duration",
            "gen_ai.client.token.usage",
            "gen_ai.client.operation.duration",
            "treadle_runs_ended",
            "lg_api_workers_max",
            "treadle_stream_clients",
        }
        until(lambda: wanted <= collector.metrics.keys(), "metrics")
    assert served.stop() < 8
    [ended] = collector.metrics["treadle_runs_ended"].sum.data_points
    assert ended.as_int == 1
    points = collector.metrics["gen_ai.client.token.usage"].histogram.data_points
    assert sorted(point.sum for point in points) == [7, 11]
    assert not collector.spans
