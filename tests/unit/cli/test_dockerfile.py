"""``treadle dockerfile``: what it writes, and that the steps of it work."""

from __future__ import annotations

import io
import json
import os
import shutil
import socket
import subprocess
import sys
import sysconfig
import time
import venv
from pathlib import Path
from typing import Any

import httpx
import pytest
from dockerfile_parse import DockerfileParser

from treadle import __version__

GOLDEN = Path(__file__).with_name("dockerfiles")
PATIENCE_SECONDS = 60


def write(path: Path, text: str = "") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


@pytest.fixture
def printed(treadle, project):
    """``printed(key=value)``: the Dockerfile of a project with this config."""

    def printed(*options: str, **keys: Any) -> str:
        result = treadle("dockerfile", "-", "--config", project(**keys), *options)
        assert result.exit_code == 0, result.output
        return result.stdout

    return printed


@pytest.fixture
def refused(treadle, project):
    """``refused(key=value)``: the message for a config of which there is no Dockerfile."""

    def refused(*options: str, **keys: Any) -> str:
        result = treadle("dockerfile", "-", "--config", project(**keys), *options)
        assert result.exit_code == 1, result.output
        return result.output

    return refused


def golden(name: str, text: str) -> None:
    """``text`` is what the file says; UPDATE_GOLDEN=1 writes it."""
    path, text = GOLDEN / f"{name}.Dockerfile", text.replace(__version__, "VERSION")
    if os.environ.get("UPDATE_GOLDEN"):
        write(path, text)
    assert path.read_text() == text


def test_the_least(printed):
    golden("least", printed())


def test_everything(printed, tmp_path):
    write(tmp_path / "lib" / "requirements.txt", "idna\n")
    write(tmp_path / "pack age" / "pyproject.toml")
    write(tmp_path / ".env", "KEY=secret\n")
    write(tmp_path / "pip.conf")
    text = printed(
        python_version="3.13",
        image_distro="bookworm",
        pip_config_file="./pip.conf",
        dependencies=[".", "./lib", "./pack age", "langchain-openai>=1", "httpx[http2]; 1 > 0"],
        dockerfile_lines=["RUN apt-get update", "ENV A=1"],
        env="./.env",
    )
    golden("everything", text)
    assert "secret" not in text


def test_wolfi(printed):
    golden("wolfi", printed(image_distro="wolfi", python_version="3.12", pip_installer="uv"))


def test_dependencies_beside_the_config(treadle, tmp_path):
    write(tmp_path / "shared" / "setup.py")
    write(tmp_path / "apps" / "agent" / "agent.py")
    config = tmp_path / "apps" / "agent" / "langgraph.json"
    write(
        config, json.dumps({"dependencies": [".", "../../shared"], "graphs": {"a": "./agent.py:g"}})
    )
    result = treadle("dockerfile", "-", "--config", config, "--base-image", "ghcr.io/me/base:1")
    golden("monorepo", result.stdout)


def test_it_is_written_beside_the_config(treadle, project, tmp_path):
    result = treadle("dockerfile", "--config", project())
    assert result.exit_code == 0
    assert "docker build -t my-agent -f " in result.output
    assert "FROM python:3.11-slim" in (tmp_path / "Dockerfile").read_text()
    ignored = (tmp_path / ".dockerignore").read_text().splitlines()
    assert {"**/.env*", ".treadle", ".git"} <= {*ignored}


def test_a_dockerignore_that_is_there_stays(treadle, project, tmp_path):
    write(tmp_path / ".dockerignore", "mine\n")
    result = treadle("dockerfile", tmp_path / "My.Dockerfile", "--config", project())
    assert result.exit_code == 0
    assert (tmp_path / "My.Dockerfile").exists()
    assert (tmp_path / ".dockerignore").read_text() == "mine\n"


def test_a_file_of_variables_that_would_get_into_the_image_is_warned_of(treadle, project, tmp_path):
    write(tmp_path / ".dockerignore", "mine\n")
    write(tmp_path / "keys.env", "KEY=secret\n")
    result = treadle("dockerfile", "--config", project(env="keys.env"))
    assert "keys.env" in result.stderr
    write(tmp_path / ".dockerignore", "keys.env\n")
    assert "keys.env" not in treadle("dockerfile", "--config", project(env="keys.env")).stderr


