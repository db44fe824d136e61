"""The system endpoints, through the application and over a real database."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import httpx
import msgspec
import pytest

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


@pytest.mark.parametrize("path", ["/ok", "/", "/ok?check_db=0", "/ok?check_db=true"])
async def test_health(http, path):
    answer = await http.get(path)
    assert (answer.status_code, answer.json()) == (200, {"ok": True, "services": {}})


async def test_strange_check_is_refused(http):
    answer = await http.get("/ok?check_db=perhaps")
    assert answer.status_code == 422
    assert "check_db" in answer.json()["detail"]


async def test_failing_check_is_a_500(database, capsys):
    class Broken:
        async def read_one(self, sql: str) -> None:
            raise OSError("disk gone")

    system = SystemService(Broken(), RequestMetrics(), RunFigures(), lambda: WorkerFigures(1, 0))  # type: ignore[arg-type]
    transport = httpx.ASGITransport(Application(routes(system, [])))
    async with httpx.AsyncClient(transport=transport, base_url="http://t") as client:
        assert (await client.get("/ok")).status_code == 200
        answer = await client.get("/ok?check_db=1")
    assert answer.status_code == 500
    assert answer.json()["ok"] is False


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
    assert 'method="POST",path="/things/{thing_id}/find",status="200"' in counted[0]
    assert counted[0].endswith(" 3")
    assert 'lg_api_http_requests_latency_bucket{le="+Inf",method="POST"' in text
    assert 'lg_api_workers_available{project_id="",revision_id="",deployment_type=""} 7' in text
    for line in text.splitlines():
        assert line.startswith("# ") or float(line.rpartition(" ")[2]) >= 0


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
        figures.count_ended("agent", status, seconds)
    lines = (await http.get("/metrics")).text.splitlines()
    assert 'treadle_runs_created_total{graph_id="agent"} 3' in lines
    assert 'treadle_runs_ended_total{graph_id="agent",status="success"} 2' in lines
    assert 'treadle_runs_ended_total{graph_id="agent",status="timeout"} 1' in lines
    name = "treadle_run_duration_seconds"
    assert f'{name}_bucket{{le="0.25",graph_id="agent"}} 1' in lines
    assert f'{name}_bucket{{le="+Inf",graph_id="agent"}} 3' in lines
    assert f'{name}_sum{{graph_id="agent"}} 702.2' in lines


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
