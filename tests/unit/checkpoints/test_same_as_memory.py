"""Whatever is put, what comes back is what langgraph's own InMemorySaver gives back."""

from __future__ import annotations

import random
from typing import Any

import pytest
from langgraph.checkpoint.base import BaseCheckpointSaver, empty_checkpoint
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.checkpoint.serde.types import ERROR, INTERRUPT, _DeltaSnapshot

from treadle.checkpoints import RunSaver, Saver
from treadle.ids import new_id

THREAD = new_id()
NAMESPACES = ("", "inner:1")
SMALL = (None, True, 7, 2.5, "short")
LARGE = ("long " * 50, [1, 2], {"k": b"bytes"}, b"", {3})


def config(checkpoint_ns: str, checkpoint_id: str | None = None) -> dict[str, Any]:
    named: dict[str, Any] = {"thread_id": THREAD, "checkpoint_ns": checkpoint_ns}
    if checkpoint_id:
        named["checkpoint_id"] = checkpoint_id
    return {"configurable": named, "metadata": {"run_id": "run", "nul": "a\x00b"}}


class Story:
    """A random history of puts, told to both savers alike."""

    def __init__(self, seed: int, *savers: BaseCheckpointSaver[str]) -> None:
        self.random = random.Random(seed)
        self.savers = savers
        self.made: dict[str, list[dict[str, Any]]] = {ns: [] for ns in NAMESPACES}

    async def tell(self, length: int) -> None:
        for step in range(length):
            checkpoint_ns = self.random.choice(NAMESPACES)
            await self._put(checkpoint_ns, step)
            for _ in range(self.random.randrange(3)):
                await self._put_writes(checkpoint_ns)

    async def _put(self, checkpoint_ns: str, step: int) -> None:
        made = self.made[checkpoint_ns]
        parent = self.random.choice([*made[-2:], made[-1]]) if made else None
        checkpoint = empty_checkpoint()
        checkpoint["id"] = f"{step:08}"
        checkpoint["channel_versions"] = dict(parent["channel_versions"]) if parent else {}
        values = dict(parent["channel_values"]) if parent else {}
        values.pop("delta", None)
        new_versions: dict[str, Any] = {}
        for channel in self.random.sample(["plain", "other", "gone", "delta"], 2):
            version = self.savers[0].get_next_version(
                checkpoint["channel_versions"].get(channel), None
            )
            new_versions[channel] = checkpoint["channel_versions"][channel] = version
            values[channel] = self.random.choice(SMALL + LARGE)
            if channel == "gone" and self.random.random() < 0.5:
                del values[channel]
            if channel == "delta":
                del values[channel]
                if self.random.random() < 0.2:
                    values[channel] = _DeltaSnapshot([step])
        checkpoint["channel_values"] = values
        metadata: Any = {"source": "loop", "step": step, "parents": {"": str(step % 2)}}
        for saver in self.savers:
            parent_id = parent["id"] if parent else None
            await saver.aput(config(checkpoint_ns, parent_id), checkpoint, metadata, new_versions)
        made.append(checkpoint)

    async def _put_writes(self, checkpoint_ns: str) -> None:
        checkpoint = self.random.choice(self.made[checkpoint_ns][-2:])
        channels = self.random.choices(["delta", "plain", ERROR, INTERRUPT], k=3)
        writes = [(channel, self.random.choice(SMALL + LARGE)) for channel in channels]
        task_id = self.random.choice("abc")
        for saver in self.savers:
            named = config(checkpoint_ns, checkpoint["id"])
            await saver.aput_writes(named, writes, task_id, f"~path {task_id}")


async def listed(saver: BaseCheckpointSaver[str], *args: Any, **kwargs: Any) -> list[Any]:
    return [plain(one) async for one in saver.alist(*args, **kwargs)]


