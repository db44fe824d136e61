"""The system endpoints, through the application and over a real database."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator
from typing import Any

import httpx
import msgspec
import pytest
from prometheus_client.parser import text_string_to_metric_families

from treadle.clock import SECOND_US, now_us
from treadle.database import Database
from treadle.http.application import Application
from treadle.http.endpoint import Endpoint
from treadle.http.metrics import RequestMetrics
from treadle.http.request import Request
from treadle.http.response import Response, json_response
from treadle.runs.figures import RunFigures
from treadle.system.models import WorkerFigures
from treadle.system.routes import routes
from treadle.system.service import SystemService


class Wanted(msgspec.Struct):
    """What is wanted."""

    limit: int = 10


class WantedQuery(msgspec.Struct):
    deep: bool = False


async def find(request: Request, body: Wanted) -> Response:
    return json_response([])


async def stream(request: Request) -> Response:
    return json_response([])


API = [
    Endpoint("POST", "/things/{thing_id}/find", find, "Threads", "Find </script> things",
             body=Wanted, query=WantedQuery, answer=list[Wanted]),
    Endpoint("GET", "/things/stream", stream, "Streaming", "Stream", stream=True),
]  # fmt: skip


@pytest.fixture
def figures() -> RunFigures:
    return RunFigures()


@pytest.fixture
async def http(database, figures) -> AsyncIterator[httpx.AsyncClient]:
    metrics = RequestMetrics()
    system = SystemService(database, metrics, figures, lambda: WorkerFigures(max=10, active=3))
    app = Application([*API, *routes(system, API)], metrics=metrics)
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://t") as client:
        yield client


async def add_run(database: Database, n: int, thread: str, status: str, due: int) -> None:
    async def body(transaction: Any) -> None:
        await transaction.execute(
            "INSERT INTO runs (run_id, thread_id, assistant_id, graph_id, status, created_at,"
            " updated_at, metadata, kwargs, multitask_strategy)"
            " VALUES (:run, :thread, 'a', 'g', :status, :due, 0, '{}', '{}', 'enqueue')",
            {"run": f"r{n}", "thread": thread, "status": status, "due": due},
        )

    await database.write(body)


@pytest.mark.parametrize("query", ["", "?check_db=0", "?check_db=false", "?check_db=-0"])
@pytest.mark.parametrize("path", ["/ok", "/"])
async def test_a_probe_costs_the_database_nothing(http, path, query):
    answer = await http.get(path + query)
    assert (answer.status_code, answer.json()) == (200, {"ok": True, "services": {}})


@pytest.mark.parametrize("value", ["1", "true", "True", "2", "-1", "%2B1"])
async def test_health_of_what_the_server_stands_on(http, database, value):
    await add_run(database, 1, "free", "pending", now_us() - 30 * SECOND_US)
    answer = await http.get(f"/ok?check_db={value}")
    health = answer.json()
    assert (answer.status_code, health["ok"]) == (200, True)
    assert health["services"]["database"]["ok"] is True
    assert health["services"]["database"]["latency_ms"] >= 0
    assert health["workers"] == {"max": 10, "active": 3, "available": 7}
    assert health["queue_age_secs"] == pytest.approx(30, abs=5)


@pytest.mark.parametrize("value", ["perhaps", "", "1.5", "yes", "1_0", "٣x"])
async def test_strange_check_is_refused(http, value):
    answer = await http.get("/ok", params={"check_db": value})
    assert answer.status_code == 400
    for word in ("check_db", value, "true, false, 0 or 1"):
        assert word in answer.json()["detail"]


class Broken:
    async def read_one(self, sql: str) -> None:
        raise OSError("disk gone, password=hush")


async def get_from(system: SystemService, path: str) -> httpx.Response:
    transport = httpx.ASGITransport(Application(routes(system, API)))
    async with httpx.AsyncClient(transport=transport, base_url="http://t") as client:
        return await client.get(path)


async def test_failing_check_is_a_500():
    system = SystemService(Broken(), RequestMetrics(), RunFigures(), lambda: WorkerFigures(1, 0))  # type: ignore[arg-type]
    assert (await get_from(system, "/ok")).status_code == 200
    answer = await get_from(system, "/ok?check_db=1")
    assert answer.status_code == 500
    # What is wrong in detail is for the log, not for whoever asks.
    assert answer.json() == {
        "ok": False,
        "services": {"database": {"ok": False, "error": "OSError"}},
    }


async def test_without_redis_the_server_is_well_enough(database):
    system = SystemService(database, RequestMetrics(), RunFigures(), lambda: WorkerFigures(1, 0))

    async def is_well() -> bool:
        return False

    system.checks["redis"] = is_well
    answer = await get_from(system, "/ok?check_db=1")
    health = answer.json()
    assert (answer.status_code, health["ok"]) == (200, True)
    assert health["services"]["redis"]["ok"] is False
    assert health["services"]["database"]["ok"] is True


async def test_without_meta_there_is_only_a_bare_ok():
    system = SystemService(
        Broken(),  # type: ignore[arg-type]
        RequestMetrics(),
        RunFigures(),
        lambda: WorkerFigures(1, 0),
        has_meta=False,
    )
    answer = await get_from(system, "/ok?check_db=perhaps")
    assert (answer.status_code, answer.json()) == (200, {"ok": True})
    for path in ("/info", "/metrics", "/docs", "/openapi.json"):
        assert (await get_from(system, path)).status_code == 404


async def test_info_tells_what_is_served(http):
    info = (await http.get("/info")).json()
    assert info["host"]["kind"] == "self-hosted"
    assert info["flags"]["crons"] is False
    assert info["langgraph_py_version"][0].isdigit()


async def test_metrics_count_requests_but_no_probes(http):
    for _ in range(3):
        await http.post("/things/7/find", json={})
    await http.get("/ok")
    text = (await http.get("/metrics")).text
    counted = [line for line in text.splitlines() if line.startswith("lg_api_http_requests_total")]
    assert len(counted) == 1
    labels = dict(re.findall(r'(\w+)="([^"]*)"', counted[0]))
    assert (labels["method"], labels["path"], labels["status"]) == (
        "POST",
        "/things/{thing_id}/find",
        "200",
    )
    assert counted[0].endswith(" 3.0")
    families = {family.name: family for family in text_string_to_metric_families(text)}
    assert families["lg_api_http_requests_latency"].type == "histogram"
    [available] = families["lg_api_workers_available"].samples
    assert available.value == 7
    assert set(available.labels) == {"project_id", "revision_id", "deployment_type"}
    for name in ("process_cpu_seconds", "python_info", "target_info", "treadle_event_log_bytes"):
        assert name in families


async def test_queue_figures(http, database):
    now = now_us()
    await add_run(database, 1, "busy", "running", now - 90 * SECOND_US)
    await add_run(database, 2, "busy", "pending", now - 60 * SECOND_US)
    await add_run(database, 3, "free", "pending", now - 30 * SECOND_US)
    await add_run(database, 4, "free", "pending", now - 20 * SECOND_US)
    await add_run(database, 5, "later", "pending", now + 60 * SECOND_US)
    await add_run(database, 6, "old", "success", now)
    queue = (await http.get("/metrics?format=json")).json()["queue"]
    assert (queue["n_pending"], queue["n_running"]) == (4, 1)
    assert queue["pending_runs_wait_time_max_secs"] == pytest.approx(60, abs=5)
    assert queue["pending_runs_wait_time_med_secs"] == pytest.approx(30, abs=5)
    assert queue["pending_unblocked_runs_wait_time_max_secs"] == pytest.approx(30, abs=5)


async def test_metrics_count_runs(http, figures):
    for seconds, status in ((0.2, "success"), (2, "success"), (700, "timeout")):
        figures.count_created("agent")
        figures.count_started("agent", 0.02)
        figures.count_ended("agent", status, seconds)
    figures.count_ended("agent", "interrupted", None)  # it never began
    lines = (await http.get("/metrics")).text.splitlines()
    assert 'treadle_runs_created_total{graph_id="agent"} 3.0' in lines
    for status, count in (("success", 2), ("timeout", 1), ("interrupted", 1)):
        name = f'treadle_runs_ended_total{{graph_id="agent",status="{status}"}}'
        assert f"{name} {count}.0" in lines
    assert 'treadle_run_wait_seconds_count{graph_id="agent"} 3.0' in lines
    name = "treadle_run_duration_seconds"
    assert f'{name}_bucket{{graph_id="agent",le="0.25"}} 1.0' in lines
    assert f'{name}_bucket{{graph_id="agent",le="+Inf"}} 3.0' in lines
    runs = (await http.get("/metrics?format=json")).json()["runs"]
    assert runs["created"] == [{"graph_id": "agent", "count": 3}]
    assert {"graph_id": "agent", "status": "timeout", "count": 1} in runs["ended"]
    assert f'{name}_sum{{graph_id="agent"}} 702.2' in lines


async def test_figures_of_what_else_waits(http, database):
    now = now_us()

    async def body(transaction: Any) -> None:
        for n, due in enumerate((now - 40 * SECOND_US, now + 60 * SECOND_US)):
            await transaction.execute(
                "INSERT INTO webhook_outbox (run_id, target, body, due_at)"
                " VALUES (:run, 'http://t', :body, :due)",
                {"run": f"r{n}", "body": b"{}", "due": due},
            )

    await database.write(body)
    backlog = (await http.get("/metrics?format=json")).json()["backlog"]
    assert backlog["webhooks"] == 2
    assert backlog["webhooks_late_secs"] == pytest.approx(40, abs=5)
    assert backlog["crons_late_secs"] == 0
    text = (await http.get("/metrics")).text
    found = {
        family.name: [sample.value for sample in family.samples]
        for family in text_string_to_metric_families(text)
    }
    assert found["treadle_webhooks_waiting"] == [2]
    assert found["treadle_database_connections"]
    assert found["treadle_database_waiting"] == [0, 0]


async def test_metrics_of_an_idle_server(http):
    figures = (await http.get("/metrics?format=json")).json()
    assert figures["queue"]["pending_runs_wait_time_max_secs"] is None
    assert figures["workers"] == {"max": 10, "active": 3, "available": 7}
    unknown = await http.get("/metrics?format=other")
    assert unknown.headers["content-type"].startswith("text/plain")


async def test_openapi_document(http):
    document = (await http.get("/openapi.json")).json()
    operation = document["paths"]["/things/{thing_id}/find"]["post"]
    assert [(p["name"], p["in"], p["required"]) for p in operation["parameters"]] == [
        ("thing_id", "path", True),
        ("deep", "query", False),
    ]
    assert operation["requestBody"]["required"] is True
    assert document["components"]["schemas"]["Wanted"]["properties"]["limit"]["default"] == 10
    assert {"200", "404", "422"} <= set(operation["responses"])
    events = document["paths"]["/things/stream"]["get"]["responses"]["200"]["content"]
    assert "text/event-stream" in events
    assert [tag["name"] for tag in document["tags"]] == ["Threads", "System", "Streaming"]
    ids = [op["operationId"] for path in document["paths"].values() for op in path.values()]
    assert len(ids) == len(set(ids))


async def test_docs_hold_the_document_and_need_nothing_else(http):
    page = (await http.get("/docs")).text
    begin = page.index('id="document">') + len('id="document">')
    inside = page[begin : page.index("</script>", begin)]
    assert json.loads(inside) == (await http.get("/openapi.json")).json()
    assert "http://" not in page.replace(inside, "")
    assert "https://" not in page.replace(inside, "")
