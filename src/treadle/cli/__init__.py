"""The command line: ``treadle dev``, ``serve``, ``worker``, ``check``, ``keys``, ``db`` and others.

Each command has a module, imported when it is called, so that ``treadle --help`` and the
process that watches for changes stay light.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
from typing import IO, Any

import click

from treadle import __version__
from treadle.errors import StartupError

COMMANDS = {
    "dev": "Serve the graphs of a project while you work on it.",
    "serve": "Serve the graphs of a project.",
    "worker": "Execute the runs that other processes accept.",
    "check": "Check a project: its config, and that every graph loads.",
    "validate": "Check a project's config alone: nothing is imported.",
    "new": "Begin a project.",
    "chat": "Talk to an agent of a running server.",
    "keys": "Make, list and revoke API keys.",
    "db": "Look after the database: upgrade, status, vacuum, copy.",
    "dockerfile": "Write the Dockerfile of a project.",
    "version": "Print the versions of Treadle, langgraph and Python.",
}

ABSENT = {
    "up": "`treadle dockerfile` writes what Docker needs, `docker compose up` starts it",
    "build": "`treadle dockerfile Dockerfile && docker build .` makes the image",
    "deploy": "Treadle runs where you run it: see docs/deployment.md",
}
"""Commands that users of other servers know, and what does the same."""


class Commands(click.Group):
    """The commands by name; a ``StartupError`` ends any of them with one message."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name in ABSENT:
            ctx.fail(f"There is no `treadle {cmd_name}`: {ABSENT[cmd_name]}.")
        if cmd_name not in COMMANDS:
            return None
        return getattr(importlib.import_module(f"treadle.cli.{cmd_name}"), cmd_name)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except StartupError as error:
            raise Failure(str(error).rstrip()) from error
        except click.UsageError as error:
            if not wants_json_logs():
                raise
            raise UsageFailure(error.format_message()) from error


class Failure(click.ClickException):
    """``Error: message`` and exit code 1; with LOG_JSON the line is JSON like all others."""

    def show(self, file: IO[Any] | None = None) -> None:
        if wants_json_logs():
            line = {"event": self.message, "level": "error", "logger": "treadle"}
            print(json.dumps(line), file=sys.stderr)
        else:
            click.echo(f"{click.style('Error:', fg='red', bold=True)} {self.message}", err=True)


class UsageFailure(Failure):
    """The same for a command that was called wrongly."""

    exit_code = click.UsageError.exit_code


def wants_json_logs() -> bool:
    """Whether LOG_JSON asks for JSON, before (or without) the settings being read."""
    return os.environ.get("LOG_JSON", "").lower() in ("true", "1", "yes", "on")


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, "--version", prog_name="treadle")
def main() -> None:
    """Treadle serves LangGraph graphs over the Agent Server API."""
