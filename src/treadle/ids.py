"""Identifiers: UUIDs, lower case with dashes."""

from __future__ import annotations

from uuid import UUID

from uuid_utils import uuid7

from treadle.errors import Invalid


def new_id() -> str:
    """A new UUID of version 7: ids sort by the time at which they were made."""
    return str(uuid7())


def parse_id(text: object, what: str) -> str:
    """``text`` as a canonical UUID string.

    Any form that a UUID parser takes is accepted (upper case, no dashes, braces). ``what``
    names the thing in the refusal: ``Invalid thread ID: must be a UUID``.
    """
    if isinstance(text, str):
        try:
            return str(UUID(text))
        except ValueError:
            pass
    raise Invalid(f"Invalid {what} ID: must be a UUID")