def test_what_cannot_be_written_is_one_message(treadle, project, tmp_path):
    result = treadle("dockerfile", tmp_path / "no" / "Dockerfile", "--config", project())
    assert result.exit_code == 1
    assert "cannot be written" in result.output


@pytest.mark.parametrize(
    ("installer", "word"), [("auto", "uv pip install"), ("uv", "uv pip"), ("pip", "-m pip install")]
)
def test_the_installer(printed, installer, word):
    assert f"{word} " in printed(pip_installer=installer, dependencies=[".", "idna"])


def test_an_image_of_another_server_is_not_used(treadle, project):
    path = project(base_image="langchain/langgraph-api:0.2", node_version="20")
    result = treadle("dockerfile", "-", "--config", path)
    assert "FROM python:3.11-slim\n" in result.stdout
    assert "langchain/langgraph-api" in result.stderr
    assert "node_version" in result.stderr


def test_treadle_is_installed_as_one_says(printed):
    assert "'treadle @ git+https://x.org/t'" in printed(
        "--treadle", "treadle @ git+https://x.org/t"
    )


INJECTED = [
    {"base_image": "a\nRUN evil"},
    {"base_image": "a b"},
    {"base_image": 5},
    {"python_version": "3.12\nRUN evil"},
    {"python_version": "3.12-alpine"},
    {"image_distro": "slim\nRUN evil"},
    {"pip_installer": "conda"},
    {"dependencies": ["x\nRUN evil"]},
    {"dependencies": ["--index-url=https://evil"]},
    {"dependencies": ["x <<EOF"]},
    {"dependencies": [""]},
    {"dependencies": ["./none"]},
    {"dependencies": ["./a$HOME"]},
    {"dockerfile_lines": "RUN x"},
    {"dockerfile_lines": [5]},
    {"pip_config_file": "none.conf"},
    {"pip_config_file": "pip.conf", "pip_installer": "uv"},
    {"graphs": {"a": "./agent.ts:graph"}},
]


@pytest.mark.parametrize("keys", INJECTED, ids=repr)
def test_what_does_not_belong_into_a_dockerfile_is_refused_by_name(refused, tmp_path, keys):
    write(tmp_path / "pip.conf")
    write(tmp_path / "a$HOME" / "x.py")
    message = refused(**keys)
    assert any(key.split("_")[-1] in message for key in (*keys, "Graph"))
    assert "Traceback" not in message


@pytest.mark.parametrize("option", ["--base-image", "--treadle"])
def test_what_does_not_belong_into_it_is_refused_of_options(refused, option):
    assert option in refused(option, "x\nRUN evil")


def test_shell_words_stay_words(printed):
    text = printed(dependencies=[".", "x; touch /evil", "y`touch /evil`", "z'"])
    [line] = [line for line in text.splitlines() if "evil" in line]
    words = subprocess.run(
        ["sh", "-c", line.removeprefix("RUN ").replace("uv pip", "printf '%s\\n'", 1)],
        capture_output=True, text=True, check=True,
    ).stdout.splitlines()  # fmt: skip
    assert words[-3:] == ["x; touch /evil", "y`touch /evil`", "z'"]
    assert not Path("/evil").exists()


# -- the steps, taken one by one in a folder instead of an image ------------------------------

BACKEND = """
import pathlib, zipfile

def _wheel(folder, files):
    name = "tiny-1.0-py3-none-any.whl"
    meta = "tiny-1.0.dist-info/"
    with zipfile.ZipFile(pathlib.Path(folder) / name, "w") as wheel:
        for path, text in files.items():
            wheel.writestr(path, text)
        wheel.writestr(meta + "METADATA", "Metadata-Version: 2.1\\nName: tiny\\nVersion: 1.0\\n")
        wheel.writestr(meta + "WHEEL",
                       "Wheel-Version: 1.0\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n")
        wheel.writestr(meta + "RECORD", "")
    return name

def build_wheel(folder, config_settings=None, metadata_directory=None):
    return _wheel(folder, {"tiny.py": pathlib.Path("src/tiny.py").read_text()})

def build_editable(folder, config_settings=None, metadata_directory=None):
    return _wheel(folder, {"tiny.pth": str(pathlib.Path("src").absolute())})
"""


