"""Run the server in this process: what ``dev`` and ``serve`` have in common."""

from __future__ import annotations

import gc
import os
import socket
import sys
import threading
import webbrowser
from typing import TYPE_CHECKING, Any

import click

from treadle import __version__
from treadle.cli.sockets import is_loopback, port_of, url_of
from treadle.config import Config
from treadle.errors import StartupError
from treadle.settings import Settings, make_state_folder

if TYPE_CHECKING:
    from treadle.server import Role


def serve_here(
    config: Config,
    settings: Settings,
    sock: socket.socket | None,
    host: str,
    *,
    browser: bool = False,
    notes: tuple[str, ...] = (),
    role: Role = "all",
) -> None:
    """Serve until a signal says stop. Raises ``StartupError`` if it cannot start.

    ``notes`` are lines for the banner, which is shown as soon as requests are answered. Only a
    worker may have no ``sock``.
    """
    if role != "all":
        need_postgres(settings, "A worker" if role == "worker" else "--api-only")
    if config.auth is not None and not is_loopback(host):
        raise StartupError(
            f'{config.path} has "auth", which is not yet in effect: every caller would be let '
            f"in, and {host} can be reached from other machines. Serve on 127.0.0.1 behind a "
            'proxy that authenticates, or take "auth" out.'
        )
    if not settings.is_postgres:
        make_state_folder(settings.database_path(config.folder))
    gc.disable()
    from treadle import logs, server

    log = logs.configure(settings)
    port = 0 if sock is None else port_of(sock)
    url = "" if sock is None else url_of(host, port) + settings.mount_prefix

    def on_ready() -> None:
        # What start-up made stays: no collection need look at it again.
        gc.freeze()
        gc.enable()
        announce(config, settings, url, log, notes)
        if browser:
            threading.Thread(target=webbrowser.open, args=[f"{url}/docs"], daemon=True).start()

    server.run(
        config,
        settings,
        host=host,
        port=port,
        sock=sock,
        log=log,
        on_ready=on_ready,
        role=role,
    )


def need_postgres(settings: Settings, what: str) -> None:
    """Raise ``StartupError`` if only one process can have the database."""
    if not settings.is_postgres:
        raise StartupError(
            f"{what} needs PostgreSQL: an SQLite file serves one process alone. Set"
            " DATABASE_URI=postgresql://user@host/database, or run one `treadle serve`."
        )


def announce(
    config: Config, settings: Settings, url: str, log: Any, notes: tuple[str, ...] = ()
) -> None:
    """Say on stderr where the server is, what it serves, and what it does not do."""
    database = _short(database_name(config, settings))
    graphs = [spec.graph_id for spec in config.graphs]
    if settings.log_json or settings.log_level not in ("DEBUG", "INFO"):
        log.info(
            f"Treadle {__version__} serves {url}" if url else f"Treadle {__version__} works",
            api=url,
            docs=f"{url}/docs",
            database=database,
            graphs=graphs,
            notes=list(notes),
        )
        for warning in config.warnings:
            log.warning(warning)
        return
    rows = [
        *([("API", url), ("Docs", f"{url}/docs")] if url else []),
        ("Database", database),
        ("Graphs", ", ".join(graphs)),
    ]
    colour = settings.log_color if settings.log_color is not None else sys.stderr.isatty()
    lines = [click.style(f"Treadle {__version__}", fg="green", bold=True)]
    lines += [f"  {click.style(f'{name:<9}', dim=True)} {value}" for name, value in rows]
    lines += [f"  {note}" for note in notes]
    lines += [f"  {click.style('warning', fg='yellow')}   {text}" for text in config.warnings]
    click.echo("\n".join(["", *lines, ""]), err=True, color=colour)


def database_name(config: Config, settings: Settings) -> str:
    """The database for people: a path, or a URI without its password."""
    if settings.is_postgres:
        from treadle.database.postgres_link import shown

        return shown(str(settings.database_uri))
    return str(settings.database_path(config.folder))


def can_open_browser() -> bool:
    """Whether someone sits at this machine to see a browser window."""
    if os.environ.get("CI") or not sys.stderr.isatty() or "SSH_CONNECTION" in os.environ:
        return False
    display = os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")
    return sys.platform in ("darwin", "win32") or bool(display)


def _short(path: str) -> str:
    if "://" in path:
        return path
    relative = os.path.relpath(path)
    return path if relative.startswith("..") else relative
