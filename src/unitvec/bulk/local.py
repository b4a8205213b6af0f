"""Embeds the texts of windows in this process, on all cores."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from unitvec import config
from unitvec.bulk.groups import by_length
from unitvec.bulk.window import Embedded
from unitvec.serving.model import LoadedModel, chosen_dtype, context_limit, finish
from unitvec.store.model import StoredModel

_TOKENS = 512  # of a micro-batch: enough to fill the matrix products, little enough to stay in the caches


class Local:
    """A model in this process: an :class:`unitvec.bulk.executor.Executor`.

    Each core runs micro-batches of its own on one thread, which have nothing to wait for; that goes faster than all
    cores on one micro-batch, and nobody is kept waiting here for a single one. The micro-batches of a window are the
    same each time, so its vectors are too. A second window, which another thread has brought, begins when the last
    micro-batches of the first one run: its tokens are there by then, and no core waits.

    Args:
        stored: the model.
        cores: how many to use; None for those that this process may.
        truncate: cut what is longer than the context, or refuse it.
        dimensions: cut the vectors to that length and renormalize; out of range changes nothing.
        context: tokens a text may have; None for the model's own setting.

    Raises:
        InvalidCheckpoint: the model cannot be run.
    """

    ahead = 2

    def __init__(
        self,
        stored: StoredModel,
        *,
        cores: int | None = None,
        truncate: bool = True,
        dimensions: int = 0,
        context: int | None = None,
    ) -> None:
        self._model = LoadedModel(
            stored.open(), threads=1, cache_dir=config.cache_dir(), dtype=chosen_dtype(stored.parameters, None)
        )
        self._limit = context_limit(self._model, stored.parameters, context, config.DEFAULT_CONTEXT)
        self._truncate = truncate
        self._dimensions = dimensions
        self.digest = stored.digest
        self.width = dimensions if 0 < dimensions < self._model.width else self._model.width
        self._cores = cores or config.available_cores()
        self._runs = ThreadPoolExecutor(self._cores, "run")
        self._lock = threading.Lock()
        self._last = threading.Event()  # set when the window that came last is nearly done
        self._last.set()

    def __call__(self, texts: Sequence[str]) -> Embedded:
        """See :class:`unitvec.bulk.executor.Executor`."""
        with self._lock:
            before, behind = self._last, threading.Event()
            self._last = behind
        try:
            return self._embed(texts, before, behind)
        finally:
            behind.set()

    def _embed(self, texts: Sequence[str], before: threading.Event, behind: threading.Event) -> Embedded:
        """Embed a window when the one before it is nearly done, and set ``behind`` when this one is."""
        found = self._model.encode_each(texts, self._limit, truncate=self._truncate) if texts else []
        ids = {index: one for index, one in enumerate(found) if isinstance(one, tuple)}
        refused = {index: one.message for index, one in enumerate(found) if not isinstance(one, tuple)}
        batches = list(by_length({index: len(one) for index, one in ids.items()}, most=_TOKENS))
        vectors = np.zeros((len(texts), self._model.width), np.float32)
        before.wait()
        runs = [self._runs.submit(self._model.run, [ids[index] for index in batch]) for batch in batches]
        for number, (batch, run) in enumerate(zip(batches, runs, strict=True)):
            if number >= len(runs) - self._cores:
                behind.set()
            vectors[batch] = run.result()
        return Embedded(finish(vectors, self._dimensions), sum(map(len, ids.values())), refused)

    def close(self) -> None:
        """Drop what waits, and end its threads; those who wait get ``concurrent.futures.CancelledError``."""
        self._runs.shutdown(cancel_futures=True)
