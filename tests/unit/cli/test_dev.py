"""``treadle dev`` and ``serve`` as processes: start, reload, stop."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest

PATIENCE_SECONDS = 30
EXAMPLE = Path(__file__).parents[3] / "examples" / "support-agent"
TREADLE = [sys.executable, "-m", "treadle"]


def until(condition, what):
    """Poll until ``condition()`` is true; what it gave."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < deadline:
        if found := condition():
            return found
        time.sleep(0.02)
    raise AssertionError(f"waited in vain for {what}")


class Process:
    """A server under test, and what it printed."""

    def __init__(self, folder, *arguments, **env):
        self._log = folder / "log"
        with self._log.open("wb") as log:
            self.process = subprocess.Popen(
                [*TREADLE, *arguments],
                cwd=folder,
                stderr=log,
                env=os.environ | {"LANGSMITH_TRACING": "false", "LOG_COLOR": "false"} | env,
            )

    @property
    def output(self) -> str:
        return self._log.read_text()

    def ready(self, times=1) -> str:
        """Wait for the banner to be printed for the ``times``-th time; the server's URL."""

        def address():
            lines = [line.split()[1] for line in self.output.splitlines() if "  API" in line]
            return lines[times - 1] if len(lines) >= times else None

        return until(address, f"start {times}; printed:\n{self.output}")

    def stop(self, number=signal.SIGTERM) -> int:
        self.process.send_signal(number)
        return self.process.wait(PATIENCE_SECONDS)


@pytest.fixture
def start(project, tmp_path):
    """``start("dev", ...)`` in the folder of ``project``, whose config is written already."""
    started = []
    project()

    def start(*arguments, **env):
        started.append(Process(tmp_path, *arguments, **env))
        return started[-1]

    yield start
    for server in started:
        if server.process.poll() is None:
            server.process.kill()
            server.process.wait()


def answers(url) -> bool:
    try:
        return httpx.get(f"{url}/ok", timeout=2).status_code == 200
    except httpx.HTTPError:
        return False


def reply(url) -> str:
    request = {"assistant_id": "agent", "input": {"messages": []}}
    answer = httpx.post(f"{url}/runs/wait", json=request, timeout=PATIENCE_SECONDS)
    return answer.json()["messages"][-1]["content"]


def test_a_change_of_code_starts_the_server_again(start, tmp_path):
    server = start("dev", "--port", "0")
    url = server.ready()
    assert reply(url) == "Hello!"
    code = tmp_path / "agent.py"
    good = code.read_text()
    code.write_text(good.replace("Hello!", "Hi!"))
    server.ready(times=2)
    assert reply(url) == "Hi!"
    code.write_text(good + "raise ValueError('boom')\n")
    until(lambda: "starts it again" in server.output, "the error of the change")
    assert "ValueError: boom" in server.output
    code.write_text(good)
    server.ready(times=3)
    assert reply(url) == "Hello!"
    assert server.stop() == 0


def test_state_is_kept_beside_the_config_over_restarts(start, tmp_path):
    server = start("dev", "--no-reload", "--port", "0")
    thread = httpx.post(f"{server.ready()}/threads", json={}).json()["thread_id"]
    server.stop()
    server = start("dev", "--no-reload", "--port", "0")
    assert httpx.get(f"{server.ready()}/threads/{thread}").status_code == 200
    assert (tmp_path / ".treadle" / ".gitignore").exists()


def test_a_first_start_that_fails_ends_with_one_message(start, project):
    project(graphs={"shop": "./nope.py:x"})
    for arguments in (["dev"], ["serve", "--port", "0"]):
        server = start(*arguments)
        assert server.process.wait(PATIENCE_SECONDS) == 1
        assert "nope.py" in server.output
        assert "Traceback" not in server.output


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_stops_the_supervisor_and_its_server(start, number):
    server = start("dev", "--port", "0")
    url = server.ready()
    assert server.stop(number) == 0
    assert not answers(url)


def test_the_server_ends_with_its_supervisor(start):
    server = start("dev", "--port", "0")
    url = server.ready()
    server.process.kill()
    server.process.wait()
    until(lambda: not answers(url), "the end of the server")


def test_serve_logs_nothing_but_json(start, project):
    project(htpp={}, priority={"path": "./a.py:priority"})
    server = start("serve", "--port", "0")
    until(lambda: "serves http" in server.output, "the start")
    assert server.stop() in (0, -signal.SIGTERM)
    lines = [json.loads(line) for line in server.output.splitlines()]
    assert lines[0]["api"].startswith("http://127.0.0.1:")
    assert lines[0]["graphs"] == ["agent"]
    assert any('"htpp"' in line["event"] for line in lines)
    assert any('"priority" is not yet in effect' in line["event"] for line in lines)
    assert not any("ANYONE" in line["event"] for line in lines)


