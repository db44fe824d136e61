"""API keys: made, kept as salted hashes in a file, and told apart in constant time.

A key that ``treadle keys new`` makes is ``tk_SALT_SECRET``, with 240 random bits of secret.
Guessing at so many is hopeless however fast a guess is, so the hash is a plain SHA-256 (of the
whole key, its salt included) and a request pays a microsecond for it; a slow hash such as scrypt
is for what people think up. The salt finds the line of the file, so that one hash is compared,
however many keys there are.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import re
import secrets
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path

import msgspec

from treadle.errors import StartupError

KEYS_VARIABLE = "TREADLE_API_KEYS"
FILE_VARIABLE = "TREADLE_API_KEYS_FILE"
DEFAULT_NAME = "default"
SHORTEST_SECRET = 16
SECRET_BYTES = 30

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,63}")
_LINE = re.compile(
    r"(?P<name>\S+) sha256:(?P<salt>[0-9a-f]{16}):(?P<digest>[0-9a-f]{64})(?: (?P<made>\S+))?"
)
_KEY = re.compile(r"tk_([0-9a-f]{16})_[\w-]+", re.ASCII)
_HEAD = "# API keys of Treadle: name, hash, day. `treadle keys` adds and revokes.\n"


class StoredKey(msgspec.Struct, frozen=True):
    """A key as its file has it: whoever reads the file cannot use it."""

    name: str
    salt: str
    digest: str
    made: str = ""

    @property
    def line(self) -> str:
        return f"{self.name} sha256:{self.salt}:{self.digest} {self.made}".rstrip()


def new_key(name: str, made: str) -> tuple[str, StoredKey]:
    """A new key, and what is to be kept of it."""
    salt = secrets.token_hex(8)
    key = f"tk_{salt}_{secrets.token_urlsafe(SECRET_BYTES)}"
    return key, StoredKey(name, salt, _digest(key), made)


def check_name(name: str) -> str:
    """``name`` if it can be a key's. Raises ``StartupError``."""
    if not _NAME.fullmatch(name):
        raise StartupError(
            f'"{name}" cannot name an API key: a name has letters, digits and . _ @ -, at most 64,'
            " and begins with a letter or digit."
        )
    return name


def read_keys(path: Path) -> list[StoredKey]:
    """The keys of a file. Raises ``StartupError`` naming the line that is none."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise StartupError(f"The file of API keys {path} cannot be read: {error}") from None
    keys: list[StoredKey] = []
    for number, line in enumerate(lines, 1):
        if not (text := line.strip()) or text.startswith("#"):
            continue
        found = _LINE.fullmatch(text)
        if found is None or not _NAME.fullmatch(found["name"]):
            raise StartupError(
                f"Line {number} of {path} is no API key: it has to be as `treadle keys new` writes"
                " it, NAME sha256:SALT:HASH DAY."
            )
        keys.append(StoredKey(found["name"], found["salt"], found["digest"], found["made"] or ""))
    if doubled := _doubled(key.name for key in keys):
        raise StartupError(f"{path} has two API keys with the name {doubled}.")
    return keys


def write_keys(path: Path, keys: Iterable[StoredKey]) -> None:
    """Put ``keys`` into the file, all at once; only its owner may read it. Comments go."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(_HEAD)
            file.writelines(f"{key.line}\n" for key in keys)
        os.replace(name, path)
    except OSError as error:
        raise StartupError(f"The file of API keys {path} cannot be written: {error}") from None


class KeyRing:
    """Which key is whose. The secrets themselves are not kept, only their hashes.

    Whether a key fits is found by one comparison of hashes, whatever the key is: how long that
    takes says nothing of the keys there are.
    """

    def __init__(self, given: Mapping[str, str], file: Path | None) -> None:
        """``given`` are names with secrets. Raises ``StartupError`` if ``file`` is of no use."""
        self._file = file
        self._salt = secrets.token_bytes(32)
        self._given = {self._salted(secret): name for name, secret in given.items()}
        self._names = set(given)
        self._stored: dict[str, StoredKey] = {}
        self._seen: object = None
        if file is not None:
            self._seen = _version(file)
            self._take(file)

    @classmethod
    def read(cls, environ: Mapping[str, str], folder: Path) -> KeyRing | None:
        """The keys that the environment names, None if it names none; see ``parse_keys``."""
        given = parse_keys(environ.get(KEYS_VARIABLE, ""))
        file = environ.get(FILE_VARIABLE, "").strip()
        return cls(given, folder / file if file else None) if given or file else None

    def owner(self, key: str) -> str | None:
        """The name of a key; None if there is no such key (any more)."""
        if (found := _KEY.fullmatch(key)) is not None and (
            stored := self._stored.get(found[1])
        ) is not None:
            return stored.name if hmac.compare_digest(_digest(key), stored.digest) else None
        return self._given.get(self._salted(key))

    def reload(self) -> bool:
        """Take the file's keys anew if it has changed; whether it has.

        Raises ``StartupError`` once if it cannot be read; the keys stay as they were.
        """
        if self._file is None or (seen := _version(self._file)) == self._seen:
            return False
        self._seen = seen
        self._take(self._file)
        return True

    def _take(self, file: Path) -> None:
        keys = read_keys(file)
        if doubled := _doubled([*self._names, *(key.name for key in keys)]):
            raise StartupError(f"{KEYS_VARIABLE} and {file} both have a key named {doubled}.")
        self._stored = {key.salt: key for key in keys}

    def _salted(self, secret: str) -> bytes:
        """A hash with a salt of this process: a table of these can be searched without worry."""
        return hashlib.blake2b(secret.encode(), key=self._salt).digest()


def parse_keys(text: str) -> dict[str, str]:
    """``name:secret, name:secret`` as a dict; one secret may stand alone.

    Raises ``StartupError``, whose message shows no secret.
    """
    keys: dict[str, str] = {}
    for number, entry in enumerate(filter(None, (part.strip() for part in text.split(","))), 1):
        name, colon, secret = entry.partition(":")
        if not colon:
            name, secret = DEFAULT_NAME, entry
        where = f"Key {number} of {KEYS_VARIABLE}"
        if not _NAME.fullmatch(name):
            raise StartupError(
                f"{where} has no name that can be used: write NAME:SECRET, where a name has"
                " letters, digits and . _ @ -, at most 64."
            )
        if len(secret) < SHORTEST_SECRET or not secret.isascii() or not secret.isprintable():
            raise StartupError(
                f"{where} has a secret that is too easy to guess, or that cannot be sent: it has"
                f" {SHORTEST_SECRET} ASCII characters or more. `treadle keys new NAME` makes one."
            )
        if name in keys:
            raise StartupError(f"{KEYS_VARIABLE} has two keys named {name}: write NAME:SECRET.")
        if secret in keys.values():
            raise StartupError(f"{where} has the secret of another key.")
        keys[name] = secret
    return keys


def _digest(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()


def _doubled(names: Iterable[str]) -> str | None:
    seen: set[str] = set()
    for name in names:
        if name in seen:
            return name
        seen.add(name)
    return None


def _version(file: Path) -> object:
    """What changes whenever the file does."""
    try:
        found = file.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino
