"""Models without a server: for Python programs and the command line."""

from __future__ import annotations

from collections.abc import Sequence
from types import TracebackType

from unitvec import config
from unitvec.engine.onnx import FloatArray
from unitvec.models.config import Dtype
from unitvec.serving.batcher import Batcher
from unitvec.serving.counters import Counters
from unitvec.serving.model import LoadedModel, chosen_dtype, context_limit, finish
from unitvec.serving.runner import Runner
from unitvec.store.name import Name
from unitvec.store.progress import Report, silent


class Model:
    """A model in this process. May be used from several threads; what they ask for shares micro-batches.

    Args:
        name: as on the command line. A model that is not at hand is fetched.
        threads: cores to use; None for those that this process may.
        dtype: what it computes in, "float32" or "int8"; None for its own setting.
        source: where a model that is not at hand is fetched from; None for all of ``unitvec.store.sources.KEYS``.
        report: told of a fetch's progress.

    Raises:
        unitvec.errors.UnitvecError: the name is none, or the model cannot be had or run.
    """

    def __init__(
        self,
        name: str,
        *,
        threads: int | None = None,
        dtype: Dtype | None = None,
        source: str | None = None,
        report: Report = silent,
    ) -> None:
        stored = config.stores().fetch(Name.parse(name), report, source)
        cores = threads or config.available_cores()
        each = config.threads_each(cores)
        lanes = cores // each
        dtype = chosen_dtype(stored.parameters, dtype)
        self._model = LoadedModel(stored.open(), threads=each, workers=lanes, cache_dir=config.cache_dir(), dtype=dtype)
        self._parameters = stored.parameters
        self._runner = Runner(
            Batcher(lanes=lanes, cost=LoadedModel.footprint, memory=config.available_memory() - self._model.bytes),
            LoadedModel.run,
            workers=lanes,
            max_requests=config.UNBOUNDED,
            max_tokens=config.UNBOUNDED,
            counters=Counters(),
        )
        self.width = self._model.width
        self.dtype = self._model.dtype

    def embed(
        self, texts: str | Sequence[str], *, truncate: bool = True, dimensions: int = 0, context: int | None = None
    ) -> FloatArray:
        """Vectors of texts, each of unit length.

        Args:
            texts: one or several.
            truncate: cut what is longer than the context; otherwise that is an error.
            dimensions: cut the vectors to that length and renormalize; out of range changes nothing.
            context: tokens a text may have; None for the model's own setting.

        Returns:
            float32 [texts, width or dimensions]; one row for a single text too.

        Raises:
            unitvec.errors.InvalidRequest: a text is too long and ``truncate`` is false.
        """
        several = [texts] if isinstance(texts, str) else texts
        limit = context_limit(self._model, self._parameters, context, config.DEFAULT_CONTEXT)
        ids = self._model.encode(several, limit, truncate=truncate) if several else []
        return finish(self._runner.submit(self._model, self.width, ids).result(), dimensions)

    def close(self) -> None:
        """End its threads and give its memory back."""
        self._runner.close()

    def __enter__(self) -> Model:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()
