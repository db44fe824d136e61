"""The commands as they are called; what a server does is in test_dev.py."""

import json
import subprocess
import sys

import pytest

from treadle import __version__
from treadle.cli import ABSENT, COMMANDS
from treadle.cli.new import TEMPLATES


def test_help_names_every_command(treadle):
    result = treadle("--help")
    assert result.exit_code == 0
    for name in COMMANDS:
        assert name in result.output


@pytest.mark.parametrize("name", COMMANDS)
def test_each_command_has_help_of_its_own(treadle, name):
    result = treadle(name, "--help")
    assert result.exit_code == 0
    assert "Usage:" in result.output


def test_an_unknown_command_is_refused(treadle):
    assert treadle("devv").exit_code == 2


def test_version_tells_what_a_bug_report_needs(treadle):
    output = treadle("version").output
    assert f"treadle {__version__}" in output
    assert "langgraph 1." in output
    assert "python 3." in output


def test_help_and_the_supervisor_import_nothing_heavy():
    code = (
        "import sys, treadle.cli, treadle.cli.dev, treadle.cli.supervisor\n"
        "heavy = {'langgraph', 'langchain_core', 'structlog', 'rich', 'httpx', 'uvicorn'}\n"
        "sys.exit(repr(heavy & set(sys.modules) or ''))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.stderr.strip() == "''"


def test_check_shows_what_graphs_take_and_give(treadle, project):
    result = treadle("check", "--config", project(htpp={}))
    assert result.exit_code == 0
    for word in ("agent", "./agent.py:graph", "messages", "1 graph", "htpp"):
        assert word in result.output


def test_check_leaves_no_files(treadle, project, tmp_path):
    treadle("check", "--config", project())
    assert {path.name for path in tmp_path.iterdir()} <= {
        "agent.py",
        "langgraph.json",
        "__pycache__",
    }


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({"graphs": {"shop": "./nope.py:x"}}, ["shop", "nope.py"]),
        ({"graphs": {"shop": "./agent.py:nope"}}, ["shop", "nope", "graph"]),
        ({"graphs": {"shop": "./broken.py:x"}}, ["shop", "boom", "broken.py"]),
        ({"graphs": {"shop": "./factory.py:x"}}, ["shop", "no luck", "factory.py"]),
        ({"http": {"app": "./web.py:app"}}, ["http.app", "web.py"]),
        ({"auth": {"path": "./own.py:auth"}}, ["auth.path", "own.py"]),
        ({"auth": {"path": "./agent.py:graph"}}, ["auth.path", "langgraph_sdk.Auth"]),
        ({"store": {"path": "./own.py:store"}}, ["store.path", "own.py"]),
        ({"checkpointer": {"path": "./own.py:saver"}}, ["checkpointer.path", "own.py"]),
        ({"store": {"index": {"embed": "./flat.py:embed", "dims": 3}}}, ["store.index.dims is 3"]),
    ],
)
def test_check_ends_with_one_message(treadle, project, tmp_path, keys, words):
    (tmp_path / "broken.py").write_text("raise ValueError('boom')\n")
    (tmp_path / "flat.py").write_text("def embed(texts):\n    return [[1.0] for _ in texts]\n")
    (tmp_path / "factory.py").write_text("def x():\n    raise ValueError('no luck')\n")
    result = treadle("check", "--config", project(**keys))
    assert result.exit_code == 1
    assert result.output.count("Error:") == 1 + ("ValueError" in result.output)
    for word in words:
        assert word in result.output


def test_check_needs_a_config(treadle, tmp_path):
    result = treadle("check", "--config", tmp_path / "nope.json")
    assert result.exit_code == 1
    assert "--config" in result.output


def test_check_sees_that_a_port_is_taken(treadle, project, taken):
    result = treadle("check", "--config", project(), "--port", taken)
    assert result.exit_code == 1
    assert f"Port {taken}" in result.output


@pytest.mark.parametrize("database", ["agent.py", "agent.py/deep/t.db", "."])
def test_check_sees_that_a_database_cannot_be_written(treadle, project, tmp_path, database):
    result = treadle("check", "--config", project(), "--db", tmp_path / database)
    assert result.exit_code == 1
    assert "cannot be" in result.output


