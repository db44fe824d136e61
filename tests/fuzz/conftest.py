"""A server for the tests of what comes in."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from .serving import serving
from .world import World


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with serving("runs", tmp_path_factory.mktemp("fuzz")) as server:
        yield World(server)
