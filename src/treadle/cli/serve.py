"""``treadle serve``."""

from __future__ import annotations

import socket
import sys
from contextlib import closing
from pathlib import Path

import click

from treadle.cli.options import (
    certfile_option,
    config_option,
    database_option,
    enter,
    jobs_option,
    keyfile_option,
    level_option,
    tls_files,
)
from treadle.cli.serving import need_postgres, serve_here
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
@certfile_option
@keyfile_option
@click.option("--api-only", is_flag=True, help="Leave runs to `treadle worker` (PostgreSQL).")
@click.option(
    "--processes",
    type=click.IntRange(1, 256),
    default=1,
    show_default=True,
    help="How many processes serve at the port (PostgreSQL).",
)
@click.option("--inherited", type=int, hidden=True, help="The socket's file descriptor.")
@click.option("--alive", type=int, hidden=True, help="A pipe that closes when the parent ends.")
def serve(
    host: str,
    port: int,
    config_path: Path,
    database: str | None,
    n_jobs_per_worker: int | None,
    log_level: str | None,
    certfile: Path | None,
    keyfile: Path | None,
    api_only: bool,
    processes: int,
    inherited: int | None,
    alive: int | None,
) -> None:
    """Serve the graphs of a project: no reload, no browser, logs as JSON (LOG_JSON=false: text)."""
    tls = tls_files(certfile, keyfile)
    config = load_config(config_path)
    settings = enter(
        config,
        {"LOG_JSON": "true"},
        database=database,
        n_jobs_per_worker=n_jobs_per_worker,
        log_level=log_level,
    )
    sock = socket.socket(fileno=inherited) if inherited is not None else listen_at(host, port)
    with closing(sock):
        if processes > 1 and inherited is None:
            need_postgres(settings, f"--processes {processes}")
            from treadle.cli.processes import Processes

            sys.exit(Processes(sock, sys.argv[1:], processes).run())
        if alive is not None:
            from treadle.cli.supervisor import end_with_parent

            end_with_parent(alive)
        serve_here(config, settings, sock, host, role="api" if api_only else "all", tls=tls)
