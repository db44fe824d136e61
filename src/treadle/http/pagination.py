"""Pages of a list: the bounds that all share, and the headers that lead to the next one."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

MAX_PAGE = 1000

Limit = Annotated[int, Meta(ge=1, le=MAX_PAGE)]
Offset = Annotated[int, Meta(ge=0, le=2**63 - 1)]


def page_headers(total: int, offset: int, returned: int) -> list[tuple[bytes, bytes]]:
    """``X-Pagination-Total``: all matches; ``X-Pagination-Next``: the next offset, if any."""
    headers = [(b"x-pagination-total", str(total).encode())]
    following = offset + returned
    if returned and following < total:
        headers.append((b"x-pagination-next", str(following).encode()))
    return headers
