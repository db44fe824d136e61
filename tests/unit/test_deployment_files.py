"""The files in deploy/ fit their schemas, the command line, the documentation and each other."""

from __future__ import annotations

import io
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import click
import kubernetes_validate
import pytest
import yaml
from dockerfile_parse import DockerfileParser

from treadle.cli import COMMANDS, main
from treadle.cli.sockets import DEFAULT_PORT

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
MANIFESTS = sorted((DEPLOY / "kubernetes").rglob("*.yaml"))
OF_OTHERS = {"HOME", "PGPASSWORD", "POSTGRES_USER", "POSTGRES_DB", "POSTGRES_PASSWORD"}
"""Variables of libpq, of PostgreSQL's image and of every process."""

with_roles = pytest.mark.xfail(
    "worker" not in COMMANDS, reason="api and worker roles come with the cluster", strict=True
)


def documents(path: Path) -> list[dict[str, Any]]:
    return list(yaml.safe_load_all(path.read_text()))


COMPOSE = documents(DEPLOY / "compose.yaml")[0]
OBJECTS = [found for path in MANIFESTS for found in documents(path)]
DEPLOYMENTS = {
    found["metadata"]["name"]: found for found in OBJECTS if found["kind"] == "Deployment"
}
TREADLE = {name: s for name, s in COMPOSE["services"].items() if s["image"] == "treadle"}
PODS = {name: found["spec"]["template"]["spec"] for name, found in DEPLOYMENTS.items()}
CONTAINERS = [
    container for pod in PODS.values() for container in (*pod["containers"], *pod["initContainers"])
]


@pytest.fixture(scope="module")
def unit() -> dict[str, list[tuple[str, str]]]:
    """The systemd unit: settings by section, in their order."""
    sections: dict[str, list[tuple[str, str]]] = {}
    for line in (DEPLOY / "treadle.service").read_text().splitlines():
        if line.startswith("["):
            section = sections.setdefault(line.strip("[]"), [])
        elif line and not line.startswith("#"):
            name, _, value = line.partition("=")
            section.append((name, value))
    return sections


@pytest.fixture
def image() -> DockerfileParser:
    return DockerfileParser(fileobj=io.BytesIO((DEPLOY / "Dockerfile").read_bytes()))


def last(image: DockerfileParser, instruction: str) -> str:
    return [s["value"] for s in image.structure if s["instruction"] == instruction][-1]


# -- schemas ---------------------------------------------------------------------------------


def test_the_compose_file_fits_its_specification():
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema"]
    command += ["vendor.compose-spec", str(DEPLOY / "compose.yaml")]
    checked = subprocess.run(command, capture_output=True, text=True)
    assert checked.returncode == 0, checked.stdout


@pytest.mark.parametrize("version", ["1.30", "1.34"])
@pytest.mark.parametrize(
    "found", OBJECTS, ids=lambda found: f"{found['kind']}-{found['metadata']['name']}"
)
def test_manifests_fit_kubernetes(found, version):
    if found["apiVersion"].startswith("keda.sh/"):
        assert found["spec"]["scaleTargetRef"]["name"] in DEPLOYMENTS
    else:
        kubernetes_validate.validate(found, version, strict=True)


def test_the_unit_is_one_for_systemd(unit, tmp_path):
    assert {"Unit", "Service", "Install"} == unit.keys()
    settings = dict(unit["Service"])
    assert settings["Restart"] == "on-failure"
    assert settings["DynamicUser"] == settings["NoNewPrivileges"] == "yes"
    if (analyze := shutil.which("systemd-analyze")) is not None:
        text = (DEPLOY / "treadle.service").read_text()
        path = tmp_path / "treadle.service"
        path.write_text(text.replace("/opt/treadle/venv/bin/treadle", "/bin/true"))
        checked = subprocess.run([analyze, "verify", path], capture_output=True, text=True)
        assert (checked.returncode, checked.stderr) == (0, "")


# -- commands, variables, ports --------------------------------------------------------------


