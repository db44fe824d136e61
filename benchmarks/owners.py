"""The policy of ``thread_search.py``: callers name a customer, and see that customer's threads."""

from __future__ import annotations

from typing import Any

from langgraph_sdk import Auth

auth = Auth()


@auth.authenticate
async def authenticate(headers: dict[bytes, bytes]) -> str:
    return headers[b"x-customer"].decode()


@auth.on.threads
async def own(ctx: Any, value: Any) -> dict[str, Any]:
    return {"customer": int(ctx.user.identity)}
