"""Finished vectors, the least recently asked for forgotten first."""

from __future__ import annotations

from array import array
from collections import OrderedDict
from collections.abc import Sequence
from hashlib import blake2b

import numpy as np

from unitvec.engine.onnx import FloatArray
from unitvec.serving.batcher import Ids

_OVERHEAD = 250  # bytes that an entry takes beside its vector


class VectorCache:
    """Vectors by a model, of whatever name tells it from others, and token ids, within a bound. For one thread.

    Args:
        max_bytes: memory for all entries; 0 keeps nothing.
    """

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._bytes = 0
        self._vectors: OrderedDict[bytes, FloatArray] = OrderedDict()

    @property
    def enabled(self) -> bool:
        """Whether it keeps anything."""
        return self._max_bytes > 0

    def get(self, model: str, ids: Ids) -> FloatArray | None:
        """float32 [width] as the model gave it, if it is there."""
        key = _key(model, ids)
        vector = self._vectors.get(key)
        if vector is not None:
            self._vectors.move_to_end(key)
        return vector

    def put(self, model: str, texts: Sequence[Ids], vectors: FloatArray) -> None:
        """Keep float32 [texts, width]."""
        for ids, vector in zip(texts, vectors, strict=True):
            key = _key(model, ids)
            if key not in self._vectors:
                self._vectors[key] = np.array(vector)  # a row of its own: a view would keep all its neighbours
                self._bytes += vector.nbytes + _OVERHEAD
        while self._bytes > self._max_bytes:
            _, oldest = self._vectors.popitem(last=False)
            self._bytes -= oldest.nbytes + _OVERHEAD


def _key(model: str, ids: Ids) -> bytes:
    return blake2b(model.encode() + b"\0" + array("i", ids).tobytes(), digest_size=16).digest()
