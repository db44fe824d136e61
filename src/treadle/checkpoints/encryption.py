"""Which of the ways to encrypt checkpoints a server goes, and whether it can read what is there."""

from __future__ import annotations

from langgraph.checkpoint.serde.base import CipherProtocol, SerializerProtocol
from langgraph.checkpoint.serde.encrypted import EncryptedSerializer

from treadle.checkpoints import queries
from treadle.checkpoints.aes import CIPHER, AesCipher, missing
from treadle.checkpoints.blobs import BLOB, PARTS
from treadle.database import Database
from treadle.errors import StartupError, Unsupported

NO_HANDLERS = (
    "Stored checkpoints are encrypted by handlers that are not there: encryption.path in"
    " langgraph.json has to name the Encryption that they were encrypted with."
)


def encrypted(
    inner: SerializerProtocol, aes: AesCipher | None, *, handlers: bool = False
) -> SerializerProtocol:
    """A serializer that encrypts by AES if that has a key to; it reads also what is in the clear.

    With ``handlers``, values go through these afterwards, and AES only reads what it wrote.
    """
    if aes is not None and aes.encrypts and not handlers:
        return EncryptedSerializer(_Ciphers(aes, handlers), inner)
    return _ReadingSerializer(_Ciphers(aes, handlers), inner)


class _ReadingSerializer(EncryptedSerializer):
    """Reads what is encrypted, and writes in the clear, at no cost."""

    def __init__(self, cipher: CipherProtocol, serde: SerializerProtocol) -> None:
        super().__init__(cipher, serde)
        self.dumps_typed = serde.dumps_typed


class _Ciphers(CipherProtocol):
    """All ciphers that a value can have: what cannot be read is never taken for something else."""

    def __init__(self, aes: AesCipher | None, handlers: bool) -> None:
        self._aes, self._handlers = aes, handlers

    def encrypt(self, plaintext: bytes) -> tuple[str, bytes]:
        assert self._aes is not None
        return self._aes.encrypt(plaintext)

    def decrypt(self, ciphername: str, ciphertext: bytes) -> bytes:
        if ciphername == PARTS and self._handlers:
            return ciphertext  # but for a part, it is in the clear
        if ciphername in (BLOB, PARTS):
            raise Unsupported(NO_HANDLERS)
        if self._aes is None:
            raise Unsupported(missing(ciphername.removeprefix(CIPHER)))
        return self._aes.decrypt(ciphername, ciphertext)


async def check_readable(database: Database, aes: AesCipher | None, *, handlers: bool) -> None:
    """Raise ``StartupError`` if the latest threads' checkpoints need what is not there.

    Older ones may need other keys still: to look at all of them would take too long.
    """
    rows = await database.scan(queries.LATEST_TYPES)
    ciphers = {row["type"].partition("+")[2] for row in rows} - {""}
    if PARTS in ciphers and not handlers:
        raise StartupError(NO_HANDLERS)
    needed = {name.removeprefix(CIPHER) for name in ciphers - {PARTS}}
    if absent := sorted(id for id in needed if aes is None or id not in aes):
        raise StartupError(missing(*absent))
