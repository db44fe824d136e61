"""``/docs``: the OpenAPI document as a page that needs nothing from elsewhere."""

from __future__ import annotations

from pathlib import Path

_TEMPLATE = Path(__file__).with_name("docs.html")


def docs_page(openapi: bytes) -> bytes:
    """The page with the document in it; ``<`` is escaped, so nothing in it ends the script."""
    before, after = _TEMPLATE.read_bytes().split(b"{{document}}")
    return before + openapi.replace(b"<", b"\\u003c") + after
