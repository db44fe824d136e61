"""``useStream`` of the public JavaScript SDK in a page, in a headless Chromium."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

import node_suite

HERE = Path(__file__).parent


@pytest.mark.timeout(400)
def test_conversation(tmp_path: Path) -> None:
    chromium = Path(os.environ.get("CHROMIUM", "/usr/bin/chromium"))
    assert chromium.exists(), f"needs a Chromium at {chromium}: see the Makefile's target browser"
    node_suite.install(HERE)
    gates = tmp_path / "gates"
    gates.mkdir()
    with node_suite.server(HERE / "langgraph.json", tmp_path, GATES=str(gates)) as url:
        script = HERE / "conversation.test.mjs"
        node_suite.run(script, url, CHROMIUM=str(chromium), GATES=str(gates))
