"""What HTTP, the command line and Python ask for: texts of a model, as vectors."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Hashable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np

from unitvec.engine.onnx import FloatArray
from unitvec.serving.backend import Embeddings, Figures, Running
from unitvec.serving.batcher import Ids
from unitvec.serving.cache import VectorCache
from unitvec.serving.counters import Counters
from unitvec.serving.model import context_limit, finish
from unitvec.serving.pool import Pool, Resident
from unitvec.serving.runner import Runner
from unitvec.store.name import Name

# Up to here tokenizing takes less time than handing it to another thread and back.
_INLINE_CHARACTERS = 2_000


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
        """See :meth:`unitvec.serving.backend.Backend.embed`."""
        began = time.perf_counter_ns()
        if texts:
            self.admit(client, tokens=len(texts))
        async with self.pool.use(name, keep_alive) as resident:
            loaded = time.perf_counter_ns()
            ids = await self._encode(resident, texts, context, truncate) if texts else []
            encoded = time.perf_counter_ns()
            self.counters.tokenize_seconds += (encoded - loaded) / 1e9
            vectors = await self._vectors(resident, ids, client)
        steps = ("load", began, loaded), ("tokenize", loaded, encoded), ("run", encoded, time.perf_counter_ns())
        return Embeddings(finish(vectors, dimensions), sum(map(len, ids)), loaded - began, steps)

    def admit(self, client: Hashable, inside: int = 0, own: int = 0, *, tokens: int = 1) -> None:
        """Turn a request away before work is spent on it; see :meth:`unitvec.serving.runner.Runner.check`."""
        if not self.cache.enabled:  # what is kept needs no place in the queue
            self.runner.check(client, tokens, inside=inside, own=own)

    @property
    def max_requests(self) -> int:
        """Requests that may wait."""
        return self.runner.max_requests

    async def running(self) -> list[Running]:
        """The models in memory, first the one that stays longest."""
        return [
            Running(
                resident.stored.name,
                resident.stored.digest,
                resident.model.bytes,
                resident.model.checkpoint.details,
                resident.expires_in,
                self.context_of(resident),
                resident.model.dtype,
            )
            for resident in self.pool.residents()
        ]

    async def stop(self, name: Name) -> bool:
        """Unload a model once nobody uses it; False when it is not in memory."""
        return self.pool.stop(name)

    async def changed(self, name: Name, *, there: bool) -> None:
        """A name stands for another model now, or for none."""
        self.pool.changed(name, there=there)

    async def figures(self) -> Figures:
        """How it does now."""
        (requests, tokens), (texts, in_flight) = self.runner.waiting, self.runner.running
        return Figures(
            requests=requests,
            tokens=tokens,
            oldest=self.runner.oldest(),
            running_texts=texts,
            running_tokens=in_flight,
            room=self.max_requests,
            counters=self.counters,
            running=await self.running(),
        )

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
