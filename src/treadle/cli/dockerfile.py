"""``treadle dockerfile``: an image of a project, from what its ``langgraph.json`` says."""

from __future__ import annotations

import json
import os
import re
import shlex
from pathlib import Path
from typing import Any, NamedTuple, cast

import click

from treadle import __version__
from treadle.cli.options import config_option
from treadle.cli.sockets import DEFAULT_PORT
from treadle.config import JS_SUFFIXES, Config, load_config
from treadle.errors import StartupError

DEFAULT_PYTHON = "3.11"
DISTROS = {"debian": "slim", "bookworm": "slim-bookworm", "bullseye": "slim-bullseye"}
INSTALLERS = ("auto", "pip", "uv")
OTHER_SERVERS = re.compile(r"(docker\.io/)?langchain/langgraph")
USER = 10001
HEALTH = (
    "import os, urllib.request as r; "
    "r.urlopen('http://127.0.0.1:' + os.environ['PORT'] + '/ok', timeout=5)"
)
IGNORED = [".git", ".treadle", ".langgraph_api", ".venv", "venv", "**/__pycache__", "**/.env*"]


@click.command()
@click.argument("save_path", required=False, type=click.Path(dir_okay=False))
@config_option
@click.option("--base-image", metavar="IMAGE", help='Instead of the config\'s "base_image".')
@click.option(
    "--treadle",
    "requirement",
    metavar="REQUIREMENT",
    default=f"treadle=={__version__}",
    show_default=True,
    help="How Treadle is installed in the image.",
)
def dockerfile(
    save_path: str | None, config_path: Path, base_image: str | None, requirement: str
) -> None:
    """Write the Dockerfile of a project to SAVE_PATH, by default beside its config; "-" prints it.

    A .dockerignore is written too if there is none: it keeps variables and state out of the image.
    """
    config = load_config(config_path)
    image = Image(config, base_image, requirement)
    text = image.dockerfile()
    if save_path == "-":
        click.echo(text, nl=False)
        tell(image.warnings)
        return
    path = Path(save_path) if save_path else config.folder / "Dockerfile"
    try:
        path.write_text(text, encoding="utf-8")
        ignore = image.context / ".dockerignore"
        if ignore.exists():
            image.warn_of_variables(ignore.read_text(encoding="utf-8").split())
        else:
            ignore.write_text("".join(f"{entry}\n" for entry in image.ignored), encoding="utf-8")
    except OSError as error:
        raise StartupError(f"{error.filename} cannot be written: {error.strerror}.") from None
    tell(image.warnings)
    name, context = (shlex.quote(os.path.relpath(given)) for given in (path, image.context))
    click.echo(f"Wrote {name}. Build it with\n  docker build -t my-agent -f {name} {context}")


def tell(warnings: list[str]) -> None:
    for warning in warnings:
        click.echo(f"{click.style('warning', fg='yellow')} {warning}", err=True)


class Dependency(NamedTuple):
    """A local folder: where it is, and how it looks from the image."""

    folder: Path
    inside: str


