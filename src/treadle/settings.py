"""The environment variables that Treadle obeys, read once into one frozen struct."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal, Self

import msgspec

from treadle.config import check_mount_prefix
from treadle.errors import StartupError

LONGEST_GRACE_SECS = 3600
LOG_LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")
STATE_FOLDER = ".treadle"
FEWEST_POSTGRES_CONNECTIONS = 6


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """How the server runs. Each field but the last two is a variable (``VARIABLES``).

    What stands below a field is its explanation in docs/settings.md.
    """

    n_jobs_per_worker: int = 256
    """Runs at a time in a process. One that waits for a model costs next to nothing, so the
    default is high; lower it for graphs that compute."""
    bg_job_timeout_secs: float = 3600
    """Time limit of a run; then its status is ``timeout``."""
    bg_job_max_retries: int = 3
    """How often a run is executed at most, if its worker is lost each time; then its status is
    ``error``."""
    bg_job_isolated_loops: bool = False
    """Run graphs on event loops apart from the server's, so that code that blocks holds up no
    request."""
    shutdown_grace_secs: float = 30
    """How long a stop waits for runs (``treadle dev``: 2), at most 3600; those it cuts off go on
    at the next start."""
    database_uri: str | None = None
    """``sqlite:///path``, where a relative path counts from the config's folder, or
    ``postgresql://user:password@host/database``: see [databases](databases.md). Without it,
    ``.treadle/treadle.db`` beside the config."""
    postgres_connections: int = 10
    """As many connections to PostgreSQL has a process at most; at least 6."""
    postgres_wait_secs: float = 60
    """How long the start waits for a PostgreSQL that does not answer."""
    redis_uri: str | None = None
    """Events go to [other processes](cluster.md) through this Redis, and not through the database:
    ``redis://``, ``rediss://``, ``unix://``."""
    redis_cluster: bool = False
    """Whether that Redis is a node of a Redis cluster."""
    redis_key_prefix: str = ""
    """What all keys in Redis begin with."""
    sqlite_synchronous: Literal["normal", "full"] = "normal"
    """``normal``: a commit survives the process; ``full``: it survives a power cut too."""
    log_level: str = "INFO"
    """What is logged: ``DEBUG``, ``INFO``, ``WARNING``, ``ERROR``, ``CRITICAL``."""
    log_json: bool = False
    """One JSON object a line, on stderr; ``treadle serve`` and ``worker`` do so by default."""
    log_color: bool | None = None
    """Colours in lines for people; by default if stderr is a terminal."""
    cors_allow_origins: tuple[str, ...] = ("*",)
    """Comma list of the origins whose pages may call the server."""
    mount_prefix: str = ""
    """Serve everything below a path such as ``/api/v1``; ``/ok`` also answers at the root."""
    max_body_bytes: int = 300 * 1024 * 1024
    """The largest request body."""
    resumable_stream_ttl_secs: float = 120
    """How long after its end the stream of a resumable run can be replayed."""
    events_max_bytes_per_thread: int = 64 * 1024 * 1024
    """Of a thread whose kept events take more, the oldest go at the next sweep."""
    allow_blocking: bool = False
    """Keep silent about code that blocks the event loop (``--allow-blocking``)."""
    development: bool = False
    """This is ``treadle dev``, where Studio may be let in."""

    @classmethod
    def from_environ(cls, environ: Mapping[str, str]) -> Self:
        """The settings that ``environ`` gives; an empty variable counts as not set.

        Raises ``StartupError`` naming the variable, its value and what is allowed.
        """
        values: dict[str, Any] = {}
        for name, (field, parse) in VARIABLES.items():
            if text := environ.get(name, "").strip():
                try:
                    values[field] = parse(text)
                except ValueError as error:
                    shown = without_password(text)
                    raise StartupError(f'{name} is "{shown}": it has to be {error}.') from None
        return cls(**values)

    @property
    def is_postgres(self) -> bool:
        """Whether the database is PostgreSQL, and not a file."""
        return self.database_uri is not None and not self.database_uri.startswith("sqlite:")

    def database_path(self, folder: Path) -> Path:
        """The SQLite file. A relative path counts from ``folder``, the config's own."""
        if self.database_uri is None:
            return folder / STATE_FOLDER / "treadle.db"
        return folder / self.database_uri.removeprefix("sqlite:///")


def make_state_folder(database: Path) -> None:
    """Make the folder of ``database`` if need be; a ``.treadle`` hides itself from git.

    Raises ``StartupError`` if that cannot be done.
    """
    try:
        database.parent.mkdir(parents=True, exist_ok=True)
        if database.parent.name == STATE_FOLDER:
            ignore = database.parent / ".gitignore"
            if not ignore.exists():
                ignore.write_text("*\n")
    except OSError as error:
        raise StartupError(
            f"The folder {database.parent} for the database cannot be made or written to "
            f"({error.strerror}). Name another place with --db PATH or DATABASE_URI."
        ) from None


def _boolean(text: str) -> bool:
    words = {"true": True, "1": True, "yes": True, "on": True}
    words |= {"false": False, "0": False, "no": False, "off": False}
    if text.lower() not in words:
        raise ValueError("true or false")
    return words[text.lower()]


