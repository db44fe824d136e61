"""Run the server in this process: what ``dev`` and ``serve`` have in common."""

from __future__ import annotations

import gc
import os
import signal
import socket
import sys
import tempfile
import threading
import webbrowser
from contextlib import ExitStack
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

import click
import msgspec

from treadle import __version__, variables
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
    tls: tuple[Path, Path] | None = None,
) -> None:
    """Serve until a signal says stop. Raises ``StartupError`` if it cannot start.

    ``notes`` are lines for the banner, which is shown as soon as requests are answered. Only a
    worker may have no ``sock``.
    """
    if role != "all":
        need_postgres(settings, "A worker" if role == "worker" else "--api-only")
    with ExitStack() as stack:
        if config.keeps_nothing and settings.database_uri is None:
            signal.signal(signal.SIGTERM, _leave)
            folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="treadle-"))
            settings = msgspec.structs.replace(
                settings, database_uri=f"sqlite:///{folder}/treadle.db"
            )
            notes = (*notes, "Nothing is kept: disable_persistence is set.")
        elif not settings.is_postgres:
            make_state_folder(settings.database_path(config.folder))
        _serve(config, settings, sock, host, browser, notes, role, tls)


def _serve(
    config: Config,
    settings: Settings,
    sock: socket.socket | None,
    host: str,
    browser: bool,
    notes: tuple[str, ...],
    role: Role,
    tls: tuple[Path, Path] | None,
) -> None:
    gc.disable()
    from treadle import logs

    log = logs.configure(settings)
    from treadle import serving  # what its libraries warn of is logged

    port = 0 if sock is None else port_of(sock)
    scheme = "http" if tls is None else "https"
    url = "" if sock is None else url_of(host, port, scheme) + settings.mount_prefix

    def on_ready() -> None:
        # What start-up made stays: no collection need look at it again.
        gc.freeze()
        gc.enable()
        warnings = (
            *auth_warnings(config, settings, host, role),
            *config.warnings,
            *variables.warnings(os.environ),
        )
        announce(config, settings, url, log, notes, warnings)
        if browser:
            threading.Thread(target=webbrowser.open, args=[f"{url}/docs"], daemon=True).start()

    serving.run(
        config,
        settings,
        host=host,
        port=port,
        sock=sock,
        log=log,
        on_ready=on_ready,
        role=role,
        tls=tls,
    )


def _leave(number: int, frame: FrameType | None) -> None:
    """End by way of what is to be cleaned up; the signal itself would end the process at once."""
    sys.exit(0)


def need_postgres(settings: Settings, what: str) -> None:
    """Raise ``StartupError`` if only one process can have the database."""
    if not settings.is_postgres:
        raise StartupError(
            f"{what} needs PostgreSQL: an SQLite file serves one process alone. Set"
            " DATABASE_URI=postgresql://user@host/database, or run one `treadle serve`."
        )


def auth_warnings(config: Config, settings: Settings, host: str, role: Role) -> tuple[str, ...]:
    """What whoever starts a server has to know of who is let in."""
    from treadle.auth.keys import KeyRing
    from treadle.auth.rules import AuthRules

    if role == "worker":
        return ()
    rules = AuthRules.read(config.auth, os.environ)
    asks = rules.path is not None or KeyRing.read(os.environ, config.folder) is not None
    if not asks:
        if is_loopback(host):
            return ()
        return (
            f"ANYONE who can reach {host} may read, change and run everything: no authentication"
            " is set up. Give out API keys (`treadle keys new NAME`), or name auth.path in"
            " langgraph.json",
        )
    if rules.disable_studio_auth:
        return ()
    if settings.development:
        return ('"auth.disable_studio_auth" is false: whoever says to be Studio is let in',)
    return ('"auth.disable_studio_auth" is false, which is for `treadle dev` alone: Studio is not'
            " let in",)  # fmt: skip


def announce(
    config: Config,
    settings: Settings,
    url: str,
    log: Any,
    notes: tuple[str, ...] = (),
    warnings: tuple[str, ...] = (),
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
        for warning in warnings:
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
    lines += [f"  {click.style('warning', fg='yellow')}   {text}" for text in warnings]
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
