"""``treadle keys``."""

from __future__ import annotations

import pytest

from treadle.auth.keys import KeyRing


@pytest.fixture(autouse=True)
def no_file(monkeypatch):
    monkeypatch.setenv("TREADLE_API_KEYS_FILE", "set, so that it is taken back")
    monkeypatch.delenv("TREADLE_API_KEYS_FILE")


def test_a_key_is_printed_once_listed_and_revoked(treadle, project, tmp_path):
    config = project()
    made = treadle("keys", "new", "ann", "--config", config)
    assert made.exit_code == 0
    key = made.stdout.strip()
    file = tmp_path / "api_keys"
    assert KeyRing({}, file).owner(key) == "ann"
    assert f"TREADLE_API_KEYS_FILE={file}" in made.stderr
    assert treadle("keys", "new", "bob", "--config", config).exit_code == 0
    listed = treadle("keys", "list", "--config", config).stdout
    assert [line.split()[0] for line in listed.splitlines()] == ["ann", "bob"]
    assert key not in listed
    assert treadle("keys", "revoke", "ann", "--config", config).exit_code == 0
    assert treadle("keys", "list", "--config", config).stdout.split()[0] == "bob"
    assert KeyRing({}, file).owner(key) is None


def test_the_file_is_the_servers_or_the_one_that_is_named(treadle, project, tmp_path):
    config = project(env={"TREADLE_API_KEYS_FILE": "secrets/keys"})
    made = treadle("keys", "new", "ann", "--config", config)
    assert (tmp_path / "secrets" / "keys").exists()
    assert "Servers ask for keys once" not in made.stderr
    named = tmp_path / "other"
    assert treadle("keys", "new", "bob", "--file", named).exit_code == 0
    assert "bob" in treadle("keys", "list", "--file", named).stdout


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["new", "ann"], "has a key named ann"),
        (["new", "a/b"], '"a/b" cannot name an API key'),
        (["revoke", "eve"], "no key named eve. The names are: ann"),
    ],
)
def test_what_cannot_be_is_said(treadle, project, arguments, said):
    config = project()
    treadle("keys", "new", "ann", "--config", config)
    result = treadle("keys", *arguments, "--config", config)
    assert result.exit_code == 1
    assert said in result.output


def test_without_a_file_there_are_no_keys_to_list(treadle, project):
    result = treadle("keys", "list", "--config", project())
    assert result.exit_code == 1
    assert "cannot be read" in result.output
