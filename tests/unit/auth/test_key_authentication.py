"""Who has a key gets in."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from treadle.auth.key_authentication import RELOAD_SECONDS, KeyAuthentication
from treadle.auth.keys import KeyRing, new_key, write_keys
from treadle.errors import Denied

SECRET = "0123456789abcdef"


def scope(*headers: tuple[bytes, bytes]) -> Any:
    return {"headers": list(headers)}


@pytest.fixture
def authenticate() -> KeyAuthentication:
    return KeyAuthentication(KeyRing({"ops": SECRET}, None), None)


@pytest.mark.parametrize(
    "headers",
    [
        [(b"x-api-key", SECRET.encode())],
        [(b"authorization", b"Bearer " + SECRET.encode())],
        [(b"authorization", b"bearer  " + SECRET.encode())],
        [
            (b"x-api-key", b"lsv2_of_somewhere_else"),
            (b"authorization", f"Bearer {SECRET}".encode()),
        ],
    ],
)
async def test_a_key_is_its_names(authenticate, headers):
    caller = await authenticate(scope(*headers))
    assert (caller.identity, caller.permissions) == ("ops", ())
    assert dict(caller.user) == {
        "identity": "ops",
        "is_authenticated": True,
        "display_name": "ops",
    }


@pytest.mark.parametrize(
    ("headers", "detail"),
    [
        ([], "Missing API key"),
        ([(b"authorization", b"Basic " + SECRET.encode())], "Missing API key"),
        ([(b"x-api-key", b"wrong")], "Unknown API key"),
        ([(b"authorization", b"Bearer \xff")], "Unknown API key"),
        ([(b"x-api-key", b"")], "Unknown API key"),
    ],
)
async def test_all_others_stay_outside(authenticate, headers, detail):
    with pytest.raises(Denied, match=detail) as denied:
        await authenticate(scope(*headers))
    assert (denied.value.status, denied.value.headers) == (401, {"WWW-Authenticate": "Bearer"})


async def test_a_revoked_key_is_refused_soon(tmp_path: Path):
    key, stored = new_key("ann", "")
    file, now = tmp_path / "keys", [0.0]
    write_keys(file, [stored])
    authenticate = KeyAuthentication(KeyRing({}, file), None, lambda: now[0])
    header = (b"x-api-key", key.encode())
    assert (await authenticate(scope(header))).identity == "ann"
    write_keys(file, [])
    now[0] += RELOAD_SECONDS
    with capture_logs() as logged, pytest.raises(Denied):
        await authenticate(scope(header))
    assert [entry["log_level"] for entry in logged] == ["info"]


async def test_a_broken_file_is_logged_and_the_keys_stay(tmp_path: Path):
    key, stored = new_key("ann", "")
    file, now = tmp_path / "keys", [0.0]
    write_keys(file, [stored])
    authenticate = KeyAuthentication(KeyRing({}, file), None, lambda: now[0])
    file.write_text("nonsense")
    now[0] += RELOAD_SECONDS
    with capture_logs() as logged:
        assert (await authenticate(scope((b"x-api-key", key.encode())))).identity == "ann"
    assert [entry["log_level"] for entry in logged] == ["error"]
