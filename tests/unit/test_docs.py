"""The documentation is true where a program can tell."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from structlog.testing import capture_logs

from treadle.assistants.models import LONGEST_NAME_FILTER_CHARACTERS
from treadle.config import IN_EFFECT, NO_MATTER, NOT_YET, load_config
from treadle.http.protocol import MAX_HEAD_BYTES
from treadle.http.validation import MAX_DEPTH
from treadle.idempotency import LONGEST_KEY
from treadle.runs.lease import LEASE_SECONDS
from treadle.server import Server
from treadle.settings import VARIABLES, Settings
from treadle.streaming.log import READER_LIMIT_BYTES
from treadle.streaming.sse import HEARTBEAT_SECONDS
from treadle.threads.models import MOST_FILTER_ENTRIES
from treadle.webhooks.rules import SECRET_VARIABLE

DOCS = Path(__file__).parent.parent.parent / "docs"
PAGES = sorted(DOCS.glob("*.md"))


def page(name: str) -> str:
    return (DOCS / f"{name}.md").read_text(encoding="utf-8")


def named(text: str) -> set[str]:
    """What stands in backquotes."""
    return set(re.findall(r"`([^`\n]+)`", text))


def test_every_variable_is_named():
    lines = page("environment").splitlines()
    rows = {name: line for line in lines for name in named(line.partition(" | ")[0])}
    assert {*VARIABLES, SECRET_VARIABLE} <= rows.keys()
    for name, (field, _) in VARIABLES.items():
        default = Settings.__struct_defaults__[Settings.__struct_fields__.index(field)]
        if isinstance(default, int | float) and not isinstance(default, bool):
            assert f"| {default:g} " in rows[name] or f"| {default} " in rows[name], name


def test_no_variable_is_made_up():
    known = {
        *VARIABLES,
        SECRET_VARIABLE,
        "HOST",
        "PORT",
        "HEALTH_PORT",
        "HTTP_PROXY",
        "HTTPS_PROXY",
    }
    known |= {"PGPASSWORD", "HOME", "FROM"}
    known |= {"SSL_CERT_FILE", "SSL_CERT_DIR", "LG_WEBHOOK_", "NAME"}
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


def test_limits_are_as_the_code_has_them():
    text = page("environment")
    for limit in (
        f"| {MAX_HEAD_BYTES} bytes |",
        f"| {MAX_DEPTH} levels |",
        f"| {MOST_FILTER_ENTRIES} |",
        f"| {LONGEST_NAME_FILTER_CHARACTERS} characters |",
        f"| {LONGEST_KEY} characters |",
        f"| {READER_LIMIT_BYTES // 2**20} MiB |",
    ):
        assert limit in text
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
