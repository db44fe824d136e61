"""The documentation is true where a program can tell."""

from __future__ import annotations

import ast
import importlib.util
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from structlog.testing import capture_logs

from treadle.config import IN_EFFECT, NO_MATTER, NOT_YET, load_config
from treadle.runs.lease import LEASE_SECONDS
from treadle.server import Server
from treadle.settings import VARIABLES, Settings
from treadle.streaming.sse import HEARTBEAT_SECONDS
from treadle.variables import ELSEWHERE, MEANINGLESS, NOT_IN_EFFECT

ROOT = Path(__file__).parent.parent.parent
DOCS, SOURCE, SCRIPT = ROOT / "docs", ROOT / "src", ROOT / "scripts" / "settings_page.py"
NO_SETTINGS = {
    "__LANGGRAPH_DEFER_LOOPBACK_TRANSPORT",
    "CI",
    "SSH_CONNECTION",
    "DISPLAY",
    "WAYLAND_DISPLAY",
}
"""What tells whether somebody sits at this machine, and what the SDK is told."""
PAGES = sorted(DOCS.glob("*.md"))


def page(name: str) -> str:
    return (DOCS / f"{name}.md").read_text(encoding="utf-8")


def named(text: str) -> set[str]:
    """What stands in backquotes."""
    return set(re.findall(r"`([^`\n]+)`", text))


def settings_page() -> Any:
    """The script that writes docs/settings.md."""
    spec = importlib.util.spec_from_file_location("settings_page", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_page_of_settings_is_as_the_code_has_it():
    assert page("settings") == settings_page().page(), "make settings"


def test_every_setting_is_explained_and_can_be_set():
    docs = settings_page().field_docs(Settings)
    assert set(docs) == set(Settings.__struct_fields__)
    settable = {field for field, _ in VARIABLES.values()}
    assert settable == set(Settings.__struct_fields__) - {"allow_blocking", "development"}


def test_every_variable_that_is_read_is_on_the_page():
    told = named(page("settings")) | NO_SETTINGS
    read: set[str] = set()
    for path in SOURCE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            read |= variables_read(node)
    assert {"HOST", "PORT", "LOG_JSON", "CI", "TREADLE_WEBHOOK_SECRET"} <= read
    assert read <= told
    assert {*VARIABLES, *ELSEWHERE, *NOT_IN_EFFECT, *MEANINGLESS} <= told


def variables_read(node: ast.AST) -> set[str]:
    """The names that one expression looks up in an environment, or lets click look up."""
    names: list[Any] = []
    match node:
        case ast.Call(func=ast.Attribute(value=holder, attr="get"), args=[name, *_]) if (
            "environ" in ast.unparse(holder)
        ):
            names = [name]
        case ast.Call(func=func, args=[name, *_]) if ast.unparse(func) in ("os.getenv", "getenv"):
            names = [name]
        case ast.Subscript(value=holder, slice=name) if "environ" in ast.unparse(holder):
            names = [name]
        case ast.Compare(left=name, comparators=[holder]) if "environ" in ast.unparse(holder):
            names = [name]
        case ast.keyword(arg="envvar", value=name):
            names = [name]
        case ast.Assign(targets=[ast.Name(id=held)], value=name) if held.endswith("_VARIABLE"):
            names = [name]
        case _:
            pass
    return {one.value for one in names if isinstance(one, ast.Constant)}


def test_no_variable_is_made_up():
    known = {
        *VARIABLES,
        *ELSEWHERE,
        *NOT_IN_EFFECT,
        *MEANINGLESS,
        "HTTP_PROXY",
        "HTTPS_PROXY",
        "LANGCHAIN_CALLBACKS_BACKGROUND",
        "OTEL_RESOURCE_ATTRIBUTES",
        "OTEL_TRACES_SAMPLER",
        "OTEL_TRACES_SAMPLER_ARG",
        "OTEL_EXPORTER_OTLP_HEADERS",
        "OTEL_PROPAGATORS",
        "OTEL_METRIC_EXPORT_INTERVAL",
        "REQUIREMENT",
        "SAVE_PATH",
    }
    known |= {"PGPASSWORD", "HOME", "FROM"}
    known |= {"SSL_CERT_FILE", "SSL_CERT_DIR", "LG_WEBHOOK_", "NAME", "UUID"}
    known |= {"POST", "DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL", "SIGTERM", "SIGINT"}
    for path in PAGES:
        capitals = {word for word in named(path.read_text()) if re.fullmatch("[A-Z_]{4,}", word)}
        assert capitals <= known, path.name


def test_every_key_of_the_config_stands_where_it_belongs():
    text = page("configuration")
    begins = [text.index(f"## {title}") for title in ("In effect", "Not yet", "Without a meaning")]
    in_effect, not_yet = text[begins[0] : begins[1]], text[begins[1] : begins[2]]
    assert named(in_effect) >= IN_EFFECT
    assert named(not_yet) >= NOT_YET.keys()
    assert named(text[begins[2] :]) >= NO_MATTER
    assert not named(in_effect) & NOT_YET.keys()
    assert not named(not_yet) & IN_EFFECT


def test_times_are_as_the_code_has_them():
    assert f"a lease of {LEASE_SECONDS:g} seconds" in page("durability")
    assert f"every {HEARTBEAT_SECONDS:g} seconds" in page("streaming")


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_links_lead_somewhere(path: Path):
    for link in re.findall(r"\]\(([^)]+)\)", path.read_text(encoding="utf-8")):
        if not link.startswith("http"):
            assert (DOCS / link.partition("#")[0]).exists(), link


@pytest.fixture
def quiet() -> Iterator[None]:
    with capture_logs():
        yield


async def test_the_list_of_endpoints(tmp_path: Path, quiet: None):
    (tmp_path / "agent.py").write_text(
        "from langgraph.graph import START, StateGraph\n"
        "graph = StateGraph(dict).add_node('a', lambda state: {}).add_edge(START, 'a').compile()\n"
    )
    config = tmp_path / "langgraph.json"
    config.write_text(json.dumps({"graphs": {"agent": "./agent.py:graph"}}))
    async with Server(load_config(config), Settings()).open() as app:
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            document: Any = (await client.get("/openapi.json")).json()
    served = {
        f"{method.upper()} {path}"
        for path, methods in document["paths"].items()
        for method in methods
    }
    listed = re.findall(r"^((?:GET|POST|PUT|PATCH|DELETE) \S+)$", page("README"), re.MULTILINE)
    assert sorted(listed) == sorted(served)
