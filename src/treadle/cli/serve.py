"""``treadle serve``."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import click

from treadle.cli.options import config_option, database_option, enter, jobs_option, level_option
from treadle.cli.serving import serve_here
from treadle.cli.sockets import DEFAULT_PORT, listen_at
from treadle.config import load_config


@click.command()
@click.option("--host", envvar="HOST", default="127.0.0.1", show_default=True, show_envvar=True)
@click.option(
    "--port",
    envvar="PORT",
    type=click.IntRange(0, 65535),
    default=DEFAULT_PORT,
    show_default=True,
    show_envvar=True,
)
@config_option
@database_option
@jobs_option
@level_option
def serve(
    host: str,
    port: int,
    config_path: Path,
    database: str | None,
    n_jobs_per_worker: int | None,
    log_level: str | None,
) -> None:
    """Serve the graphs of a project: no reload, no browser, logs as JSON (LOG_JSON=false: text)."""
    config = load_config(config_path)
    settings = enter(
        config,
        {"LOG_JSON": "true"},
        database=database,
        n_jobs_per_worker=n_jobs_per_worker,
        log_level=log_level,
    )
    with closing(listen_at(host, port)) as sock:
        serve_here(config, settings, sock, host)
