"""A server process with a project of its own, and a receiver of OTLP beside it."""

from __future__ import annotations

import gzip
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, TypeVar

import httpx
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

PATIENCE_SECONDS = 30.0
SAY = {"messages": [{"role": "user", "content": "a secret of theirs"}]}
T = TypeVar("T")

GRAPHS = '''
import asyncio, logging, os, sys
from pathlib import Path
from typing import TypedDict

from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage
from langchain_core.outputs import ChatGeneration, ChatResult
from langchain_core.tools import tool
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.types import interrupt


class Model(BaseChatModel):
    """A model that tells how much it used."""

    @property
    def _llm_type(self):
        return "scripted"

    def _get_ls_params(self, stop=None, **kwargs):
        return {"ls_provider": "scripted", "ls_model_name": "tiny-1", "ls_model_type": "chat",
                "ls_temperature": 0.5}

    def _generate(self, messages, stop=None, run_manager=None, **kwargs):
        usage = {"input_tokens": 11, "output_tokens": 7, "total_tokens": 18}
        said = {"model_name": "tiny-1-2026", "finish_reason": "stop"}
        message = AIMessage("Hello!", id="answer-1", usage_metadata=usage, response_metadata=said)
        return ChatResult(generations=[ChatGeneration(message=message)])


@tool
def look(where: str) -> str:
    """Look somewhere."""
    return where


async def reply(state):
    logging.getLogger("users.agent").warning("replying")
    await look.ainvoke({"where": "there"})
    return {"messages": [await Model().ainvoke(state["messages"])]}


def plain(state):
    logging.getLogger("users.agent").warning("thinking")
    return {}


inner = StateGraph(MessagesState).add_node(reply).add_edge(START, "reply").compile()
chat = (StateGraph(MessagesState).add_node(plain).add_node("inner", inner)
        .add_edge(START, "plain").add_edge("plain", "inner").compile())


async def fail(state):
    raise ValueError("kaboom")


boom = StateGraph(MessagesState).add_node(fail).add_edge(START, "fail").compile()


async def ask(state):
    return {"messages": [str(interrupt("Really?"))]}


question = StateGraph(MessagesState).add_node(ask).add_edge(START, "ask").compile()


async def first(state):
    return {}


async def second(state):
    begun = Path(os.environ.get("BEGUN", "begun"))
    if not begun.exists():
        begun.write_text("")
        await asyncio.sleep(60)
    return {}


cut = (StateGraph(MessagesState).add_node(first).add_node(second)
       .add_edge(START, "first").add_edge("first", "second").compile())


class Modules(TypedDict, total=False):
    loaded: list


async def modules(state):
    return {"loaded": sorted(sys.modules)}


tell = StateGraph(Modules).add_node(modules).add_edge(START, "modules").compile()


async def own(state):
    from opentelemetry import trace
    with trace.get_tracer("users").start_as_current_span("theirs"):
        await asyncio.sleep(0)
    return {}


spans = StateGraph(MessagesState).add_node(own).add_edge(START, "own").compile()
'''
NAMES = ("chat", "boom", "question", "cut", "tell", "spans")


def until(find: Callable[[], T], what: str) -> T:
    """What ``find`` finds, as soon as it finds something."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not (found := find()):
        assert time.monotonic() < deadline, f"there was no {what}"
        time.sleep(0.02)
    return found


class Span:
    """A span as it was received."""

    def __init__(self, raw: Any, resource: dict[str, Any]) -> None:
        self.name: str = raw.name
        self.trace, self.id, self.parent = (
            raw.trace_id.hex(),
            raw.span_id.hex(),
            raw.parent_span_id.hex(),
        )
        self.kind: int = raw.kind
        self.failed = raw.status.code == 2
        self.attributes = values(raw.attributes)
        self.events = [event.name for event in raw.events]
        self.resource = resource

    def __repr__(self) -> str:
        return f"{self.name} {self.attributes}"


def values(attributes: Any) -> dict[str, Any]:
    return {one.key: getattr(one.value, one.value.WhichOneof("value")) for one in attributes}


class Collector:
    """Receives OTLP over HTTP, and whatever else is posted."""

    def __init__(self) -> None:
        self.spans: list[Span] = []
        self.metrics: dict[str, Any] = {}
        self.bodies: list[tuple[str, bytes]] = []
        self.headers: dict[str, str] = {}
        collector = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers.get("content-length", 0)))
                if self.headers.get("content-encoding") == "gzip":
                    body = gzip.decompress(body)
                collector.headers = dict(self.headers)
                collector.receive(self.path, body)
                self.send_response(200)
                self.send_header("content-type", "application/json")
                self.send_header("content-length", "2")
                self.end_headers()
                self.wfile.write(b"{}")

            do_GET = do_PATCH = do_POST

            def log_message(self, *_: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def receive(self, path: str, body: bytes) -> None:
        if path == "/v1/traces":
            for group in ExportTraceServiceRequest.FromString(body).resource_spans:
                resource = values(group.resource.attributes)
                for scope in group.scope_spans:
                    self.spans += [Span(raw, resource) for raw in scope.spans]
        elif path == "/v1/metrics":
            for group in ExportMetricsServiceRequest.FromString(body).resource_metrics:
                for scope in group.scope_metrics:
                    self.metrics.update({metric.name: metric for metric in scope.metrics})
        else:
            self.bodies.append((path, body))

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def named(self, name: str) -> Span:
        """The span of that name, once it has come."""
        found = until(lambda: [s for s in list(self.spans) if s.name == name], f"span {name}")
        return found[0]


class Served:
    """``treadle serve`` (or another command) in a process."""

    def __init__(
        self, folder: Path, database: str, env: dict[str, str], command: str = "serve", *more: str
    ) -> None:
        (folder / "graphs.py").write_text(GRAPHS)
        config = {"graphs": {name: f"./graphs.py:{name}" for name in NAMES}}
        (folder / "langgraph.json").write_text(json.dumps(config))
        kept = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("OTEL_", "LANG", "LOG_", "HTTP"))
        }
        fast = {"OTEL_BSP_SCHEDULE_DELAY": "50", "OTEL_METRIC_EXPORT_INTERVAL": "200"}
        self.log_path = folder / f"{command}{'-'.join(more)}.log"
        with self.log_path.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "treadle", command, "--db", database, *more],
                cwd=folder,
                env={**kept, **fast, "LOG_JSON": "true", **env},
                stdout=log,
                stderr=log,
            )

    def lines(self) -> list[dict[str, Any]]:
        """The log: each line of it is JSON, from the first on."""
        return [json.loads(line) for line in self.log_path.read_text().splitlines()]

    def ready(self) -> Served:
        def banner() -> Any:
            assert self.process.poll() is None, self.log_path.read_text()
            whole = self.log_path.read_text().rpartition("\n")[0].splitlines()
            return [line for line in map(json.loads, whole) if "graphs" in line]

        self.url = until(banner, "banner")[-1]["api"]
        return self

    def client(self) -> httpx.Client:
        return httpx.Client(base_url=self.url, timeout=PATIENCE_SECONDS)

    def stop(self, number: int = signal.SIGTERM) -> float:
        """How many seconds it took."""
        begun = time.monotonic()
        if self.process.poll() is None:
            self.process.send_signal(number)
            self.process.wait(PATIENCE_SECONDS)
        return time.monotonic() - begun
