"""The schema, step by step: ``<engine>/NNNN_name.sql``, run once each in the order of names."""

from __future__ import annotations

from importlib.resources import files


def migrations(engine: str) -> list[tuple[str, str]]:
    """Name and SQL of each migration of ``engine``, in order."""
    folder = files(__package__ or "") / engine
    scripts = [entry for entry in folder.iterdir() if entry.name.endswith(".sql")]
    return [
        (entry.name.removesuffix(".sql"), entry.read_text())
        for entry in sorted(scripts, key=lambda entry: entry.name)
    ]
