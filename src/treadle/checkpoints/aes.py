"""The cipher whose keys the environment has: ``LANGGRAPH_AES_KEY`` and older ones."""

from __future__ import annotations

import hmac
import os
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Self

from langgraph.checkpoint.serde.base import CipherProtocol

from treadle.errors import StartupError, Unsupported

KEY_VARIABLE = "LANGGRAPH_AES_KEY"
FALLBACK_VARIABLE = "LANGGRAPH_AES_FALLBACK_KEYS"
LEGACY_VARIABLE = "LANGGRAPH_AES_LEGACY_KEY"
JSON_VARIABLE = "LANGGRAPH_AES_JSON_KEYS"

KEY_BYTES = (16, 24, 32)
SALT_BYTES, NONCE_BYTES = 16, 12
CIPHER = "aes-gcm:"
"""Begins the name of the cipher; the id of the key follows."""


class AesCipher(CipherProtocol):
    """AES-GCM with one key that encrypts, if it is given, and any number that decrypt.

    An encrypted value names its key: the type of its row is ``msgpack+aes-gcm:1f0c66a2``. A key
    never encrypts data itself: each object of this class derives another one from it, of the same
    length, by HMAC-SHA256 over a random salt that is kept with the value. So the limit of AES-GCM
    with random nonces, 2 ** 32 values, holds for a process, and not for a key's whole life.
    """

    def __init__(self, key: bytes | None, others: Iterable[bytes] = ()) -> None:
        from cryptography.exceptions import InvalidTag
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM

        self._wrong: tuple[type[Exception], ...] = (InvalidTag, ValueError)
        self.encrypts = key is not None
        self._keys = {key_id(one): one for one in (*others, *([] if key is None else [key]))}
        self._id = "" if key is None else key_id(key)
        self._salt = os.urandom(SALT_BYTES)

        @lru_cache(maxsize=4096)
        def derived(id: str, salt: bytes) -> AESGCM:
            master = self._keys[id]
            return AESGCM(hmac.digest(master, salt, "sha256")[: len(master)])

        self._derived = derived

    @classmethod
    def read(cls, environ: Mapping[str, str]) -> Self | None:
        """The cipher that the environment asks for; None without a key. Raises ``StartupError``."""
        if environ.get(JSON_VARIABLE, "").strip():
            raise StartupError(
                f"{JSON_VARIABLE} is set, and Treadle does not encrypt single JSON keys: what"
                " they hold would be stored in the clear. Take the variable out."
            )
        given = {
            name: _keys_in(environ, name)
            for name in (KEY_VARIABLE, LEGACY_VARIABLE, FALLBACK_VARIABLE)
        }
        names = [name for name, keys in given.items() if keys]
        if not names:
            return None
        key = given[KEY_VARIABLE][0] if given[KEY_VARIABLE] else None
        try:
            return cls(key, (*given[LEGACY_VARIABLE], *given[FALLBACK_VARIABLE]))
        except ImportError:
            raise StartupError(
                f"{names[0]} is set, and the package cryptography is missing. Install it with\n"
                "  pip install 'treadle[encryption]'"
            ) from None

    def __contains__(self, id: str) -> bool:
        """Whether values can be decrypted that name this key."""
        return id in self._keys

    def encrypt(self, plaintext: bytes) -> tuple[str, bytes]:
        nonce = os.urandom(NONCE_BYTES)
        encrypted = self._derived(self._id, self._salt).encrypt(nonce, plaintext, None)
        return CIPHER + self._id, self._salt + nonce + encrypted

    def decrypt(self, ciphername: str, ciphertext: bytes) -> bytes:
        """The plaintext. Raises ``Unsupported`` if no key fits, or the value was tampered with."""
        id = ciphername.removeprefix(CIPHER)
        if id not in self._keys:
            raise Unsupported(missing(id))
        salt, rest = ciphertext[:SALT_BYTES], ciphertext[SALT_BYTES:]
        try:
            return self._derived(id, salt).decrypt(rest[:NONCE_BYTES], rest[NONCE_BYTES:], None)
        except self._wrong:
            raise Unsupported(
                f"A stored checkpoint cannot be decrypted with the key that it names ({id}): its"
                " bytes are not those that were written."
            ) from None


def key_id(key: bytes) -> str:
    """A name for a key that does not tell what it is."""
    return hmac.digest(key, b"treadle: the name of a key", "sha256")[:4].hex()


def missing(*ids: str) -> str:
    """Says of which keys the database has need, and where they belong."""
    what, verb = ("a key", "is") if len(ids) == 1 else ("keys", "are")
    return (
        f"Stored checkpoints are encrypted with {what} that {verb} not there (id"
        f" {', '.join(ids)}). Set {KEY_VARIABLE} to the key that they were encrypted with; keys"
        f" that were in use before it go into {FALLBACK_VARIABLE}."
    )


def _keys_in(environ: Mapping[str, str], name: str) -> list[bytes]:
    """The keys of a variable: only one of the variables may have several. They are never shown."""
    text = environ.get(name, "")
    parts = text.split(",") if name == FALLBACK_VARIABLE else [text]
    keys = [stripped.encode() for part in parts if (stripped := part.strip())]
    for key in keys:
        if len(key) not in KEY_BYTES:
            raise StartupError(
                f"{name} has a key of {len(key)} bytes: it has to be 16, 24 or 32 bytes long, for"
                " AES-128, AES-192 or AES-256."
            )
    return keys
