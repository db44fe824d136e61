"""From texts to vectors: the ``store.index`` of a config, in use."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

import structlog
from langgraph.store.base import ensure_embeddings, get_text_at_path

from treadle.errors import StartupError, TreadleError
from treadle.graphs.importing import import_object

if TYPE_CHECKING:
    from langchain_core.embeddings import Embeddings

    from treadle.config import Config, StoreIndex

logger = structlog.get_logger("treadle.store")

BATCH_TEXTS = 100
CONCURRENT_BATCHES = 4


class EmbeddingFailed(TreadleError):
    """The user's embedding function did not do its work."""


class Embedder:
    """Finds the texts of items that are to be searched by meaning, and embeds them.

    ``dims`` is the length of each vector; ``fields`` are the paths of an item's texts unless the
    item says otherwise.
    """

    def __init__(self, embeddings: Embeddings, dims: int, fields: Sequence[str]) -> None:
        self.dims = dims
        self._embeddings = embeddings
        self._fields = list(fields)

    def texts(self, value: dict[str, Any], index: Literal[False] | list[str] | None) -> list[str]:
        """The texts of an item, given what its put said: other paths, or False for none."""
        if index is False:
            return []
        paths = self._fields if index is None else index
        return [text for path in paths for text in get_text_at_path(value, path)]

    async def embed(self, texts: Sequence[str]) -> list[list[float] | None]:
        """The vector of each text, at length one; None for one that points nowhere.

        A function that is not async works on a thread. Raises ``EmbeddingFailed``.
        """
        batches = [texts[n : n + BATCH_TEXTS] for n in range(0, len(texts), BATCH_TEXTS)]
        gate = asyncio.Semaphore(CONCURRENT_BATCHES)

        async def one(batch: Sequence[str]) -> list[list[float] | None]:
            async with gate:
                return await self._embed(list(batch))

        return [vector for found in await asyncio.gather(*map(one, batches)) for vector in found]

    async def _embed(self, texts: list[str]) -> list[list[float] | None]:
        try:
            found = await self._embeddings.aembed_documents(texts)
            vectors = [[float(number) for number in vector] for vector in found]
        except Exception as error:
            raise EmbeddingFailed(
                f"The embedding function of store.index failed: {type(error).__name__}: {error}"
            ) from error
        if len(vectors) != len(texts):
            raise EmbeddingFailed(
                f"The embedding function of store.index gave {len(vectors)} vectors for"
                f" {len(texts)} texts"
            )
        for vector in vectors:
            if len(vector) != self.dims:
                raise WrongDimension(
                    f"The embedding function of store.index gives vectors of {len(vector)} numbers,"
                    f" but store.index.dims is {self.dims}"
                )
        return [_unit(vector) for vector in vectors]


class WrongDimension(EmbeddingFailed):
    """A vector is of another length than the config says."""


async def open_embedder(config: Config, index: StoreIndex | None) -> Embedder | None:
    """The embedder of a config, tried out once; None if it has none.

    Raises ``StartupError`` if there is none, or its vectors are of another length than ``dims``.
    A provider that cannot be reached now is only warned of.
    """
    if index is None:
        return None
    is_function = names_function(index.embed)
    made: Any = index.embed
    if is_function:
        made = import_object(config, index.embed, "store.index.embed")
    try:
        embeddings = await asyncio.to_thread(ensure_embeddings, made)
    except Exception as error:
        raise StartupError(
            f'"store.index.embed" is "{index.embed}", which cannot be used: {error}'
        ) from error
    embedder = Embedder(embeddings, index.dims, index.fields or ["$"])
    try:
        await embedder.embed(["Treadle tries out its embedding function."])
    except EmbeddingFailed as error:
        if is_function or isinstance(error, WrongDimension):
            raise StartupError(f"{error}. (It is {index.embed}.)") from error
        logger.warning("the embedding provider does not answer", problem=str(error))
    return embedder


def names_function(embed: str) -> bool:
    """Whether ``embed`` is a file or module with a function, and not ``provider:model``."""
    location, _, name = embed.rpartition(":")
    is_place = location.endswith(".py") or "/" in location or "." in location
    return is_place and name.isidentifier()


def _unit(vector: list[float]) -> list[float] | None:
    length = math.hypot(*vector)
    if not math.isfinite(length):
        raise EmbeddingFailed("The embedding function of store.index gave a number that is none")
    return [number / length for number in vector] if length else None
