"""The public conformance suite of checkpointers, every capability."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
from langgraph.checkpoint.conformance.capabilities import Capability
from langgraph.checkpoint.conformance.initializer import RegisteredCheckpointer
from langgraph.checkpoint.conformance.validate import validate

from treadle.checkpoints import RunSaver, Saver
from treadle.checkpoints.aes import AesCipher
from treadle.checkpoints.encryption import encrypted
from treadle.checkpoints.serde import state_serializer
from treadle.ids import new_id

CIPHERS = (None, AesCipher(b"k" * 32))


@pytest.mark.parametrize("kind", ["saver", "encrypted saver", "run saver", "run saver, sync"])
@pytest.mark.parametrize("capability", [capability.value for capability in Capability])
async def test_capability(kind: str, capability: str, new_database: Any) -> None:
    async def make() -> AsyncIterator[Saver]:
        database = new_database()
        await database.open()
        saver = Saver(database, encrypted(state_serializer(), CIPHERS[kind.startswith("enc")]))
        if kind.startswith("run"):
            saver = RunSaver(saver, new_id(), sync=kind.endswith("sync"))
        yield saver
        await database.close()

    report = await validate(RegisteredCheckpointer(kind, make), capabilities={capability})
    result = report.results[capability]
    assert result.failures == []
    assert result.tests_passed > 0
