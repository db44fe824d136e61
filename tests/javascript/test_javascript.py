"""The public JavaScript SDK against a server of the conformance suite's graphs."""

from __future__ import annotations

from pathlib import Path

import pytest

import node_suite

HERE = Path(__file__).parent


@pytest.mark.timeout(400)
def test_thread_stream(tmp_path: Path) -> None:
    node_suite.install(HERE)
    config = HERE.parent / "conformance" / "protocol_v2" / "langgraph.json"
    with node_suite.server(config, tmp_path) as url:
        node_suite.run(HERE / "thread_stream.test.mjs", url)
