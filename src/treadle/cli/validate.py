"""``treadle validate``."""

from __future__ import annotations

from pathlib import Path

import click

from treadle.cli.options import config_option
from treadle.config import load_config


@click.command()
@config_option
def validate(config_path: Path) -> None:
    """Check a project's config alone: nothing is imported, so it is quick and needs no packages."""
    config = load_config(config_path)
    for warning in config.warnings:
        click.echo(f"{click.style('warning', fg='yellow')} {warning}", err=True)
    count = len(config.graphs)
    graphs = f"{count} graph{'s' if count != 1 else ''} found"
    click.echo(f"Configuration file {config.path} is valid. ({graphs})")
