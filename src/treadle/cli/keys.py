"""``treadle keys``: API keys, made, listed and revoked."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from pathlib import Path

import click

from treadle.auth.keys import FILE_VARIABLE, check_name, new_key, read_keys, write_keys
from treadle.cli.options import config_option
from treadle.config import Config, load_config
from treadle.errors import StartupError

file_option = click.option(
    "--file",
    "file",
    type=click.Path(path_type=Path, dir_okay=False),
    help=f"The file of keys.  [default: {FILE_VARIABLE}, or api_keys beside the config]",
)
USUAL_FILE = "api_keys"


@click.group()
def keys() -> None:
    """Make, list and revoke API keys. A server has them that is given their file.

    The file has no secrets but hashes of them. A running server takes up a change of it by itself.
    """


@keys.command()
@click.argument("name")
@config_option
@file_option
def new(name: str, config_path: Path, file: Path | None) -> None:
    """Make a key for NAME and print it: this once, for it is not kept."""
    path, is_told = _file(config_path, file)
    there = read_keys(path) if path.exists() else []
    if any(key.name == check_name(name) for key in there):
        raise StartupError(
            f"{path} has a key named {name}. Choose another name, or revoke that one first:"
            f" treadle keys revoke {name}"
        )
    key, stored = new_key(name, datetime.now(UTC).date().isoformat())
    write_keys(path, [*there, stored])
    click.echo(key)
    click.echo(f"{name} has this key from now on; its hash is in {path}.", err=True)
    if not is_told:
        click.echo(f"Servers ask for keys once they have {FILE_VARIABLE}={path}", err=True)


@keys.command(name="list")
@config_option
@file_option
def list_(config_path: Path, file: Path | None) -> None:
    """Show whose keys there are, and since when."""
    path, _ = _file(config_path, file)
    for key in read_keys(path):
        click.echo(f"{key.name:<24} {key.made}".rstrip())


@keys.command()
@click.argument("name")
@config_option
@file_option
def revoke(name: str, config_path: Path, file: Path | None) -> None:
    """Take NAME's key away; running servers refuse it within a second or so."""
    path, _ = _file(config_path, file)
    there = read_keys(path)
    left = [key for key in there if key.name != name]
    if len(left) == len(there):
        names = ", ".join(key.name for key in there) or "none"
        raise StartupError(f"{path} has no key named {name}. The names are: {names}.")
    write_keys(path, left)
    click.echo(f"{name} has no key any more.", err=True)


def _file(config_path: Path, given: Path | None) -> tuple[Path, bool]:
    """The file of keys, and whether servers know of it by the environment."""
    if given is not None:
        named = os.environ.get(FILE_VARIABLE, "").strip()
        return given.absolute(), bool(named) and given.absolute() == Path(named).absolute()
    config = load_config(config_path)
    named = _named(config)
    return config.folder / (named or USUAL_FILE), bool(named)


def _named(config: Config) -> str:
    """The file that a server of this project would read."""
    config.enter()
    return os.environ.get(FILE_VARIABLE, "").strip()
