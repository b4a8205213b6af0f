"""Runs an embedding model on onnxruntime."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnxruntime as ort

from unitvec.engine import graph
from unitvec.errors import InvalidCheckpoint
from unitvec.models.config import ModelSpec

IntArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float32]


def pack(texts: Sequence[Sequence[int] | IntArray], block: int | None = None) -> dict[str, IntArray]:
    """The graph's inputs (``unitvec.models.layers.PackedBatch``) for texts of token ids, none of them empty.

    Args:
        texts: token ids of each text.
        block: places that attention takes at once; None for all.
    """
    lengths = np.fromiter(map(len, texts), np.int64, len(texts))
    longest = int(lengths.max())
    count = -(-longest // (block or longest))  # blocks
    size = -(-longest // count)  # of each: as equal as can be
    starts = np.cumsum(lengths) - lengths
    text_of = np.repeat(np.arange(len(texts)), lengths)
    positions = np.arange(len(text_of)) - starts[text_of]
    places = np.arange(count * size)
    spread = np.where(places < lengths[:, None], starts[:, None] + places, 0)
    return {
        "ids": np.concatenate([np.asarray(text, np.int64) for text in texts]),
        "texts": text_of,
        "positions": positions,
        "lengths": lengths,
        "places": places[:longest],
        "spread": spread[:, :longest],
        "blocks": np.ascontiguousarray(spread.reshape(len(texts), count, size).swapaxes(0, 1)),
        "block_places": places.reshape(count, size),
        "slots": (positions // size * len(texts) + text_of) * size + positions % size,
    }


class Engine:
    """One model, loaded: token ids in, vectors out. ``run`` may be called from several threads at once.

    Args:
        spec: what the graph is built from.
        tensors: the parameters by checkpoint name; float arrays of the spec's shapes. They are bound
            without a copy and must not change; they may be views into a memory-mapped file.
        threads: cores that one run uses.
        cache_dir: where built graphs are kept between starts; None builds afresh.

    Raises:
        InvalidCheckpoint: ``tensors`` lacks a parameter of the model, or has it in another shape or type.
    """

    def __init__(
        self,
        spec: ModelSpec,
        tensors: Mapping[str, npt.NDArray[np.generic]],
        *,
        threads: int,
        cache_dir: Path | None = None,
    ) -> None:
        self.spec = spec
        built = graph.load(spec, cache_dir)
        # The session reads these arrays for as long as it lives, so they must live as long.
        self._weights = _bind(built, tensors)
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3  # errors come as exceptions
        options.add_external_initializers(list(self._weights), list(self._weights.values()))
        self._session = ort.InferenceSession(built.onnx, options, providers=["CPUExecutionProvider"])

    def run(self, texts: Sequence[Sequence[int] | IntArray]) -> FloatArray:
        """Embed one micro-batch.

        Args:
            texts: token ids of each text, special tokens included; none empty.

        Returns:
            float32 [len(texts), embedding_length], one row a text, not yet of unit length.
        """
        (vectors,) = self._session.run(None, pack(texts))
        return np.asarray(vectors, np.float32)


def _bind(built: graph.Graph, tensors: Mapping[str, npt.NDArray[np.generic]]) -> dict[str, ort.OrtValue]:
    bound = {}
    for name, (dtype, shape) in built.parameters.items():
        tensor = tensors.get(name)
        if tensor is None:
            raise InvalidCheckpoint(f"the weights lack {name!r}")
        if tensor.dtype.name != dtype or list(tensor.shape) != shape:
            raise InvalidCheckpoint(
                f"weight {name!r} is {tensor.dtype.name} {list(tensor.shape)} where the settings say {dtype} {shape}"
            )
        bound[name] = ort.OrtValue.ortvalue_from_numpy(tensor)
    return bound