class Steps:
    """Takes the steps of a Dockerfile: the image is a folder, its Python a virtual environment."""

    def __init__(self, root: Path, context: Path) -> None:
        self.root, self.context = root, context
        builder = venv.EnvBuilder(with_pip=True, symlinks=True)
        builder.create(root / "venv")
        # What the registry would give is what is installed here.
        [site] = (root / "venv").glob("lib/*/site-packages")
        host = sysconfig.get_path("purelib")
        (site / "host.pth").write_text(f"import site; site.addsitedir({host!r})\n")
        bins = [str(root / "venv" / "bin"), str(Path(sys.executable).parent), os.environ["PATH"]]
        self.environ = {"PATH": ":".join(bins), "PIP_NO_INDEX": "1", "LOG_JSON": "false"}
        self.folder = root

    def place(self, path: str) -> Path:
        return self.root / path.lstrip("/") if path.startswith("/") else self.folder / path

    def moved(self, text: str) -> str:
        """The same with the image's folders where they are here."""
        for name in ("/app", "/data", "/pip.conf"):
            text = text.replace(name, f"{self.root}{name}")
        return text

    def take(self, instruction: str, value: str) -> None:
        if instruction == "COPY":
            source, target = json.loads(value)
            origin, place = self.context / source, self.place(target)
            if origin.is_dir():
                shutil.copytree(origin, place, dirs_exist_ok=True)
            else:
                place.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(origin, place)
        elif instruction == "RUN":
            command = self.moved(value).replace("chown 10001:10001", "chown $(id -u):$(id -g)")
            done = subprocess.run(
                ["sh", "-c", command],
                env=self.environ,
                cwd=self.folder,
                capture_output=True,
                text=True,
            )
            assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
        elif instruction == "WORKDIR":
            self.folder = self.place(value)
        elif instruction == "ENV":
            self.environ |= dict(pair.split("=", 1) for pair in self.moved(value).split())


def test_the_steps_make_a_server(treadle, project, tmp_path, tmp_path_factory):
    code = (tmp_path / "agent.py").read_text()
    (tmp_path / "agent.py").write_text(f"import tiny, helper\nassert tiny.SIZE == 1\n{code}")
    write(tmp_path / "lib" / "helper.py")
    write(tmp_path / "lib" / "requirements.txt", "httpx\n")
    write(tmp_path / "pkg" / "pyproject.toml", '[build-system]\nrequires = []\n'
          'build-backend = "backend"\nbackend-path = ["."]\n')  # fmt: skip
    write(tmp_path / "pkg" / "backend.py", BACKEND)
    write(tmp_path / "pkg" / "src" / "tiny.py", "SIZE = 1\n")
    write(tmp_path / ".env", "KEY=secret\n")
    path = project(dependencies=[".", "./lib", "./pkg", "idna"], pip_installer="pip", env=".env")
    text = treadle("dockerfile", "-", "--config", path).stdout
    (tmp_path / ".env").unlink()  # as .dockerignore has it
    steps = Steps(tmp_path_factory.mktemp("image"), tmp_path)
    structure = DockerfileParser(fileobj=io.BytesIO(text.encode())).structure
    for step in structure:
        steps.take(step["instruction"], step["value"])
    values = {step["instruction"]: step["value"] for step in structure}
    program, *arguments = json.loads(values["CMD"])
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port = sock.getsockname()[1]
    environ = {**steps.environ, "PORT": str(port), "HOST": "127.0.0.1"}
    log = (tmp_path / "log").open("wb")
    assert program == "treadle"
    command = ["python", "-m", program, *(steps.moved(word) for word in arguments)]
    server = subprocess.Popen(command, env=environ, cwd=steps.folder, stderr=log)
    try:
        probe = json.loads(values["HEALTHCHECK"].partition("CMD ")[2])
        deadline = time.monotonic() + PATIENCE_SECONDS
        while subprocess.run(probe, env=environ, capture_output=True).returncode != 0:
            assert server.poll() is None, (tmp_path / "log").read_text()
            assert time.monotonic() < deadline
        asked = {"assistant_id": "agent", "input": {"messages": []}}
        answer = httpx.post(f"http://127.0.0.1:{port}/runs/wait", json=asked, timeout=30)
        assert answer.json()["messages"][-1]["content"] == "Hello!"
        assert (steps.root / "data" / "treadle.db").exists()
        server.terminate()
        assert server.wait(PATIENCE_SECONDS) in (0, -15)
    finally:
        server.kill()
        server.wait()
        log.close()
