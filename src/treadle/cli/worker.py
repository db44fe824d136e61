"""``treadle worker``."""

from __future__ import annotations

from contextlib import ExitStack, closing
from pathlib import Path

import click

from treadle.cli.options import config_option, database_option, enter, jobs_option, level_option
from treadle.cli.serving import serve_here
from treadle.cli.sockets import listen_at
from treadle.config import load_config


@click.command()
@config_option
@database_option
@jobs_option
@level_option
@click.option(
    "--health-host", default="127.0.0.1", show_default=True, help="Where to say how it is."
)
@click.option(
    "--health-port",
    envvar="HEALTH_PORT",
    type=click.IntRange(0, 65535),
    show_envvar=True,
    help="Answer /ok and /metrics at this port.  [default: nowhere]",
)
def worker(
    config_path: Path,
    database: str | None,
    n_jobs_per_worker: int | None,
    log_level: str | None,
    health_host: str,
    health_port: int | None,
) -> None:
    """Execute the runs that `treadle serve --api-only` and others accept (PostgreSQL).

    A worker takes the runs of the graphs that its config names, and leaves others alone.
    """
    config = load_config(config_path)
    settings = enter(
        config,
        {"LOG_JSON": "true"},
        database=database,
        n_jobs_per_worker=n_jobs_per_worker,
        log_level=log_level,
    )
    with ExitStack() as stack:
        sock = None
        if health_port is not None:
            sock = stack.enter_context(closing(listen_at(health_host, health_port)))
        serve_here(config, settings, sock, health_host, role="worker")
