"""A database is opened by a URI of any form that libpq knows, by a server as by ``treadle db``."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from urllib.parse import quote
from uuid import uuid4

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict

from postgres_server import PREFIX, drop_databases, make_database, own_server
from treadle.cli.options import database_uri
from treadle.database import maintenance
from treadle.database.postgres import PostgresDatabase
from treadle.settings import Settings

NOBODY = "127.0.0.1:1"


@pytest.fixture(scope="module")
def place() -> Iterator[dict[str, str]]:
    """A database that is reached by a socket: what stands in a URI for its parts."""
    name = f"{PREFIX}uris_{uuid4().hex[:8]}"
    uri = make_database(name, server=own_server())
    with psycopg.connect(uri) as connection:
        connection.execute("CREATE SCHEMA apart")
        user = connection.info.user
        port = connection.info.port
    folder = str(conninfo_to_dict(uri)["host"])
    assert folder.startswith("/")
    yield {
        "user": user, "name": name, "port": str(port), "folder": folder,
        "socket": f"{quote(folder, safe='')}:{port}",
    }  # fmt: skip
    drop_databases(name, own_server())


FORMS = {
    "a socket's folder as parameter": "postgresql://{user}@/{name}?host={folder}&port={port}",
    "a socket's folder as host": "postgresql://{user}@{socket}/{name}",
    "all as parameters": "postgresql:///?host={folder}&port={port}&user={user}&dbname={name}",
    "a short scheme": "postgres://{user}@{socket}/{name}",
    "several hosts": f"postgresql://{{user}}@{NOBODY},{{socket}}/{{name}}",
    "several hosts, one that takes writes": (
        f"postgresql://{{user}}@{NOBODY},{{socket}}/{{name}}?target_session_attrs=primary"
    ),
    "no TLS": "postgresql://{user}@{socket}/{name}?sslmode=disable",
    "TLS if there is": "postgresql://{user}@{socket}/{name}?sslmode=prefer",
    "a schema": "postgresql://{user}@{socket}/{name}?options=-csearch_path%3Dapart",
    "a schema and a timeout": (
        "postgresql://{user}@{socket}/{name}"
        "?options=-c%20search_path%3Dapart%20-c%20statement_timeout%3D30s&connect_timeout=5"
    ),
}


@pytest.mark.parametrize("form", FORMS)
async def test_a_uri_of_each_form_leads_to_the_database(place: dict[str, str], form: str) -> None:
    await use(FORMS[form].format(**place), "apart" if "schema" in form else "public")


@pytest.mark.parametrize("mode", ["disable", "prefer"])
async def test_so_does_one_over_tcp_with_and_without_tls(postgres_uri: str, mode: str) -> None:
    await use(f"{postgres_uri}{'&' if '?' in postgres_uri else '?'}sslmode={mode}", "public")


async def use(given: str, schema: str) -> None:
    """Read and write by each kind of connection."""
    uri = database_uri(given)
    assert Settings(database_uri=uri).is_postgres
    database = PostgresDatabase(uri)
    await database.open()
    try:
        names = "SELECT name, current_schema() AS schema FROM schema_migrations"
        for read in (database.read_all, database.scan):
            assert {row["schema"] for row in await read(names)} == {schema}
        taken = {"owner": "me", "until": 1}
        insert = "INSERT INTO workers (owner, lease_until) VALUES (:owner, :until)"
        assert database.execute_outside(insert, taken) == 1
        delete = "DELETE FROM workers WHERE owner = :owner"
        assert await database.write(lambda transaction: transaction.execute(delete, taken)) == 1
    finally:
        await database.close()
    with closing(maintenance.open_maintenance(uri, Path())) as opened:
        assert maintenance.newest("postgres") in maintenance.migrations_done(opened)