class Image:
    """What goes into the image. Raises ``StartupError`` for what cannot be built so.

    ``context`` is the folder to build from: the config's own, or the one above it that holds all
    local dependencies too. The image has the same tree below ``/app``.
    """

    def __init__(self, config: Config, base_image: str | None, requirement: str) -> None:
        self.warnings: list[str] = []
        self._config = config
        self._requirement = self._plain("--treadle", requirement)
        folders = [path.resolve() for path in config.local_dependencies]
        for path in folders:
            if not path.is_dir():
                raise StartupError(f"The folder {path} in dependencies does not exist.")
        self.context = Path(os.path.commonpath(folders))
        if self.context == Path(self.context.anchor):
            raise StartupError(
                f"The folders {', '.join(map(str, folders))} have no folder in common to build"
                " an image from. Move the dependencies nearer to the config."
            )
        self._home = self._inside(config.folder.resolve())
        self._folders = [Dependency(path, self._inside(path)) for path in folders]
        local = [d for d in config.dependencies if d.startswith((".", "/"))]
        named = {(config.folder / dependency).resolve() for dependency in local}
        self._installed = [found for found in self._folders if found.folder in named]
        self._packages = [d for d in config.dependencies if not d.startswith((".", "/"))]
        self._refuse_javascript()
        self._python = self._python_version()
        self._distro = self._choice("image_distro", (*DISTROS, "wolfi"), "debian")
        self._base = self._base_image(base_image)
        self._pip_config = self._pip_config_file()
        self._installer = self._choose_installer()
        self._lines = self._dockerfile_lines()

    @property
    def ignored(self) -> list[str]:
        """What a build leaves out."""
        return IGNORED + ([env] if (env := self._env_file()) else [])

    def warn_of_variables(self, ignored: list[str]) -> None:
        """A file of variables that a user's own .dockerignore lets in."""
        env = self._env_file()
        if env and not {env, f"/{env}", "**/.env*", "**/.env", ".env*"} & {*ignored}:
            self.warnings.append(
                f"your .dockerignore does not name {env}: its variables would get into the image."
            )

    # -- what the config says --------------------------------------------------------------

    def _key(self, key: str, kind: type, wanted: str) -> Any:
        value = self._config.others.get(key)
        if value is not None and not isinstance(value, kind):
            raise self._wrong(key, value, wanted)
        return value

    def _wrong(self, key: str, value: object, wanted: str) -> StartupError:
        shown = json.dumps(value, ensure_ascii=False)
        return StartupError(f'"{key}" in {self._config.path} is {shown}: it has to be {wanted}.')

    def _plain(self, key: str, value: str) -> str:
        """``value`` if it stays one word of one line of a Dockerfile."""
        odd = value.startswith("-") or "<<" in value or not value.isprintable()
        if odd or not value.strip():
            raise StartupError(
                f'"{key}" in {self._config.path} is {json.dumps(value, ensure_ascii=False)}: it has'
                ' to be text of one line that does not begin with "-".'
            )
        return value

    def _path(self, key: str, value: str) -> str:
        """The same of a path, in which Docker must find nothing to replace."""
        if "$" in value or "\\" in value:
            raise self._wrong(key, value, "a path without $ and backslash")
        return self._plain(key, value)

    def _choice(self, key: str, choices: tuple[str, ...], default: str) -> str:
        value = self._key(key, str, f"one of {', '.join(choices)}") or default
        if value not in choices:
            raise self._wrong(key, value, f"one of {', '.join(choices)}")
        return value

    def _refuse_javascript(self) -> None:
        for spec in self._config.graphs:
            if Path(spec.location).suffix in JS_SUFFIXES:
                raise StartupError(
                    f'Graph "{spec.graph_id}": {spec.source} is JavaScript; Treadle serves graphs'
                    " in Python."
                )
        if self._config.others.get("node_version") is not None:
            self.warnings.append(
                '"node_version" has no effect: the image has no Node.js. If your graphs call it,'
                ' install it by "dockerfile_lines".'
            )

    def _python_version(self) -> str:
        value = self._key("python_version", str, "a string") or DEFAULT_PYTHON
        if not re.fullmatch(r"[0-9]+\.[0-9]+(\.[0-9]+)?", value):
            raise self._wrong("python_version", value, 'as in "3.12"')
        return value

    def _base_image(self, option: str | None) -> str:
        given = self._key("base_image", str, "the name of an image")
        if option is None and given is not None and OTHER_SERVERS.match(given):
            self.warnings.append(
                f'"base_image" {given} is of another server and is not used: name one with'
                " --base-image, or go by the default."
            )
            given = None
        base = option or given
        if base is None:
            if self._distro == "wolfi":
                return "cgr.dev/chainguard/wolfi-base"
            return f"python:{self._python}-{DISTROS[self._distro]}"
        if not re.fullmatch(r"[A-Za-z0-9][\w.\-/:@]*", base, re.ASCII):
            key = "--base-image" if option else "base_image"
            raise self._wrong(key, base, "the name of an image, as in python:3.12-slim")
        return base

    def _pip_config_file(self) -> str | None:
        value = self._key("pip_config_file", str, "the path of a file")
        if value is None:
            return None
        file = (self._config.folder / self._path("pip_config_file", value)).resolve()
        if (
            not file.is_file()
            or not file.is_relative_to(self.context)
            or re.search(r"[,\s]", value)
        ):
            raise self._wrong("pip_config_file", value, f"a file below {self.context}")
        return file.relative_to(self.context).as_posix()

    def _choose_installer(self) -> str:
        """uv where nothing says otherwise; pip's own configuration is read by pip alone."""
        chosen = self._choice("pip_installer", INSTALLERS, "auto")
        if chosen == "uv" and self._pip_config:
            raise self._wrong("pip_installer", chosen, '"pip": uv does not read "pip_config_file"')
        if chosen == "auto":
            return "pip" if self._pip_config else "uv"
        return chosen

    def _dockerfile_lines(self) -> list[str]:
        lines = cast("list[Any]", self._key("dockerfile_lines", list, "a list of strings") or [])
        if not all(isinstance(line, str) for line in lines):
            raise self._wrong("dockerfile_lines", lines, "a list of strings")
        return lines

    def _env_file(self) -> str | None:
        """The file of variables that the config names, as the context sees it."""
        data = json.loads(self._config.path.read_text(encoding="utf-8-sig"))
        if not isinstance(env := data.get("env"), str):
            return None
        file = (self._config.folder / self._path("env", env)).resolve()
        if not file.is_relative_to(self.context):
            raise self._wrong("env", env, f"a file below {self.context}")
        return file.relative_to(self.context).as_posix()

    def _inside(self, folder: Path) -> str:
        return (Path("/app") / self._relative(folder)).as_posix()

    def _relative(self, folder: Path) -> Path:
        relative = folder.relative_to(self.context)
        return Path(self._path("dependencies", str(relative)))

    def _from(self) -> str:
        """The folder to build from, as the config sees it."""
        return os.path.relpath(self.context, self._config.folder.resolve())

    # -- the text --------------------------------------------------------------------------

    def dockerfile(self) -> str:
        parts = [self._head(), self._lines, self._requirements(), self._project(), self._tail()]
        return "\n\n".join("\n".join(part) for part in parts if part) + "\n"

    def _head(self) -> list[str]:
        lines = [
            "# syntax=docker/dockerfile:1",
            f'# Made by treadle dockerfile {__version__}, to be built from "{self._from()}"',
            f"FROM {self._base}",
        ]
        if self._base.endswith("/wolfi-base"):
            version = ".".join(self._python.split(".")[:2])
            lines += [
                f"RUN apk add --no-cache python-{version} && python{version} -m venv /venv",
                'ENV VIRTUAL_ENV=/venv PATH="/venv/bin:$PATH"',
            ]
        return lines

    def _requirements(self) -> list[str]:
        """What seldom changes comes first: it is installed once for many builds."""
        lines = ["RUN python -m pip install --no-cache-dir uv"] if self._installer == "uv" else []
        lines += [self._install(self._requirement)]
        if self._packages:
            packages = [self._plain("dependencies", package) for package in self._packages]
            lines.append(self._install(*packages))
        for folder, inside in self._installed:
            if (folder / "requirements.txt").is_file() and not _is_package(folder):
                file = (self._relative(folder) / "requirements.txt").as_posix()
                lines.append(f"COPY {_words(file, f'{inside}/requirements.txt')}")
                lines.append(self._install("-r", f"{inside}/requirements.txt"))
        return lines

    def _project(self) -> list[str]:
        tops = [
            path
            for path, _ in self._folders
            if not any(path.is_relative_to(other) and path != other for other, _ in self._folders)
        ]
        lines = [
            f"COPY {_words(self._relative(path).as_posix(), self._inside(path))}" for path in tops
        ]
        for folder, inside in self._installed:
            if _is_package(folder):
                lines.append(self._install("-e", inside))
        if env := self._env_file():
            file = shlex.quote(f"/app/{env}")
            lines.append("# Variables are given to the container (--env-file), not put into it.")
            lines.append(f"RUN touch {file}")
        return lines

    def _tail(self) -> list[str]:
        config = f"{self._home}/{self._config.path.name}"
        serve = ["treadle", "serve", "--config", config]
        health = ["python", "-c", HEALTH]
        return [
            f"WORKDIR {self._home}",
            f"RUN mkdir -p /data && chown {USER}:{USER} /data",
            f"ENV HOST=0.0.0.0 PORT={DEFAULT_PORT} HOME=/data DATABASE_URI=sqlite:////data/treadle.db",
            "VOLUME /data",
            f"USER {USER}:{USER}",
            f"EXPOSE {DEFAULT_PORT}",
            "STOPSIGNAL SIGTERM",
            f"HEALTHCHECK --interval=15s --timeout=6s --start-period=60s CMD {json.dumps(health)}",
            f"CMD {json.dumps(serve)}",
        ]

    def _install(self, *what: str) -> str:
        words = " ".join(map(shlex.quote, what))
        if self._installer == "uv":
            system = "" if self._base.endswith("/wolfi-base") else " --system"
            return f"RUN uv pip install --no-cache{system} {words}"
        mount = ""
        if self._pip_config:
            place = f"source={self._pip_config},target=/pip.conf"
            mount = f"--mount=type=bind,{place} PIP_CONFIG_FILE=/pip.conf "
        return f"RUN {mount}python -m pip install --no-cache-dir {words}"


def _is_package(folder: Path) -> bool:
    """Whether a folder is installed, and not merely put on the path."""
    return any((folder / name).is_file() for name in ("pyproject.toml", "setup.py"))


def _words(*paths: str) -> str:
    """Paths as COPY takes them, whatever is in them."""
    return json.dumps([*paths], ensure_ascii=False)
