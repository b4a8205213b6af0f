"""A model's engines: runs side by side on few threads each, a text that is alone on all of them."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt

from unitvec.engine.onnx import Engine, FloatArray
from unitvec.engine.packing import IntArray
from unitvec.models.config import ModelSpec

_MOST = 4  # threads that still make a single text faster


def engines(threads: int, workers: int, *, small: bool) -> int:
    """How many engines, each with the weights of its own, a model comes to have; see :class:`Lanes`."""
    return 2 if small and _widest(threads, workers) > threads else 1


def _widest(threads: int, workers: int) -> int:
    return max(threads, min(threads * workers, _MOST))


class Lanes:
    """Runs micro-batches of one model, ``workers`` of them at a time.

    Side by side, runs of one thread each finish more than runs that share all threads: nothing is divided, so that
    nobody waits for a thread which the event loop has just displaced. A text that is alone is faster on all threads.
    Small models therefore get an engine for either; the second is built when it is first wanted, and until then the
    first does its work. It costs a copy of the weights, which larger models are spared: their runs are so long that
    threads which sleep instead of spin between two operators lose little, and runs side by side can share them.

    Args:
        spec, tensors, cache_dir: see :class:`Engine`.
        threads: cores of each run.
        workers: runs at a time.
        small: whether weights may be held twice.

    Raises:
        InvalidCheckpoint: see :class:`Engine`.
    """

    def __init__(
        self,
        spec: ModelSpec,
        tensors: Mapping[str, npt.NDArray[np.generic]],
        *,
        threads: int,
        workers: int,
        small: bool,
        cache_dir: Path | None,
    ) -> None:
        build = partial(Engine, spec, tensors, cache_dir=cache_dir)
        self._wide = build(threads=_widest(threads, workers), spin=small or workers == 1)
        self._narrow: Engine | None = None if engines(threads, workers, small=small) > 1 else self._wide
        self._second = partial(build, threads=threads, spin=False) if self._narrow is None else None
        self._building = threading.Lock()

    @property
    def resident_bytes(self) -> int:
        """Memory that the weights take now."""
        return sum(engine.resident_bytes for engine in {self._wide, self._narrow or self._wide})

    def run(self, texts: Sequence[Sequence[int] | IntArray], *, alone: bool) -> FloatArray:
        """Embed one micro-batch, see :meth:`Engine.run`; ``alone``: nothing runs beside it."""
        if alone:
            return self._wide.run(texts)
        if self._second and self._building.acquire(blocking=False):
            threading.Thread(target=self._build_narrow, args=(self._second,), name="build", daemon=True).start()
            self._second = None  # and with it the checkpoint, once that is done
        return (self._narrow or self._wide).run(texts)

    def _build_narrow(self, build: Callable[[], Engine]) -> None:
        try:
            self._narrow = build()
        except Exception:  # it works without, only slower
            self._narrow = self._wide
            logging.getLogger("unitvec").warning("no engine for runs side by side", exc_info=True)
