"""``treadle dev``."""

from __future__ import annotations

import socket
import sys
from contextlib import closing
from pathlib import Path

import click
import msgspec

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
from treadle.cli.sockets import DEFAULT_PORT, listen_at, listen_from, port_of
from treadle.config import Config, load_config
from treadle.errors import StartupError
from treadle.settings import Settings

GRACE_SECONDS = 2.0
"""How long a stop or a reload waits for runs, unless BG_JOB_SHUTDOWN_GRACE_PERIOD_SECS says
otherwise: a run that is cut off is taken up again by the next start."""


@click.command()
@click.option("--host", default="127.0.0.1", show_default=True, help="Where to listen.")
@click.option(
    "--port", type=click.IntRange(0, 65535), help="[default: 2024, or the next one that is free]"
)
@config_option
@database_option
@click.option("--no-reload", is_flag=True, help="Do not restart when the code changes.")
@click.option("--no-browser", is_flag=True, help="Do not open the API reference in a browser.")
@jobs_option
@click.option("--allow-blocking", is_flag=True, help="Do not warn of code that blocks the loop.")
@click.option("--debug-port", type=click.IntRange(1, 65535), help="Let debugpy listen there.")
@click.option("--wait-for-client", is_flag=True, help="Start once a debugger is attached.")
@click.option("--studio-url", metavar="URL", help="A Studio to print a link to.")
@level_option
@certfile_option
@keyfile_option
@click.option("--tunnel", is_flag=True, hidden=True)
@click.option("--inherited", type=int, hidden=True, help="The socket's file descriptor.")
@click.option("--alive", type=int, hidden=True, help="A pipe that closes when the parent ends.")
def dev(
    host: str,
    port: int | None,
    config_path: Path,
    database: str | None,
    no_reload: bool,
    no_browser: bool,
    n_jobs_per_worker: int | None,
    allow_blocking: bool,
    debug_port: int | None,
    wait_for_client: bool,
    studio_url: str | None,
    log_level: str | None,
    certfile: Path | None,
    keyfile: Path | None,
    tunnel: bool,
    inherited: int | None,
    alive: int | None,
) -> None:
    """Serve the graphs of a project while you work on it: a change of code restarts the server."""
    if wait_for_client and debug_port is None:
        raise click.UsageError("--wait-for-client needs --debug-port.")
    if tunnel:
        raise click.UsageError(
            "--tunnel is not supported: it would make the server reachable through somebody"
            " else's. Use --ssl-certfile and --ssl-keyfile, or a tunnel of your own."
        )
    tls = tls_files(certfile, keyfile)
    config = load_config(config_path)
    with closing(_socket(host, port, inherited)) as sock:
        if not no_reload and sys.platform != "win32":
            from treadle.cli.supervisor import Supervisor

            sys.exit(Supervisor(sock, sys.argv[1:], config, browser=not no_browser).run())
        settings = enter(
            config,
            {"BG_JOB_SHUTDOWN_GRACE_PERIOD_SECS": str(GRACE_SECONDS)},
            database=database,
            n_jobs_per_worker=n_jobs_per_worker,
            log_level=log_level,
            allow_blocking=allow_blocking or None,
            development=True,
        )
        settings, database_notes = _own_database(config, settings)
        if debug_port is not None:
            _debug(host, debug_port, wait_for_client)
        from treadle.cli.serving import can_open_browser, serve_here

        if alive is not None:
            from treadle.cli.supervisor import end_with_parent

            end_with_parent(alive)
        serve_here(
            config,
            settings,
            sock,
            host,
            browser=not no_browser and can_open_browser(),
            notes=(*_notes(port, sock, studio_url), *database_notes),
            tls=tls,
        )


def _socket(host: str, port: int | None, inherited: int | None) -> socket.socket:
    if inherited is not None:
        return socket.socket(fileno=inherited)
    return listen_from(host) if port is None else listen_at(host, port)


def _own_database(config: Config, settings: Settings) -> tuple[Settings, tuple[str, ...]]:
    """Beside another server of the project: a database that it doesn't use, said clearly."""
    if settings.database_uri is not None or config.keeps_nothing:
        return settings, ()
    from treadle.database.sqlite import free_database

    usual = settings.database_path(config.folder)
    free = free_database(usual)
    if free == usual:
        return settings, ()
    note = f"Another server uses {usual.name}: this one keeps its data in {free.name}."
    return msgspec.structs.replace(settings, database_uri=f"sqlite:///{free}"), (note,)


def _debug(host: str, port: int, wait_for_client: bool) -> None:
    try:
        import debugpy  # pyright: ignore[reportMissingImports]
    except ImportError:
        raise StartupError("--debug-port needs debugpy: pip install debugpy") from None
    debugpy.listen((host, port))
    click.echo(f"debugpy listens at {host}:{port}", err=True)
    if wait_for_client:
        click.echo("Waiting for a debugger to attach", err=True)
        debugpy.wait_for_client()


def _notes(port: int | None, sock: socket.socket, studio_url: str | None) -> tuple[str, ...]:
    notes: list[str] = []
    if port is None and port_of(sock) != DEFAULT_PORT:
        notes.append(f"Port {DEFAULT_PORT} is taken: this is port {port_of(sock)}.")
    if studio_url:
        notes.append(f"Studio    {studio_url}")
    return tuple(notes)
