"""What ``dev``, ``serve`` and ``check`` share: their options, and what becomes of them."""

from __future__ import annotations

import os
import ssl
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click
import msgspec

from treadle.config import Config
from treadle.errors import StartupError
from treadle.settings import LOG_LEVELS, Settings, parse_database_uri, without_password

config_option = click.option(
    "-c",
    "--config",
    "config_path",
    type=click.Path(path_type=Path),
    default=Path("langgraph.json"),
    show_default=True,
    help="The project's config file.",
)
database_option = click.option(
    "--db",
    "database",
    metavar="PATH",
    help="The database: a file, or sqlite:///path, or postgresql://user@host/database.  "
    "[default: .treadle/treadle.db beside the config]",
)
jobs_option = click.option(
    "--n-jobs-per-worker",
    "n_jobs_per_worker",
    type=click.IntRange(1),
    help="How many runs execute at a time.  [default: 256]",
)
level_option = click.option(
    "--server-log-level",
    "log_level",
    type=click.Choice(LOG_LEVELS, case_sensitive=False),
    help="What is logged.  [default: INFO]",
)

certfile_option = click.option(
    "--ssl-certfile",
    "certfile",
    type=click.Path(path_type=Path),
    help="Serve HTTPS with this certificate; needs --ssl-keyfile.",
)
keyfile_option = click.option(
    "--ssl-keyfile",
    "keyfile",
    type=click.Path(path_type=Path),
    help="The key of the certificate.",
)


def tls_files(certfile: Path | None, keyfile: Path | None) -> tuple[Path, Path] | None:
    """The certificate and its key, if HTTPS is wanted. Raises ``StartupError`` if it cannot be."""
    if certfile is None and keyfile is None:
        return None
    if certfile is None or keyfile is None:
        raise click.UsageError("--ssl-certfile and --ssl-keyfile need each other.")
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(certfile, keyfile)
    except (OSError, ssl.SSLError) as error:
        raise StartupError(
            f"HTTPS cannot be served with the certificate {certfile} and the key {keyfile}:"
            f" {error.strerror or error}."
        ) from None
    return certfile, keyfile


def enter(config: Config, defaults: Mapping[str, str] = {}, **overrides: Any) -> Settings:
    """Make this process the project's, and read its settings; options beat variables.

    ``defaults`` are the variables that a command sets where nobody else does. ``database`` is
    what ``--db`` was given; the other overrides are fields of ``Settings``. What is None was not
    given.
    """
    config.enter()
    environ = {name: value for name, value in os.environ.items() if value}
    settings = Settings.from_environ({**defaults, **environ})
    if (database := overrides.pop("database", None)) is not None:
        overrides["database_uri"] = database_uri(database)
    if not settings.mount_prefix and config.mount_prefix:
        overrides["mount_prefix"] = config.mount_prefix
    given = {name: value for name, value in overrides.items() if value is not None}
    return msgspec.structs.replace(settings, **given)


def database_uri(given: str) -> str:
    """``--db`` as a URI: a path counts from the folder in which the command was given."""
    if "://" not in given:
        return f"sqlite:///{Path(given).absolute()}"
    try:
        return parse_database_uri(given)
    except ValueError as error:
        shown = without_password(given)
        raise click.BadParameter(f'"{shown}": it has to be a path, or {error}.') from None
