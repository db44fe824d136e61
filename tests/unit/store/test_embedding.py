"""Texts to vectors: what is embedded, in what portions, and what goes wrong at the start."""

from __future__ import annotations

import asyncio
import math
import threading
from pathlib import Path
from typing import Any

import pytest
from langgraph.store.base import ensure_embeddings
from structlog.testing import capture_logs

from treadle.config import StoreIndex, load_config
from treadle.errors import StartupError
from treadle.store.embedding import (
    BATCH_TEXTS,
    Embedder,
    EmbeddingFailed,
    names_function,
    open_embedder,
)


def embedder(function: Any, dims: int = 2, fields: tuple[str, ...] = ("$",)) -> Embedder:
    return Embedder(ensure_embeddings(function), dims, fields)


@pytest.mark.parametrize(
    ("index", "texts"),
    [
        (None, ["hi"]),
        (False, []),
        (["a.b", "notes[*].t"], ["deep", "one", "two"]),
        (["$"], ['{"a": {"b": "deep"}, "notes": [{"t": "one"}, {"t": "two"}], "text": "hi"}']),
        (["missing"], []),
        (["a["], []),
    ],
    ids=str,
)
def test_which_texts_an_item_has(index, texts):
    value = {"text": "hi", "a": {"b": "deep"}, "notes": [{"t": "one"}, {"t": "two"}]}
    assert embedder(lambda texts: [], fields=("text",)).texts(value, index) == texts


async def test_many_texts_are_embedded_in_portions_and_in_order():
    sizes: list[int] = []

    async def embed(texts: list[str]) -> list[list[float]]:
        sizes.append(len(texts))
        await asyncio.sleep(0)
        return [[float(text), 0.0] for text in texts]

    texts = [str(n + 1) for n in range(2 * BATCH_TEXTS + 1)]
    found = await embedder(embed).embed(texts)
    assert sorted(sizes) == [1, BATCH_TEXTS, BATCH_TEXTS]
    assert found == [[1.0, 0.0]] * len(texts)


async def test_vectors_come_at_length_one():
    [long, none] = await embedder(lambda texts: [[3, 4], [0, 0]]).embed(["a", "b"])
    assert long is not None
    assert math.isclose(math.hypot(*long), 1)
    assert none is None


async def test_a_plain_function_works_on_a_thread():
    threads: list[threading.Thread] = []

    def embed(texts: list[str]) -> list[list[float]]:
        threads.append(threading.current_thread())
        return [[1, 0] for _ in texts]

    await embedder(embed).embed(["a"])
    assert threads[0] is not threading.main_thread()


@pytest.mark.parametrize(
    ("vectors", "problem"),
    [
        ([[1.0]], "vectors of 1 numbers"),
        ([], "gave 0 vectors for 1 texts"),
        ([[1.0, math.nan]], "a number that is none"),
        ([["x", 1.0]], "failed: ValueError"),
        (None, "failed: TypeError"),
    ],
    ids=str,
)
async def test_what_a_function_does_wrong_is_told(vectors, problem):
    with pytest.raises(EmbeddingFailed, match=problem):
        await embedder(lambda texts: vectors).embed(["a"])


def test_functions_and_models_are_told_apart():
    assert names_function("./embed.py:embed")
    assert names_function("package.module:embed")
    assert not names_function("openai:text-embedding-3-small")
    assert not names_function("openai:embed")


@pytest.fixture
def opened(tmp_path: Path):
    (tmp_path / "langgraph.json").write_text('{"graphs": {"a": "./a.py:a"}}')
    config = load_config(tmp_path / "langgraph.json")

    async def open_it(source: str, embed: str = "./{}.py:embed"):
        module = f"embed_{abs(hash(source))}"  # Python imports each name once
        (tmp_path / f"{module}.py").write_text(source)
        with capture_logs():
            return await open_embedder(config, StoreIndex(embed.format(module), 2))

    return open_it


async def test_a_good_function(opened):
    made = await opened("async def embed(texts):\n    return [[1, 0] for _ in texts]\n")
    assert await made.embed(["x"]) == [[1.0, 0.0]]


@pytest.mark.parametrize(
    ("source", "embed", "told"),
    [
        ("def embed(texts): return [[1]]", "./{}.py:embed", "store.index.dims is 2"),
        ("def embed(texts): raise OSError('no')", "./{}.py:embed", "failed: OSError: no"),
        ("", "./{}.py:embed", 'there is no "embed"'),
        ("", "./nowhere.py:embed", "there is no file"),
        ("", "nobody:knows-this", "nobody:knows-this"),
    ],
)
async def test_what_keeps_a_server_from_starting(opened, source, embed, told):
    with pytest.raises(StartupError, match=told):
        await opened(source, embed)


async def test_no_index_is_no_embedder(tmp_path: Path):
    (tmp_path / "langgraph.json").write_text('{"graphs": {"a": "./a.py:a"}}')
    assert await open_embedder(load_config(tmp_path / "langgraph.json"), None) is None
