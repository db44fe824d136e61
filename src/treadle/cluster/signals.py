"""Short messages between the processes that share a database.

A signal says what has changed, never what it is now: whoever hears it looks at the database. It
is told within the transaction that makes the change, so it is heard when the change can be seen.
Signals can be missed (a connection is lost): then all who depend on them look again.
"""

from __future__ import annotations

from collections.abc import Callable

import structlog

from treadle.database import Database, Listener, Transaction
from treadle.ids import new_id

logger = structlog.get_logger("treadle.cluster")

Hear = Callable[..., None]


class Signals:
    """The signals of this process, which goes by the name ``me``.

    A process does not hear itself. With SQLite there is nobody to hear or tell: ``is_alone``.
    """

    def __init__(self, database: Database) -> None:
        self.me = new_id()[-12:]
        self.is_alone = True
        self._database = database
        self._hear: dict[str, Hear] = {}
        self._look_again: list[Callable[[], None]] = []
        self._listener: Listener | None = None

    def on(self, kind: str, hear: Hear) -> None:
        """Call ``hear`` with the words of each signal of this kind."""
        self._hear[kind] = hear

    def on_missed(self, look_again: Callable[[], None]) -> None:
        """Call ``look_again`` when signals may have been missed."""
        self._look_again.append(look_again)

    async def open(self) -> None:
        """Begin to listen; all kinds have to be known by now."""
        self._listener = await self._database.listen(self.me, self._heard, self._missed)
        self.is_alone = self._listener is None

    async def close(self) -> None:
        if self._listener is not None:
            await self._listener.close()
            self._listener = None

    def tell(self, transaction: Transaction, kind: str, *about: str, to: str | None = None) -> None:
        """Let the others, or only one of them, hear this once the transaction is committed."""
        if not self.is_alone:
            transaction.announce(" ".join((self.me, kind, *about)), to)

    def tell_now(self, kind: str, *about: str, to: str | None = None) -> None:
        """Let the others hear this, which is about no change of the database's."""
        if self.is_alone:
            return

        async def body(transaction: Transaction) -> None:
            self.tell(transaction, kind, *about, to=to)

        def failed(error: Exception) -> None:
            logger.warning("a signal could not be told", kind=kind, error=repr(error))

        self._database.write_soon(body, failed)
        self._database.hurry()

    def _heard(self, text: str) -> None:
        sender, kind, *about = text.split(" ")
        if sender != self.me and (hear := self._hear.get(kind)) is not None:
            try:
                hear(*about)
            except Exception:
                logger.exception("a signal could not be followed", kind=kind)

    def _missed(self) -> None:
        for look_again in self._look_again:
            look_again()
