"""Environment variables."""

from pathlib import Path

import pytest

from treadle.errors import StartupError
from treadle.settings import VARIABLES, Settings, make_state_folder


def test_an_empty_environment_gives_the_defaults():
    assert Settings.from_environ({}) == Settings()
    assert Settings.from_environ(dict.fromkeys(VARIABLES, " ")) == Settings()


def test_each_variable_reaches_its_field():
    settings = Settings.from_environ(
        {
            "N_JOBS_PER_WORKER": "7",
            "BG_JOB_TIMEOUT_SECS": "0.5",
            "BG_JOB_SHUTDOWN_GRACE_PERIOD_SECS": "0",
            "DATABASE_URI": "sqlite:////data/t.db",
            "TREADLE_SQLITE_SYNCHRONOUS": "FULL",
            "LOG_LEVEL": "warn",
            "LOG_JSON": "1",
            "LOG_COLOR": "no",
            "CORS_ALLOW_ORIGINS": "https://a.example, https://b.example,",
            "MOUNT_PREFIX": "/api/v1",
            "MAX_BODY_BYTES": "1000",
            "RESUMABLE_STREAM_TTL_SECONDS": "60",
            "TREADLE_EVENTS_MAX_BYTES_PER_THREAD": "1000000",
        }
    )
    assert settings == Settings(
        n_jobs_per_worker=7,
        bg_job_timeout_secs=0.5,
        shutdown_grace_secs=0,
        database_uri="sqlite:////data/t.db",
        sqlite_synchronous="full",
        log_level="WARNING",
        log_json=True,
        log_color=False,
        cors_allow_origins=("https://a.example", "https://b.example"),
        mount_prefix="/api/v1",
        max_body_bytes=1000,
        resumable_stream_ttl_secs=60,
        events_max_bytes_per_thread=1_000_000,
    )


@pytest.mark.parametrize(
    ("name", "value", "allowed"),
    [
        ("N_JOBS_PER_WORKER", "0", "1 or more"),
        ("N_JOBS_PER_WORKER", "many", "a whole number"),
        ("BG_JOB_TIMEOUT_SECS", "-1", "seconds"),
        ("BG_JOB_SHUTDOWN_GRACE_PERIOD_SECS", "3601", "0 to 3600"),
        ("DATABASE_URI", "postgresql+asyncpg://db/x", "postgresql://user@host/database"),
        ("POSTGRES_URI", "sqlite:///x", "postgresql://user@host/database"),
        ("TREADLE_POSTGRES_CONNECTIONS", "5", "a whole number, 6 or more"),
        ("TREADLE_POSTGRES_WAIT_SECS", "-1", "a number of seconds, 0 or more"),
        ("DATABASE_URI", "mysql://db/x", "sqlite:///path"),
        ("DATABASE_URI", "sqlite:///", "sqlite:///path"),
        ("TREADLE_SQLITE_SYNCHRONOUS", "off", "normal, full"),
        ("LOG_LEVEL", "LOUD", "DEBUG, INFO"),
        ("LOG_JSON", "maybe", "true or false"),
        ("TREADLE_EVENTS_MAX_BYTES_PER_THREAD", "64M", "a whole number, 1 or more"),
        ("MOUNT_PREFIX", "api", "/api/v1"),
        ("MOUNT_PREFIX", "/api/", "/api/v1"),
    ],
)
def test_a_bad_value_is_refused_with_what_is_allowed(name, value, allowed):
    with pytest.raises(StartupError) as raised:
        Settings.from_environ({name: value})
    for word in (name, value, allowed):
        assert word in str(raised.value)


@pytest.mark.parametrize(
    ("uri", "path"),
    [
        (None, "/project/.treadle/treadle.db"),
        ("sqlite:///data/t.db", "/project/data/t.db"),
        ("sqlite:////var/t.db", "/var/t.db"),
    ],
)
def test_the_database_is_found_from_the_configs_folder(uri, path):
    assert Settings(database_uri=uri).database_path(Path("/project")) == Path(path)


def test_the_state_folder_hides_itself_from_git(tmp_path):
    make_state_folder(tmp_path / ".treadle" / "treadle.db")
    make_state_folder(tmp_path / ".treadle" / "treadle.db")
    assert (tmp_path / ".treadle" / ".gitignore").read_text() == "*\n"


def test_other_folders_are_only_made(tmp_path):
    make_state_folder(tmp_path / "data" / "deep" / "t.db")
    assert list((tmp_path / "data" / "deep").iterdir()) == []


def test_a_state_folder_that_cannot_be_made_stops_the_start(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StartupError, match="--db"):
        make_state_folder(tmp_path / "file" / "t.db")


@pytest.mark.parametrize("name", ["DATABASE_URI", "POSTGRES_URI"])
def test_a_password_is_never_shown(name):
    with pytest.raises(StartupError) as raised:
        Settings.from_environ({name: "mysql://me:se:c@ret@db/x?a=1&password=hidden"})
    assert "mysql://me:***@db/x?a=1&password=***" in str(raised.value)


def test_the_database_is_the_one_that_is_named_first():
    postgres = {"POSTGRES_URI": "postgresql://db/x"}
    assert Settings.from_environ(postgres).is_postgres
    both = Settings.from_environ({**postgres, "DATABASE_URI": "sqlite:///x"})
    assert not both.is_postgres


@pytest.mark.parametrize("given", ["POSTGRES_URI", "DATABASE_URI"])
def test_the_custom_uri_wins(given):
    environ = {given: "postgresql://db/x", "POSTGRES_URI_CUSTOM": "postgresql://db/custom"}
    assert Settings.from_environ(environ).database_uri == "postgresql://db/custom"


def test_the_size_of_the_pool_as_the_reference_names_it():
    size = {"LANGGRAPH_POSTGRES_POOL_MAX_SIZE": "150"}
    assert Settings.from_environ(size).postgres_connections == 150
    assert Settings.from_environ({**size, "TREADLE_POSTGRES_CONNECTIONS": "20"}) == Settings(
        postgres_connections=20
    )
    fewer = Settings.from_environ({"LANGGRAPH_POSTGRES_POOL_MAX_SIZE": "1"})
    assert fewer.postgres_connections == 6
