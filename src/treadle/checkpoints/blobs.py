"""Checkpoints encrypted by the user's own handlers (``encryption.path``).

Handlers are async, and may ask a service over the network; the body of a transaction awaits
nothing but its transaction. So values are encrypted before a transaction, and decrypted after it.
What transactions need of a checkpoint, which versions of which channels it has, stays in the
clear; the values that lie inside it are encrypted together, as one part of it.
"""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Sequence
from typing import Any, cast

import structlog
from langgraph.checkpoint.serde.base import SerializerProtocol
from langgraph_sdk.encryption import Encryption
from langgraph_sdk.encryption.types import DecryptResult, EncryptionContext

from treadle.auth.users import User
from treadle.checkpoints.rows import NewRow
from treadle.database import Row
from treadle.errors import RequestError, StartupError
from treadle.serialization import dumps, loads

logger = structlog.get_logger("treadle.encryption")

Metadata = dict[str, Any]

BLOB, PARTS = "handlers", "handlers-inside"
"""The ciphers of a value, and of a checkpoint with an encrypted part."""

_PART = "treadle_encrypted"
_LENGTH = struct.Struct(">I")
_JSON = (
    "JSON handlers (encrypt.json, decrypt.json) are not supported: Treadle would store in the"
    " clear what they are for. Take them out, if blob handlers are enough."
)


class HandlerFailed(RequestError):
    """A handler of the user's has raised, or returned what is no blob."""

    status = 503


class BlobHandlers:
    """The blob handlers of an ``Encryption``, and its context handler.

    Raises ``StartupError`` if there is not one blob handler of each kind, or if it has JSON
    handlers.
    """

    def __init__(self, encryption: object, source: str) -> None:
        if not isinstance(encryption, Encryption):
            raise StartupError(
                f"encryption.path: {source} is a {type(encryption).__name__}. It has to be a"
                " langgraph_sdk.Encryption."
            )
        if encryption.get_json_encryptor() or encryption.get_json_decryptor():
            raise StartupError(f"encryption.path: {source} has handlers for JSON. {_JSON}")
        encrypt, decrypt = encryption._blob_encryptor, encryption._blob_decryptor  # pyright: ignore[reportPrivateUsage]
        if encrypt is None or decrypt is None:
            raise StartupError(
                f"encryption.path: {source} needs both blob handlers, encrypt.blob and"
                " decrypt.blob; one that only encrypts could not be read again."
            )
        self._encrypt, self._decrypt = encrypt, decrypt
        self._context = encryption._context_handler  # pyright: ignore[reportPrivateUsage]

    async def context(self, user: User | None) -> Metadata:
        """What the context handler says of a user; {} without one of the two.

        Handlers get it as ``ctx.metadata``; it is stored in the clear with each value.
        """
        if self._context is None or user is None:
            return {}
        try:
            metadata = await self._context(cast("Any", user), EncryptionContext())
        except Exception as error:
            raise _failed("context", error) from error
        if not isinstance(metadata, dict):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise _failed("context", TypeError(f"it has returned {metadata!r:.80}, not a dict"))
        return loads(dumps(metadata))

    def sealer(self, serde: SerializerProtocol, user: User | None = None) -> Sealer:
        """Encrypts what is put on behalf of a user."""
        return Sealer(self, serde, user)

    async def sealed(self, metadata: Metadata, data: bytes) -> bytes:
        """A value encrypted, with the context that it takes to decrypt it."""
        context = EncryptionContext("checkpoint", {**metadata})
        try:
            blob = await self._encrypt(context, data)
        except Exception as error:
            raise _failed("encrypt.blob", error) from error
        if not isinstance(blob, bytes):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise _failed("encrypt.blob", TypeError(f"it has returned a {type(blob).__name__}"))
        stored = dumps(metadata)
        return _LENGTH.pack(len(stored)) + stored + blob

    async def opened(self, serde: SerializerProtocol, rows: Sequence[Row]) -> Sequence[Row]:
        """Rows as if nothing in them had been encrypted by handlers."""
        if not rows or "type" not in dict(rows[0]):
            return rows
        return await asyncio.gather(*(self._opened_row(serde, row) for row in rows))

    async def _opened_row(self, serde: SerializerProtocol, row: Row) -> Row:
        kind, _, cipher = row["type"].rpartition("+")
        if cipher == BLOB:
            return {**dict(row), "type": kind, "value": await self._opened(bytes(row["value"]))}
        if cipher != PARTS:
            return row
        checkpoint = serde.loads_typed((kind, bytes(row["checkpoint"])))
        inner, blob = checkpoint.pop(_PART)
        checkpoint["channel_values"] = serde.loads_typed((inner, await self._opened(blob)))
        kind, data = serde.dumps_typed(checkpoint)
        return {**dict(row), "type": kind, "checkpoint": data}

    async def _opened(self, stored: bytes) -> bytes:
        (length,) = _LENGTH.unpack_from(stored)
        begin = _LENGTH.size + length
        context = EncryptionContext("checkpoint", loads(stored[_LENGTH.size : begin]))
        try:
            result = await self._decrypt(context, stored[begin:])
        except Exception as error:
            raise _failed("decrypt.blob", error) from error
        plaintext = result.plaintext if isinstance(result, DecryptResult) else result
        if not isinstance(plaintext, bytes):  # pyright: ignore[reportUnnecessaryIsInstance]
            name = type(plaintext).__name__
            raise _failed("decrypt.blob", TypeError(f"it has returned a {name}"))
        return plaintext


class Sealer:
    """Encrypts, before a transaction, what that is to insert. One is for one request or run."""

    def __init__(
        self, handlers: BlobHandlers, serde: SerializerProtocol, user: User | None
    ) -> None:
        self._handlers, self._serde, self._user = handlers, serde, user
        self._metadata: Metadata | None = None

    async def seal(self, rows: Sequence[NewRow], checkpoint: NewRow | None = None) -> None:
        """Encrypt, in place, rows of values or writes, and the values inside of a checkpoint."""
        if self._metadata is None:
            self._metadata = await self._handlers.context(self._user)
        metadata, seal = self._metadata, self._handlers.sealed
        sealing = [seal(metadata, row["value"]) for row in rows]
        if checkpoint is not None:
            sealing.append(self._seal_inside(metadata, checkpoint))
        blobs = await asyncio.gather(*sealing)
        for row, blob in zip(rows, blobs, strict=False):
            row["type"], row["value"] = f"{row['type']}+{BLOB}", blob

    async def _seal_inside(self, metadata: Metadata, row: NewRow) -> bytes:
        checkpoint = self._serde.loads_typed((row["type"], row["checkpoint"]))
        inside = checkpoint["channel_values"]
        kind, data = self._serde.dumps_typed(inside)
        sealed = await self._handlers.sealed(metadata, data)
        checkpoint["channel_values"] = dict.fromkeys(inside)
        checkpoint[_PART] = kind, sealed
        kind, row["checkpoint"] = self._serde.dumps_typed(checkpoint)
        row["type"] = f"{kind}+{PARTS}"
        return sealed


def _failed(handler: str, error: Exception) -> HandlerFailed:
    """What the client is told; the rest may be nobody's business, and is in the log."""
    logger.error("a handler of encryption.path has failed", handler=handler, exc_info=error)
    return HandlerFailed(
        f"The handler {handler} of encryption.path has failed ({type(error).__name__}); the log"
        " of the server says more."
    )
