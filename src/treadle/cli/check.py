"""``treadle check``."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import tempfile
from pathlib import Path
from typing import Any

import click

from treadle import variables
from treadle.cli.options import config_option, database_option, enter
from treadle.cli.sockets import listen_at
from treadle.config import Config, GraphSpec, load_config
from treadle.errors import StartupError

Fields = tuple[str, str]


@click.command()
@config_option
@database_option
@click.option("--host", default="127.0.0.1", show_default=True, help="With --port: where.")
@click.option("--port", type=click.IntRange(1, 65535), help="Check that this port is free, too.")
def check(config_path: Path, database: str | None, host: str, port: int | None) -> None:
    """Check a project: its config, that every graph loads, and what the graphs take and give.

    Ends with exit code 1 and one message at the first thing that would stop the server.
    """
    config = load_config(config_path)
    settings = enter(config, database=database)
    if port is not None:
        listen_at(host, port).close()
    if settings.is_postgres:
        asyncio.run(check_postgres(str(settings.database_uri), settings.postgres_wait_secs))
    else:
        check_database(settings.database_path(config.folder))
    rows = asyncio.run(_fields_of_all(config))
    _print_table(config, rows)
    for warning in (*config.warnings, *variables.warnings(os.environ)):
        click.echo(f"{click.style('warning', fg='yellow')} {warning}", err=True)


def check_database(path: Path) -> None:
    """See that the database at ``path`` can be written, or made; it changes nothing."""
    if path.exists():
        try:
            connection = sqlite3.connect(path.as_uri() + "?mode=rw", uri=True, timeout=5)
            try:
                connection.execute("PRAGMA schema_version")
                connection.execute("BEGIN IMMEDIATE")
                connection.execute("ROLLBACK")
            finally:
                connection.close()
        except sqlite3.Error as error:
            raise StartupError(f"The database {path} cannot be written to: {error}.") from None
        return
    folder = next(parent for parent in path.parents if parent.exists())
    try:
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        raise StartupError(
            f"The database {path} cannot be made: {folder} cannot be written to ({error.strerror})."
        ) from None


async def check_postgres(uri: str, wait_seconds: float) -> None:
    """See that PostgreSQL answers there and lets this user in; it changes nothing."""
    from treadle.database.postgres_link import first_connection

    await (await first_connection(uri, wait_seconds)).close()


async def _fields_of_all(config: Config) -> list[Fields]:
    from treadle.graphs import GraphRegistry

    registry = GraphRegistry(config)
    registry.load()
    await _check_parts(config)
    return [await _fields(config, registry, spec) for spec in config.graphs]


async def _check_parts(config: Config) -> None:
    """Import what else the config names, and try out what embeds the store's items."""
    from treadle.auth.opening import open_gate
    from treadle.checkpoints.aes import AesCipher
    from treadle.checkpoints.blobs import BlobHandlers
    from treadle.graphs.importing import import_object
    from treadle.http.custom_app import CustomApp
    from treadle.http.rules import HttpRules
    from treadle.store.embedding import open_embedder

    def load(source: str) -> object:
        return import_object(config, source, "auth.path")

    open_gate(config, os.environ, load, development=False)
    if (app := HttpRules.read(config.http).app) is not None:
        CustomApp(import_object(config, app, "http.app"), app)
    for section, name in (("checkpointer", "path"), ("store", "path")):
        if source := (getattr(config, section) or {}).get(name):
            import_object(config, source, f"{section}.{name}")
    AesCipher.read(os.environ)
    if source := config.encryption:
        BlobHandlers(import_object(config, source, "encryption.path"), source)
    await open_embedder(config, config.store_index)


async def _fields(config: Config, registry: Any, spec: GraphSpec) -> Fields:
    """The input and output fields of one graph; a factory is called for them."""
    from langgraph.store.memory import InMemoryStore

    from treadle.auth import ANYONE
    from treadle.graphs.importing import users_traceback

    try:
        async with registry.open(
            spec.graph_id,
            {"configurable": {}},
            access="assistants.read",
            store=InMemoryStore(),
            caller=ANYONE,
        ) as graph:
            return describe(graph.get_input_jsonschema), describe(graph.get_output_jsonschema)
    except Exception as error:
        raise StartupError(
            f'Graph "{spec.graph_id}": its factory {spec.source} fails:\n'
            f"{users_traceback(config, error)}"
        ) from error


def describe(read_schema: Any) -> str:
    """The fields of a schema, ``name: type``, or its type if it is no object."""
    try:
        schema: dict[str, Any] = read_schema()
    except Exception:  # pydantic has several ways to say that a type has no JSON schema
        return "(no JSON schema)"
    fields = schema.get("properties")
    if not fields:
        return _type(schema)
    return "\n".join(f"{name}: {_type(field)}" for name, field in fields.items())


def _type(schema: dict[str, Any]) -> str:
    if reference := schema.get("$ref"):
        return reference.rpartition("/")[2]
    for key in ("anyOf", "oneOf"):
        if arms := schema.get(key):
            return " | ".join(dict.fromkeys(_type(arm) for arm in arms))
    kind = schema.get("type", "any")
    if kind == "array":
        inner = _type(schema.get("items") or {})
        return "array" if inner == "any" else f"array of {inner if len(inner) <= 30 else 'objects'}"
    return kind if isinstance(kind, str) else " | ".join(kind)


def _print_table(config: Config, rows: list[Fields]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(title_justify="left", show_lines=True)
    for heading in ("Graph", "Source", "Input", "Output"):
        table.add_column(heading, overflow="fold")
    for spec, (given, returned) in zip(config.graphs, rows, strict=True):
        table.add_row(*map(Text, (spec.graph_id, spec.source, given, returned)))
    console = Console()
    console.print(table)
    count = len(rows)
    console.print(f"{config.path.name} is good: {count} graph{'s' if count != 1 else ''}.")
