import json
from contextlib import closing
from socket import AF_INET, SOCK_STREAM, socket

import pytest
from click.testing import CliRunner

from treadle.cli import main

AGENT = """
from langchain_core.messages import AIMessage
from langgraph.graph import START, MessagesState, StateGraph

async def reply(state: MessagesState) -> dict:
    return {"messages": [AIMessage(content="Hello!")]}

graph = StateGraph(MessagesState).add_node(reply).add_edge(START, "reply").compile()
"""


@pytest.fixture
def project(tmp_path):
    """A folder with a graph ``agent``; ``project(key=value)`` writes its config and names it."""
    (tmp_path / "agent.py").write_text(AGENT)

    def project(**keys):
        path = tmp_path / "langgraph.json"
        path.write_text(json.dumps({"graphs": {"agent": "./agent.py:graph"}} | keys))
        return path

    return project


@pytest.fixture
def treadle(monkeypatch):
    """``treadle("check", ...)`` in this process: its exit code and what it printed."""
    for name in ("LOG_JSON", "DATABASE_URI", "HOST", "PORT"):
        monkeypatch.delenv(name, raising=False)
    return lambda *arguments: CliRunner().invoke(main, [str(argument) for argument in arguments])


@pytest.fixture
def taken():
    """A port at which somebody listens already."""
    with closing(socket(AF_INET, SOCK_STREAM)) as sock:
        sock.bind(("127.0.0.1", 0))
        sock.listen()
        yield sock.getsockname()[1]
