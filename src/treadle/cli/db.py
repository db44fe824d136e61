"""``treadle db``: the database of a project, looked after and moved."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Generator
from pathlib import Path

import click

from treadle.cli.options import config_option, database_option, database_uri, enter
from treadle.config import load_config
from treadle.database import maintenance
from treadle.database.maintenance import Maintenance
from treadle.errors import StartupError
from treadle.settings import Settings, make_state_folder


@click.group()
def db() -> None:
    """Look after the database: its tables, its room, its place."""


@db.command()
@config_option
@database_option
def upgrade(config_path: Path, database: str | None) -> None:
    """Make the tables, or bring them up to date. Servers do so too, when they start.

    Any number of these commands and servers may start at the same time: one does it.
    """
    settings, folder = where(config_path, database)
    if not settings.is_postgres:
        make_state_folder(settings.database_path(folder))
    with errors_told():
        for name in maintenance.upgrade(settings, folder):
            click.echo(f"{name}: done")
    with told(settings, folder) as place:
        click.echo(f"{place.shown} is up to date, at {maintenance.newest(place.engine)}.")


@db.command()
@config_option
@database_option
def status(config_path: Path, database: str | None) -> None:
    """Show the database: its engine, place and size, its tables, the queue and the workers."""
    from treadle.database.status import Status

    settings, folder = where(config_path, database)
    with told(settings, folder) as place:
        for name, value in Status.of(place).lines():
            click.echo(f"{name:<9} {value}")


@db.command()
@config_option
@database_option
def vacuum(config_path: Path, database: str | None) -> None:
    """Give back the room of what was deleted.

    An SQLite file becomes smaller; no server may have it meanwhile. PostgreSQL's servers go on;
    the room is used again, and its statistics are made anew.
    """
    from treadle.database.status import in_words

    settings, folder = where(config_path, database)
    with told(settings, folder, writes=True) as place:
        maintenance.require_treadle(place)
        before = place.size_bytes()
        place.vacuum()
        click.echo(f"{place.shown}: {in_words(before)} before, {in_words(place.size_bytes())} now.")


@db.command()
@click.argument("source", metavar="FROM")
@click.argument("target", metavar="TO")
def copy(source: str, target: str) -> None:
    """Copy all data of the database FROM into the empty database TO, and compare the two.

    Each is a file, or sqlite:///path, or postgresql://user@host/database. Stop the servers of FROM
    first. If the copy is cut off, the same command goes on where it stopped. Passwords are best
    given by PGPASSWORD or ~/.pgpass.
    """
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    from treadle.database.copying import NOT_COPIED, Copy, Step

    work = Copy(database_uri(source), database_uri(target))
    bar = Progress(
        TextColumn("{task.description:<28}"),
        BarColumn(),
        TextColumn("{task.percentage:>3.0f}%"),
        TimeRemainingColumn(),
        console=Console(stderr=True),
    )
    with contextlib.closing(work), errors_told():
        steps = work.prepare()
        with bar:
            task = bar.add_task("", total=steps)

            def hear(step: Step) -> None:
                word = "comparing" if step.is_check else "copying"
                bar.update(task, advance=step.rows, description=f"{word} {step.table}")

            try:
                report = work.run(hear)
            except KeyboardInterrupt:
                raise StartupError(
                    "Stopped. The same command goes on from here; until it has ended, no server"
                    " starts on the copy."
                ) from None
    for name, rows in report.rows.items():
        click.echo(f"{name:<20} {rows:>10} rows, the same on both sides")
    if report.replaced:
        click.echo(f"{report.replaced} texts held NUL, which PostgreSQL cannot: now U+FFFD.")
    if report.without_vectors:
        click.echo(
            f"store_vectors        not copied, {report.without_vectors}: items are searched by"
            " meaning once they are put again"
        )
    for name, why in NOT_COPIED.items():
        click.echo(f"{name:<20} not copied: {why}")


def where(config_path: Path, database: str | None) -> tuple[Settings, Path]:
    """The settings, and the folder from which a relative path of a file counts.

    Found as ``serve`` finds them; a project's config need not be there if a database is named.
    """
    variables = ("POSTGRES_URI_CUSTOM", "DATABASE_URI", "POSTGRES_URI")
    named = database or next(filter(None, map(os.environ.get, variables)), None)
    folder = config_path.absolute().parent
    if named and not config_path.exists():
        settings = Settings.from_environ(os.environ)
        if database is not None:
            settings = Settings(
                database_uri=database_uri(database), postgres_wait_secs=settings.postgres_wait_secs
            )
        return settings, folder
    config = load_config(config_path)
    return enter(config, database=database), folder


@contextlib.contextmanager
def told(settings: Settings, folder: Path, *, writes: bool = False) -> Generator[Maintenance]:
    """A connection for maintenance; what the database refuses becomes one message."""
    with errors_told():
        place = maintenance.open_maintenance(settings.database_uri, folder, writes=writes)
        with contextlib.closing(place):
            yield place


@contextlib.contextmanager
def errors_told() -> Generator[None]:
    try:
        yield
    except (*maintenance.ERRORS, OSError) as error:
        raise StartupError(f"The database says: {str(error).strip()}") from error