def test_a_database_of_another_kind_is_refused(treadle, project):
    result = treadle("check", "--config", project(), "--db", "mysql://me:secret@db/x")
    assert result.exit_code == 2
    assert "postgresql://user@host/database" in result.output
    assert "secret" not in result.output


def test_check_sees_that_postgres_lets_nobody_in(treadle, project, monkeypatch):
    monkeypatch.setenv("TREADLE_POSTGRES_WAIT_SECS", "0")
    uri = "postgresql://me:secret@127.0.0.1:1/x"
    result = treadle("check", "--config", project(), "--db", uri)
    assert result.exit_code == 1
    assert "postgresql://me@127.0.0.1:1/x did not answer" in result.output
    assert "secret" not in result.output


def test_check_with_postgres(treadle, project, postgres_uri):
    assert treadle("check", "--config", project(), "--db", postgres_uri).exit_code == 0


def test_errors_are_json_where_logs_are(treadle, tmp_path, monkeypatch, capfd):
    monkeypatch.setenv("LOG_JSON", "true")
    result = treadle("check", "--config", tmp_path / "nope.json")
    assert json.loads(result.stderr)["level"] == "error"


def test_dev_refuses_a_port_that_is_taken(treadle, project, taken):
    result = treadle("dev", "--config", project(), "--port", taken)
    assert result.exit_code == 1
    assert "--port" in result.output


def test_waiting_for_a_debugger_needs_a_port_for_it(treadle, project):
    result = treadle("dev", "--config", project(), "--wait-for-client")
    assert result.exit_code == 2
    assert "--debug-port" in result.output


def test_chat_without_a_server_says_so(treadle):
    result = treadle("chat", "--url", "http://127.0.0.1:1")
    assert result.exit_code == 1
    assert "treadle dev" in result.output


def test_validate_reads_the_config_alone(treadle, project):
    path = project(graphs={"a": "./not_there.py:graph", "b": "x.y:graph"}, htpp={})
    result = treadle("validate", "--config", path)
    assert result.exit_code == 0
    assert f"Configuration file {path} is valid. (2 graphs found)" in result.output
    assert 'did you mean "http"?' in result.output


def test_validate_says_what_is_wrong(treadle, project):
    result = treadle("validate", "--config", project(dependencies=[]))
    assert result.exit_code == 1
    assert result.output.startswith("Error: ")
    assert "dependencies" in result.output


@pytest.mark.parametrize("name", TEMPLATES)
def test_a_new_project_passes_its_check(treadle, tmp_path, name):
    result = treadle("new", tmp_path / "shop", "--template", name)
    assert result.exit_code == 0
    # In a process of its own: each template has an agent.py.
    command = [sys.executable, "-m", "treadle", "check", "-c", tmp_path / "shop/langgraph.json"]
    assert subprocess.run(command, capture_output=True).returncode == 0


def test_new_writes_over_nothing(treadle, project):
    path = project()
    before = path.read_text()
    result = treadle("new", path.parent, "--template", "agent")
    assert result.exit_code == 1
    assert "is there already" in result.output
    assert path.read_text() == before


@pytest.mark.parametrize("name", ABSENT)
def test_commands_of_others_are_refused_with_what_does_the_same(treadle, name):
    result = treadle(name)
    assert result.exit_code == 2
    assert ABSENT[name] in " ".join(result.output.split())


def test_options_that_make_no_sense_are_refused_by_name(treadle, project):
    result = treadle("dev", "--config", project(), "--tunnel")
    assert result.exit_code == 2
    assert "--tunnel is not supported" in result.output


def test_https_needs_both_files_and_good_ones(treadle, project, tmp_path):
    result = treadle("serve", "--config", project(), "--ssl-certfile", "x")
    assert (result.exit_code, "--ssl-keyfile" in result.output) == (2, True)
    bad = tmp_path / "bad.pem"
    bad.write_text("no certificate")
    files = ["--ssl-certfile", bad, "--ssl-keyfile", bad]
    result = treadle("serve", "--config", project(), *files)
    assert (result.exit_code, "bad.pem" in result.output) == (1, True)