def commands() -> list[Any]:
    given = [service["command"] for service in TREADLE.values()]
    given += [container["command"] for container in CONTAINERS]
    text = (DEPLOY / "Dockerfile").read_text()
    given += [json.loads(re.findall(r"^CMD (.*)$", text, re.MULTILINE)[-1])]
    text = (DEPLOY / "treadle.service").read_text()
    [line] = re.findall(r"^ExecStart=\S+/treadle (.*)$", text, re.MULTILINE)
    given += [["treadle", *line.split()]]
    unique = sorted({tuple(command) for command in given})
    roles = ("worker", "--api-only")
    return [
        pytest.param(c, marks=with_roles if set(roles) & {*c} else (), id=" ".join(c))
        for c in unique
    ]


@pytest.mark.parametrize("command", commands())
def test_commands_are_those_of_the_command_line(command):
    assert command[0] == "treadle"
    words = list(command[1:])
    found: click.Command = main
    context = click.Context(main)
    while isinstance(found, click.Group):
        name = words.pop(0)
        inner = found.get_command(context, name)
        assert inner is not None, name
        found = inner
    found.make_context(found.name, words)


def variables() -> set[str]:
    names = {name for service in TREADLE.values() for name in service["environment"]}
    names |= {env["name"] for container in CONTAINERS for env in container.get("env", [])}
    [secret] = [found for found in OBJECTS if found["kind"] == "Secret"]
    names |= secret["stringData"].keys()
    for name in ("Dockerfile", "treadle.service"):
        names |= set(re.findall(r"\b([A-Z][A-Z_]+)=", (DEPLOY / name).read_text()))
    return names - OF_OTHERS - {"ARG", "PROJECT", "PYTHON_VERSION"}


@pytest.mark.parametrize(
    "name",
    [pytest.param(v, marks=with_roles if "REDIS" in v else ()) for v in sorted(variables())],
)
def test_variables_are_in_the_documentation(name):
    assert f"`{name}`" in (ROOT / "docs" / "settings.md").read_text()


def test_ports_agree(image, unit):
    port = str(DEFAULT_PORT)
    assert last(image, "EXPOSE") == port
    assert f"PORT={port}" in last(image, "ENV")
    assert COMPOSE["services"]["api"]["ports"] == [f"${{TREADLE_PUBLISH:-127.0.0.1:{port}}}:{port}"]
    assert f"PORT={port}" in dict(unit["Service"])["Environment"] or any(
        f"PORT={port}" in value for name, value in unit["Service"] if name == "Environment"
    )
    for pod in PODS.values():
        [container] = pod["containers"]
        assert port in container["command"]
        assert container["ports"] == [{"name": "http", "containerPort": DEFAULT_PORT}]
    [service] = [found for found in OBJECTS if found["kind"] == "Service"]
    assert service["spec"]["ports"][0]["targetPort"] == "http"


# -- what they promise -----------------------------------------------------------------------


def test_nothing_runs_as_root_or_writes_to_its_image(image):
    assert last(image, "USER") == "10001:10001"
    for pod in PODS.values():
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["securityContext"]["runAsUser"] == 10001
    for container in CONTAINERS:
        context = container["securityContext"]
        assert context["readOnlyRootFilesystem"] is True
        assert context["allowPrivilegeEscalation"] is False
        assert context["capabilities"] == {"drop": ["ALL"]}
    for service in TREADLE.values():
        assert service["read_only"] is True
        assert service["cap_drop"] == ["ALL"]


def test_signals_reach_the_server(image):
    """Exec form: no shell between, which would keep SIGTERM to itself."""
    assert json.loads(last(image, "CMD"))[0] == "treadle"
    assert last(image, "STOPSIGNAL") == "SIGTERM"
    assert "CMD [" in last(image, "HEALTHCHECK")


