"""``treadle version``."""

from __future__ import annotations

import platform
from importlib.metadata import version as version_of

import click

from treadle import __version__


@click.command()
def version() -> None:
    """Print the versions of Treadle, langgraph and Python."""
    click.echo(f"treadle {__version__}")
    click.echo(f"langgraph {version_of('langgraph')}")
    click.echo(f"python {platform.python_version()}")