def test_open_doors_beyond_this_machine_are_warned_of(start):
    server = start("serve", "--host", "0.0.0.0", "--port", "0")
    until(lambda: "serves http" in server.output, "the start")
    server.stop()
    lines = [json.loads(line) for line in server.output.splitlines()]
    [warning] = [line for line in lines if "ANYONE who can reach 0.0.0.0" in line["event"]]
    assert warning["level"] == "warning"


def test_with_keys_nothing_is_warned_of(start):
    keys = {"TREADLE_API_KEYS": "ops:0123456789abcdef"}
    server = start("serve", "--host", "0.0.0.0", "--port", "0", **keys)
    until(lambda: "serves http" in server.output, "the start")
    server.stop()
    assert "ANYONE" not in server.output
    assert "0123456789abcdef" not in server.output


def test_the_example_is_talked_to_by_chat(start, tmp_path):
    shutil.copytree(EXAMPLE, tmp_path, dirs_exist_ok=True, ignore=shutil.ignore_patterns(".*"))
    url = start("dev", "--no-reload", "--port", "0").ready()

    def chat(turns, *arguments) -> list[str]:
        command = [*TREADLE, "chat", "--url", url, *arguments]
        said = subprocess.run(
            command,
            input=turns,
            capture_output=True,
            text=True,
            timeout=PATIENCE_SECONDS,
            env={**os.environ, "PYTHONWARNINGS": "always::ResourceWarning"},
        )
        assert said.returncode == 0
        assert "unclosed" not in said.stderr
        return said.stdout.splitlines()

    order = "Order 1042: espresso machine, 249.00 EUR, delivered on 3 November."
    question = (
        'asked> Refund 249.00 EUR for order 1042? {"item": "espresso machine", '
        '"reason": "It broke: refund, please"}'
    )
    assert chat("Where is my order 1042?\nIt broke: refund, please\nyes\n/new\nHi\n") == [
        "you> Where is my order 1042?",
        '  lookup_order {"order_id": "1042"}',
        f"  {order}",
        f"agent> {order} Is there anything wrong with it?",
        "you> It broke: refund, please",
        '  refund_order {"order_id": "1042", "reason": "It broke: refund, please"}',
        question,
        "answer> yes",
        "  Refunded 249.00 EUR for order 1042.",
        "agent> Refunded 249.00 EUR for order 1042. You'll have the money within five days.",
        "you> /new",
        "you> Hi",
        "agent> Hello! Tell me the number of your order, and I'll see what I can do.",
    ]
    thread = httpx.post(f"{url}/threads", json={}).json()["thread_id"]
    chat("1042\nIt broke: refund, please\n", "support", "--thread", thread)
    assert chat("no\n", "support", "--thread", thread) == [
        question,
        "answer> no",
        "  The refund for order 1042 was declined: no.",
        "agent> I'm sorry, I may not refund this order. A colleague will write to you.",
    ]


def test_a_lifespan_that_fails_stops_the_start_with_the_users_own_lines(start, project, tmp_path):
    (tmp_path / "webapp.py").write_text(
        "from contextlib import asynccontextmanager\n"
        "from starlette.applications import Starlette\n"
        "@asynccontextmanager\n"
        "async def lifespan(app):\n"
        "    raise OSError('no pool')\n"
        "    yield\n"
        "app = Starlette(lifespan=lifespan)\n"
    )
    project(http={"app": "./webapp.py:app"})
    server = start("dev", "--port", "0", "--no-reload")
    assert server.process.wait(PATIENCE_SECONDS) == 1
    assert "The lifespan of http.app fails" in server.output
    assert 'webapp.py", line 5' in server.output
    assert "no pool" in server.output
    assert "starlette" not in server.output


def test_without_persistence_nothing_is_left(start, project, tmp_path):
    project(disable_persistence=True)
    server = start("dev", "--port", "0", "--no-reload")
    url = server.ready()
    assert httpx.post(f"{url}/threads", json={}).status_code == 200
    [shown] = [line.split()[1] for line in server.output.splitlines() if "  Database" in line]
    database = Path(shown) if Path(shown).is_absolute() else tmp_path / shown
    assert database.exists()
    assert server.stop() == 0
    assert not database.exists()
    assert not (tmp_path / ".treadle").exists()
