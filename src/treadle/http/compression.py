"""gzip for large answers that are known whole."""

from __future__ import annotations

import asyncio
import gzip

from treadle.http.response import Body

COMPRESS_FROM_BYTES = 16 * 1024
OFF_LOOP_FROM_BYTES = 64 * 1024
LEVEL = 1


async def compressed(answer: Body, accepted: bytes) -> Body:
    """``answer``, as gzip if the client takes it."""
    varying = (*answer.headers, (b"vary", b"Accept-Encoding"))
    if not _takes_gzip(accepted):
        return Body(answer.body, answer.status, varying)
    if len(answer.body) >= OFF_LOOP_FROM_BYTES:
        packed = await asyncio.to_thread(gzip.compress, answer.body, LEVEL, mtime=0)
    else:
        packed = gzip.compress(answer.body, LEVEL, mtime=0)
    return Body(packed, answer.status, (*varying, (b"content-encoding", b"gzip")))


def _takes_gzip(accepted: bytes) -> bool:
    for coding in accepted.split(b","):
        name, _, weight = coding.partition(b";")
        if name.strip().lower() in (b"gzip", b"*"):
            return weight.replace(b" ", b"") not in (b"q=0", b"q=0.0", b"q=0.00", b"q=0.000")
    return False
