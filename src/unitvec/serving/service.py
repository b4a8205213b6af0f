"""What HTTP, the command line and Python ask for: texts of a model, as vectors."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Hashable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np

from unitvec.engine.onnx import FloatArray
from unitvec.serving.batcher import Ids
from unitvec.serving.cache import VectorCache
from unitvec.serving.counters import Counters
from unitvec.serving.model import context_limit, finish
from unitvec.serving.pool import Pool, Resident
from unitvec.serving.runner import Runner
from unitvec.store.name import Name

# Up to here tokenizing takes less time than handing it to another thread and back.
_INLINE_CHARACTERS = 2_000


Step = tuple[str, int, int]


@dataclass(frozen=True)
class Embeddings:
    """The answer to one request.

    Attributes:
        vectors: float32 [texts, dimensions], each of unit length.
        tokens: how many tokens were run, special ones included.
        load_nanoseconds: how long the model took to be there.
        steps: what was done: a name, begin and end on the clock of ``time.perf_counter_ns``.
    """

    vectors: FloatArray
    tokens: int
    load_nanoseconds: int
    steps: tuple[Step, ...] = ()


@dataclass
class Service:
    """Embeds, for any number of callers at once.

    Attributes:
        pool: the models in memory.
        runner: runs their texts.
        cache: finished vectors.
        counters: what it keeps up.
        context: tokens that a text is cut to where neither the request nor the model's parameters say.
    """

    pool: Pool
    runner: Runner
    cache: VectorCache
    counters: Counters
    context: int
    _tokenizing: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(2, "tokenize"))

    async def embed(
        self,
        name: Name,
        texts: Sequence[str] | Sequence[Ids],
        *,
        truncate: bool = True,
        dimensions: int = 0,
        context: int | None = None,
        keep_alive: float | None = None,
        client: Hashable = None,
    ) -> Embeddings:
        """Embed texts, or token ids where the caller has tokenized himself.

        Args:
            name: the model.
            texts: may be empty: then the model is only loaded.
            truncate: cut what is longer than the context; otherwise that is an error.
            dimensions: cut the vectors to that length and renormalize; out of range changes nothing.
            context: tokens a text may have, at most what the model can; None for its own setting.
            keep_alive: seconds that the model stays in memory after this; None for the default.
            client: who asks; see :class:`unitvec.serving.batcher.Request`.

        Raises:
            ModelNotFound, InvalidCheckpoint, InvalidRequest, Overloaded: each with its message.
        """
        began = time.perf_counter_ns()
        if texts and not self.cache.enabled:  # what is kept needs no place in the queue
            self.runner.check(client, len(texts))
        async with self.pool.use(name, keep_alive) as resident:
            loaded = time.perf_counter_ns()
            ids = await self._encode(resident, texts, context, truncate) if texts else []
            encoded = time.perf_counter_ns()
            self.counters.tokenize_seconds += (encoded - loaded) / 1e9
            vectors = await self._vectors(resident, ids, client)
        steps = ("load", began, loaded), ("tokenize", loaded, encoded), ("run", encoded, time.perf_counter_ns())
        return Embeddings(finish(vectors, dimensions), sum(map(len, ids)), loaded - began, steps)

    def context_of(self, resident: Resident, asked: int | None = None) -> int:
        """Tokens that a text for this model is cut to."""
        return context_limit(resident.model, resident.stored.parameters, asked, self.context)

    async def _vectors(self, resident: Resident, ids: list[Ids], client: Hashable) -> FloatArray:
        """Finished vectors where there are any, the rest from the runner; float32 [texts, width], not normalized."""
        model, key = resident.model, f"{resident.stored.digest[:64]}{resident.model.dtype}"
        if not self.cache.enabled:
            return await asyncio.wrap_future(self.runner.submit(model, model.width, ids, client))
        kept = [self.cache.get(key, text) for text in ids]
        missing = [index for index, vector in enumerate(kept) if vector is None]
        self.counters.cache_misses += len(missing)
        self.counters.cache_hits += len(ids) - len(missing)
        wanted = [ids[index] for index in missing]
        fresh = await asyncio.wrap_future(self.runner.submit(model, model.width, wanted, client))
        self.cache.put(key, wanted, fresh)
        for index, vector in zip(missing, fresh, strict=True):
            kept[index] = vector
        return np.array(kept, np.float32).reshape(len(ids), model.width)

    async def _encode(
        self, resident: Resident, texts: Sequence[str] | Sequence[Ids], context: int | None, truncate: bool
    ) -> list[Ids]:
        limit = self.context_of(resident, context)
        model = resident.model
        strings = [text for text in texts if isinstance(text, str)]
        if len(strings) < len(texts):
            return [model.cut(text, limit, truncate=truncate) for text in texts if not isinstance(text, str)]
        if sum(map(len, strings)) <= _INLINE_CHARACTERS:
            return model.encode(strings, limit, truncate=truncate)
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._tokenizing, lambda: model.encode(strings, limit, truncate=truncate))