def plain(one: Any) -> Any:
    return one and {
        **one._asdict(),
        "config": one.config["configurable"],
        "parent_config": one.parent_config and one.parent_config["configurable"],
    }


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("kind", ["saver", "run saver", "run saver, sync"])
async def test_reads_agree(seed: int, kind: str, saver: Saver) -> None:
    ours = saver if kind == "saver" else RunSaver(saver, THREAD, sync=kind.endswith("sync"))
    theirs = InMemorySaver()
    story = Story(seed, ours, theirs)
    await story.tell(length=25)
    for checkpoint_ns, made in story.made.items():
        where = config(checkpoint_ns)
        assert plain(await ours.aget_tuple(where)) == plain(await theirs.aget_tuple(where))
        for arguments in (
            {},
            {"limit": 3},
            {"filter": {"step": 5}},
            {"filter": {"parents": {"": "1"}}, "limit": 2},
            {"filter": {"parents": {}}},
            {"before": config("", "00000010"), "limit": 4},
        ):
            expected = await listed(theirs, where, **arguments)
            assert await listed(ours, where, **arguments) == expected
        for checkpoint in made:
            where = config(checkpoint_ns, checkpoint["id"])
            expected = await theirs.aget_tuple(where)
            assert plain(await ours.aget_tuple(where)) == {
                **plain(expected),
                "config": where["configurable"],
            }
            channels = ["delta", "plain", "missing"]
            assert await ours.aget_delta_channel_history(
                config=where, channels=channels
            ) == await theirs.aget_delta_channel_history(config=where, channels=channels)


@pytest.mark.parametrize("seed", range(5))
async def test_copies_agree(seed: int, saver: Saver) -> None:
    story = Story(seed, saver, theirs := InMemorySaver())
    await story.tell(length=25)
    await saver.acopy_thread(THREAD, copy := new_id())
    await saver.adelete_thread(THREAD)
    for checkpoint_ns, made in story.made.items():
        for checkpoint in made:
            where = config(checkpoint_ns, checkpoint["id"])
            at_copy = config(checkpoint_ns, checkpoint["id"])
            at_copy["configurable"]["thread_id"] = copy
            expected, got = await theirs.aget_tuple(where), await saver.aget_tuple(at_copy)
            assert expected is not None
            assert got is not None
            assert got.checkpoint == expected.checkpoint
            assert got.pending_writes == expected.pending_writes
            assert await saver.aget_delta_channel_history(
                config=at_copy, channels=["delta"]
            ) == await theirs.aget_delta_channel_history(config=where, channels=["delta"])


async def test_all_namespaces_and_threads_page_by_page(
    saver: Saver, monkeypatch: pytest.MonkeyPatch
) -> None:
    story = Story(1, saver, theirs := InMemorySaver())
    await story.tell(length=25)
    await saver.acopy_thread(THREAD, new_id())
    monkeypatch.setattr("treadle.checkpoints.saver.PAGE_ROWS", 3)
    thread = {"configurable": {"thread_id": THREAD}}

    def by_id(one: dict[str, Any]) -> tuple[str, str]:
        return one["config"]["checkpoint_id"], one["config"]["checkpoint_ns"]

    expected = sorted(await listed(theirs, thread), key=by_id, reverse=True)
    assert await listed(saver, thread) == expected
    assert await listed(saver, thread, limit=7) == expected[:7]
    assert await listed(saver, thread, limit=0) == []
    assert len(await listed(saver, None)) == 2 * len(expected)


async def test_delta_history_goes_through_long_chains_and_ends_in_loops(saver: Saver) -> None:
    theirs = InMemorySaver()
    parent: str | None = None
    for step in range(200):
        checkpoint = empty_checkpoint()
        checkpoint["id"] = f"{step:08}"
        checkpoint["channel_versions"] = {"delta": f"{step:08}"}
        for one in (saver, theirs):
            await one.aput(config("", parent), checkpoint, {}, {"delta": f"{step:08}"})
            await one.aput_writes(config("", checkpoint["id"]), [("delta", step)], "task")
        parent = checkpoint["id"]
    where = config("")
    history = await saver.aget_delta_channel_history(config=where, channels=["delta"])
    assert history == await theirs.aget_delta_channel_history(config=where, channels=["delta"])
    assert len(history["delta"]["writes"]) == 199

    first = empty_checkpoint()
    first["id"] = f"{0:08}"
    await saver.aput(config("", f"{150:08}"), first, {}, {})
    looped = await saver.aget_delta_channel_history(config=where, channels=["delta"])
    assert [value for _, _, value in looped["delta"]["writes"]] == list(range(199))
