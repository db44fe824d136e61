"""The ``Idempotency-Key`` header: a request that is sent again makes nothing twice.

The key is remembered in the transaction that makes what the request asks for, for
``KEPT_SECONDS``, for each caller. The same request again (same path, same body) is answered with
what the first one made; another request with the same key is refused.
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import blake2b
from typing import Any, NamedTuple

import msgspec

from treadle.clock import SECOND_US, now_us
from treadle.database import Transaction
from treadle.errors import Invalid
from treadle.serialization import dump_text, loads

KEPT_SECONDS = 24 * 3600
LONGEST_KEY = 255

FORGET_OLD = "DELETE FROM idempotency_keys WHERE created_at <= :old"

REMEMBER = """
INSERT INTO idempotency_keys (caller, key, fingerprint, made, created_at)
VALUES (:caller, :key, :fingerprint, :made, :now) ON CONFLICT (caller, key) DO NOTHING
"""

RECALL = "SELECT fingerprint, made FROM idempotency_keys WHERE caller = :caller AND key = :key"


class IdempotencyKey(NamedTuple):
    """A key, and what tells the request that it was given with from others."""

    caller: str
    key: str
    fingerprint: str


def idempotency_key(text: str | None, caller: str, path: str, body: Any) -> IdempotencyKey | None:
    """The key of a request; None if it has none. ``Invalid`` if it is empty or too long."""
    if text is None:
        return None
    if not text.strip() or len(text) > LONGEST_KEY:
        raise Invalid(f"Idempotency-Key has to have 1 to {LONGEST_KEY} characters")
    content = path.encode() + b"\n" + msgspec.json.encode(body)
    return IdempotencyKey(caller, text, blake2b(content, digest_size=16).hexdigest())


async def made_before(
    transaction: Transaction, key: IdempotencyKey | None, making: Sequence[Any]
) -> list[Any] | None:
    """What an earlier request with this key made; None if ``making`` is to be made now.

    Raises ``Invalid`` if the earlier request was another.
    """
    if key is None:
        return None
    now = now_us()
    await transaction.send(FORGET_OLD, {"old": now - KEPT_SECONDS * SECOND_US})
    values = {**key._asdict(), "made": dump_text(list(making)), "now": now}
    if await transaction.execute(REMEMBER, values):
        return None
    row = await transaction.fetch_one(RECALL, values)
    if row is None or row["fingerprint"] != key.fingerprint:
        raise Invalid(
            f"Idempotency-Key {key.key!r} was used for another request within the last"
            f" {KEPT_SECONDS // 3600} hours: use a new key for a new request"
        )
    return loads(row["made"])