def _whole(least: int) -> Callable[[str], int]:
    def parse(text: str) -> int:
        if not re.fullmatch(r"\d+", text) or int(text) < least:
            raise ValueError(f"a whole number, {least} or more")
        return int(text)

    return parse


def _seconds(least: float, most: float) -> Callable[[str], float]:
    def parse(text: str) -> float:
        if not re.fullmatch(r"\d+(\.\d+)?", text) or not least <= float(text) <= most:
            limit = f" to {most:g}" if most < float("inf") else " or more"
            raise ValueError(f"a number of seconds, {least:g}{limit}")
        return float(text)

    return parse


def _one_of(*allowed: str, fold: Callable[[str], str] = str.lower) -> Callable[[str], str]:
    def parse(text: str) -> str:
        if fold(text) not in allowed:
            raise ValueError(f"one of {', '.join(allowed)}")
        return fold(text)

    return parse


def _log_level(text: str) -> str:
    level = {"WARN": "WARNING", "FATAL": "CRITICAL"}.get(text.upper(), text)
    return _one_of(*LOG_LEVELS, fold=str.upper)(level)


def without_password(uri: str) -> str:
    """A URI that may be shown: what could be a password is hidden."""
    uri = re.sub(r"(?<=://)([^/?#]*?):.*@", r"\1:***@", uri)
    return re.sub(r"(?i)(password=)[^&]*", r"\1***", uri)


def parse_database_uri(text: str) -> str:
    if re.match(r"(postgres|postgresql)://", text):
        return text
    if not re.match(r"sqlite:///.", text) or text.endswith("/"):
        raise ValueError(
            "sqlite:///path/to/file.db (four slashes for an absolute path) or"
            " postgresql://user@host/database; other databases are not supported"
        )
    return text


def _pool_size(text: str) -> int:
    return max(_whole(1)(text), FEWEST_POSTGRES_CONNECTIONS)


def _postgres_uri(text: str) -> str:
    if not re.match(r"(postgres|postgresql)://", text):
        raise ValueError("postgresql://user@host/database")
    return text


def _redis_uri(text: str) -> str:
    if not re.match(r"(redis|rediss|unix)://.", text):
        raise ValueError("redis://host:6379/0, rediss://... with TLS, or unix://path")
    return text


def _origins(text: str) -> tuple[str, ...]:
    return tuple(origin for part in text.split(",") if (origin := part.strip()))


def _prefix(text: str) -> str:
    return check_mount_prefix(text, "MOUNT_PREFIX")


VARIABLES: dict[str, tuple[str, Callable[[str], Any]]] = {
    "N_JOBS_PER_WORKER": ("n_jobs_per_worker", _whole(1)),
    "BG_JOB_ISOLATED_LOOPS": ("bg_job_isolated_loops", _boolean),
    "BG_JOB_MAX_RETRIES": ("bg_job_max_retries", _whole(1)),
    "BG_JOB_TIMEOUT_SECS": ("bg_job_timeout_secs", _seconds(0.001, float("inf"))),
    "BG_JOB_SHUTDOWN_GRACE_PERIOD_SECS": ("shutdown_grace_secs", _seconds(0, LONGEST_GRACE_SECS)),
    "POSTGRES_URI": ("database_uri", _postgres_uri),
    "DATABASE_URI": ("database_uri", parse_database_uri),
    "POSTGRES_URI_CUSTOM": ("database_uri", _postgres_uri),
    "LANGGRAPH_POSTGRES_POOL_MAX_SIZE": ("postgres_connections", _pool_size),
    "TREADLE_POSTGRES_CONNECTIONS": (
        "postgres_connections",
        _whole(FEWEST_POSTGRES_CONNECTIONS),
    ),
    "TREADLE_POSTGRES_WAIT_SECS": ("postgres_wait_secs", _seconds(0, float("inf"))),
    "REDIS_URI": ("redis_uri", _redis_uri),
    "REDIS_URI_CUSTOM": ("redis_uri", _redis_uri),
    "REDIS_CLUSTER": ("redis_cluster", _boolean),
    "REDIS_KEY_PREFIX": ("redis_key_prefix", str),
    "TREADLE_SQLITE_SYNCHRONOUS": ("sqlite_synchronous", _one_of("normal", "full")),
    "LOG_LEVEL": ("log_level", _log_level),
    "LOG_JSON": ("log_json", _boolean),
    "LOG_COLOR": ("log_color", _boolean),
    "CORS_ALLOW_ORIGINS": ("cors_allow_origins", _origins),
    "MOUNT_PREFIX": ("mount_prefix", _prefix),
    "MAX_BODY_BYTES": ("max_body_bytes", _whole(1)),
    "RESUMABLE_STREAM_TTL_SECONDS": ("resumable_stream_ttl_secs", _seconds(0, float("inf"))),
    "TREADLE_EVENTS_MAX_BYTES_PER_THREAD": ("events_max_bytes_per_thread", _whole(1)),
}
"""Each variable with its field and the function that reads it. Of several for a field, the last
one that is set counts."""
