"""API keys, and the file that has their hashes."""

from __future__ import annotations

import os
import stat
import time
from pathlib import Path

import pytest

from treadle.auth.keys import (
    FILE_VARIABLE,
    KEYS_VARIABLE,
    KeyRing,
    new_key,
    parse_keys,
    read_keys,
    write_keys,
)
from treadle.errors import StartupError

SECRET, OTHER = "0123456789abcdef", "fedcba9876543210"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "api_keys"


# -- the environment ------------------------------------------------------------------------
def test_names_and_secrets():
    assert parse_keys(f" ops:{SECRET}, ci.bot@x:{OTHER}:with:colons ,") == {
        "ops": SECRET,
        "ci.bot@x": f"{OTHER}:with:colons",
    }
    assert parse_keys(SECRET) == {"default": SECRET}
    assert parse_keys(" , ") == {}


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("ops:short", "Key 1 of TREADLE_API_KEYS has a secret that is too easy"),
        (f"a:{SECRET},b:{OTHER}é", "Key 2 .* cannot be sent"),
        (f"a b:{SECRET}", "Key 1 .* has no name"),
        (f":{SECRET}", "Key 1 .* has no name"),
        (f"a:{SECRET},a:{OTHER}", "two keys named a"),
        (f"{SECRET},{OTHER}", "two keys named default"),
        (f"a:{SECRET},b:{SECRET}", "Key 2 .* the secret of another"),
    ],
)
def test_what_is_wrong_is_said_without_the_secret(text: str, problem: str):
    with pytest.raises(StartupError, match=problem) as error:
        parse_keys(text)
    assert not any(secret in str(error.value) for secret in (SECRET, OTHER, "short"))


# -- the ring -------------------------------------------------------------------------------
def test_a_key_of_the_environment_has_an_owner():
    ring = KeyRing({"ops": SECRET, "ci": OTHER}, None)
    assert [ring.owner(SECRET), ring.owner(OTHER)] == ["ops", "ci"]
    for wrong in ("", SECRET[:-1], SECRET + "x", "ops", f"ops:{SECRET}", "é" * 16, "\xff"):
        assert ring.owner(wrong) is None


def test_a_key_of_the_file_has_an_owner(file: Path):
    key, stored = new_key("ann", "2026-11-21")
    other, of_bob = new_key("bob", "2026-11-21")
    write_keys(file, [stored, of_bob])
    ring = KeyRing({"ops": SECRET}, file)
    assert [ring.owner(key), ring.owner(other), ring.owner(SECRET)] == ["ann", "bob", "ops"]
    changed = key[:-1] + ("A" if key[-1] != "A" else "B")
    assert ring.owner(changed) is None
    assert ring.owner(key + "A") is None
    salt, of_another = key.split("_", 2)[1], other.split("_", 2)[2]
    assert ring.owner(f"tk_{salt}_{of_another}") is None
    assert ring.owner(stored.digest) is None
    assert ring.owner(stored.line) is None


def test_keys_are_long_and_each_is_another():
    keys = {new_key("ann", "")[0] for _ in range(50)}
    assert len(keys) == 50
    assert all(len(key.split("_", 2)[2]) == 40 for key in keys)


def test_the_file_has_no_secret_and_is_its_owners_alone(file: Path):
    key, stored = new_key("ann", "2026-11-21")
    write_keys(file, [stored])
    assert key.split("_", 2)[2] not in file.read_text()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert read_keys(file) == [stored]
    assert list(file.parent.iterdir()) == [file]


def test_a_change_of_the_file_counts(file: Path):
    key, stored = new_key("ann", "")
    write_keys(file, [])
    ring = KeyRing({}, file)
    assert not ring.reload()
    assert ring.owner(key) is None
    write_keys(file, [stored])
    assert ring.reload()
    assert ring.owner(key) == "ann"
    write_keys(file, [])
    assert ring.reload()
    assert ring.owner(key) is None


def test_a_file_that_breaks_is_said_once_and_changes_nothing(file: Path):
    key, stored = new_key("ann", "")
    write_keys(file, [stored])
    ring = KeyRing({}, file)
    file.write_text("nonsense\n")
    with pytest.raises(StartupError, match="Line 1"):
        ring.reload()
    assert not ring.reload()
    file.unlink()
    with pytest.raises(StartupError, match="cannot be read"):
        ring.reload()
    assert ring.owner(key) == "ann"


@pytest.mark.parametrize(
    "line", ["ann", "ann sha256:12:34", "ann md5:0011223344556677:" + "0" * 64, "a/b sha256:x:y"]
)
def test_a_line_that_is_no_key_is_named(file: Path, line: str):
    file.write_text(f"# a comment\n\n{line}\n")
    with pytest.raises(StartupError, match="Line 3"):
        KeyRing({}, file)


def test_a_name_is_one_keys(file: Path):
    write_keys(file, [new_key("ann", "")[1], new_key("ann", "")[1]])
    with pytest.raises(StartupError, match="two API keys with the name ann"):
        read_keys(file)
    write_keys(file, [new_key("ann", "")[1]])
    with pytest.raises(StartupError, match="both have a key named ann"):
        KeyRing({"ann": SECRET}, file)


def test_the_environment_says_which_keys_there_are(file: Path):
    assert KeyRing.read({}, file.parent) is None
    assert KeyRing.read({KEYS_VARIABLE: " ", FILE_VARIABLE: ""}, file.parent) is None
    ring = KeyRing.read({KEYS_VARIABLE: SECRET}, file.parent)
    assert ring is not None
    assert ring.owner(SECRET) == "default"
    with pytest.raises(StartupError, match="cannot be read"):
        KeyRing.read({FILE_VARIABLE: "api_keys"}, file.parent)
    key, stored = new_key("ann", "")
    write_keys(file, [stored])
    ring = KeyRing.read({FILE_VARIABLE: "api_keys"}, file.parent)
    assert ring is not None
    assert ring.owner(key) == "ann"


def test_a_look_at_a_key_costs_microseconds_however_many_there_are(file: Path):
    made = [new_key(f"user-{number}", "") for number in range(1000)]
    write_keys(file, [stored for _, stored in made])
    ring = KeyRing({}, file)
    key = made[-1][0]
    started = time.process_time()
    for _ in range(1000):
        assert ring.owner(key) == "user-999"
    assert time.process_time() - started < 0.2, os.cpu_count()  # 2 ms if each were hashed
