"""The schema, step by step: ``<engine>/NNNN_name.sql``, run once each in the order of names."""

from __future__ import annotations

import re
from collections.abc import Collection
from importlib.resources import files

from treadle.errors import StartupError

COPY_MARK = "copy_not_finished"
"""Stands among the names of migrations while ``treadle db copy`` fills a database."""


def migrations(engine: str) -> list[tuple[str, str]]:
    """Name and SQL of each migration of ``engine``, in order."""
    folder = files(__package__ or "") / engine
    scripts = [entry for entry in folder.iterdir() if entry.name.endswith(".sql")]
    return [
        (entry.name.removesuffix(".sql"), entry.read_text())
        for entry in sorted(scripts, key=lambda entry: entry.name)
    ]


def pending(engine: str, done: Collection[str], place: str) -> list[tuple[str, str]]:
    """The migrations that are still to be run where those of ``done`` have been.

    Raises ``StartupError`` if the database, ``place`` by name, is not for this Treadle to use.
    """
    if COPY_MARK in done:
        raise StartupError(
            f"The database {place} is being filled by treadle db copy, which has not finished."
            " The same command again goes on where it stopped."
        )
    known = migrations(engine)
    if unknown := sorted(set(done) - {name for name, _ in known}):
        raise StartupError(
            f"The database {place} was made by a newer Treadle (it has {unknown[-1]})."
            " Update Treadle, or name another database with --db."
        )
    return [(name, script) for name, script in known if name not in done]


def tables_made(engine: str) -> set[str]:
    """The names of the tables that the migrations of ``engine`` make."""
    statement = r"^\s*CREATE (?:UNLOGGED )?TABLE (?:IF NOT EXISTS )?(\w+)"
    return {
        name
        for _, script in migrations(engine)
        for name in re.findall(statement, script, re.MULTILINE)
    }