def test_a_stop_leaves_time_for_runs(unit):
    def seconds(text: Any) -> int:
        return int(str(text).removesuffix("s"))

    grace = "BG_JOB_SHUTDOWN_GRACE_PERIOD_SECS"
    for service in TREADLE.values():
        assert seconds(service["stop_grace_period"]) > seconds(service["environment"][grace])
    for pod in PODS.values():
        [container] = pod["containers"]
        given = {env["name"]: env["value"] for env in container["env"]}[grace]
        hook = container.get("lifecycle", {}).get("preStop", {}).get("exec", {}).get("command")
        before = int(hook[1]) if hook else 0
        assert pod["terminationGracePeriodSeconds"] > seconds(given) + before
    settings = dict(unit["Service"])
    environment = " ".join(value for name, value in unit["Service"] if name == "Environment")
    [given] = re.findall(rf"{grace}=(\d+)", environment)
    assert seconds(settings["TimeoutStopSec"]) > int(given)


def test_pods_are_asked_how_they_are(image):
    for pod in PODS.values():
        [container] = pod["containers"]
        for probe in ("startupProbe", "readinessProbe"):
            assert container[probe]["httpGet"] == {"path": "/ok", "port": "http"}
        # A database that is away does not make /ok a reason to kill what waits for it.
        assert "httpGet" not in container["livenessProbe"]
    assert "/ok" in last(image, "HEALTHCHECK")


def test_labels_find_their_pods():
    for found in OBJECTS:
        selector = found.get("spec", {}).get("selector")
        if selector is None:
            continue
        wanted = selector.get("matchLabels", selector)
        matching = [
            name
            for name, deployment in DEPLOYMENTS.items()
            if wanted.items() <= deployment["spec"]["template"]["metadata"]["labels"].items()
        ]
        assert len(matching) == 1, found["metadata"]["name"]


def scaling() -> dict[str, Any]:
    [found] = [found for found in OBJECTS if found["kind"] == "ScaledObject"]
    [trigger] = found["spec"]["triggers"]
    return trigger["metadata"]


def test_workers_are_as_many_as_the_queue_asks_for(tmp_path):
    """The query counts what is due and what is executed, not what is for later."""
    import psycopg

    from postgres_server import PREFIX, drop_databases, make_database
    from treadle.clock import now_us
    from treadle.database.maintenance import upgrade
    from treadle.settings import Settings

    drop_databases(f"{PREFIX}keda")
    uri = make_database(f"{PREFIX}keda")
    try:
        upgrade(Settings(database_uri=uri), tmp_path)
        now = now_us()
        rows = [("pending", now - 1), ("running", now - 1), ("pending", now + 3_600_000_000)]
        rows += [("success", now - 1)]
        insert = """
            INSERT INTO runs (run_id, thread_id, assistant_id, graph_id, updated_at, metadata,
                              kwargs, multitask_strategy, status, created_at)
            VALUES (gen_random_uuid(), '', '', '', 0, '', '', '', %s, %s)"""
        with psycopg.connect(uri) as connection:
            connection.cursor().executemany(insert, rows)
            assert connection.execute(scaling()["query"].encode()).fetchone() == (2,)
    finally:
        drop_databases(f"{PREFIX}keda")


def test_a_worker_is_asked_for_less_than_it_takes():
    [container] = PODS["treadle-worker"]["containers"]
    jobs = {env["name"]: env["value"] for env in container["env"]}["N_JOBS_PER_WORKER"]
    assert int(scaling()["targetQueryValue"]) <= int(jobs)
    assert scaling()["connectionFromEnv"] == "DATABASE_URI"


def test_what_the_image_is_made_of_is_there(image):
    copied = [s["value"] for s in image.structure if s["instruction"] == "COPY"]
    for words in copied:
        for name in words.split()[:-1]:
            if not name.startswith("$"):
                assert (ROOT / name).exists(), name
    ignored = (DEPLOY / "Dockerfile.dockerignore").read_text().splitlines()
    assert ignored[0] == "**"
    assert {"!pyproject.toml", "!src", "!examples", "**/.env*"} <= {*ignored}
    assert (ROOT / "examples" / "support-agent" / "langgraph.json").is_file()


def test_no_password_lies_in_the_files():
    for path in (DEPLOY / "compose.yaml", *MANIFESTS):
        for password in re.findall(r"//\w+:([^@\s]+)@", path.read_text()):
            assert password == "change-me"
