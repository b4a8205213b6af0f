"""Runs an embedding model on onnxruntime."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnxruntime as ort

from unitvec.checkpoint.checkpoint import Tensors
from unitvec.engine import graph, memory
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
        tensors: the parameters by checkpoint name; arrays of the spec's shapes. They are bound without a copy and
            must not change; they may be views into a memory-mapped file. Those of ``Tensors`` are the engine's own:
            their memory is given back where the session does not need it.
        threads: cores that one run uses.
        cache_dir: where built graphs are kept between starts; None builds afresh.

    Attributes:
        resident_bytes: memory that the weights take for as long as the engine lives.

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
        bound = [_ort_value(built.parameters[name][0], array) for name, array in self._weights.items()]
        options.add_external_initializers(list(self._weights), bound)
        self._session = ort.InferenceSession(built.onnx, options, providers=["CPUExecutionProvider"])
        self.resident_bytes = sum(array.nbytes for array in self._weights.values())
        if isinstance(tensors, Tensors):  # others may be somebody else's too
            rest = [name for name in self._weights if name not in built.packed]
            held = [name for group in (built.packed, rest) if not self._release(group, tensors) for name in group]
        else:
            held = list(self._weights)
        self.resident_bytes += sum(self._weights[name].nbytes for name in held)

    def _release(self, names: list[str], tensors: Tensors) -> bool:
        """Give back weights of which the session has made copies of its own; False where it still reads them.

        Which those are is a matter of onnxruntime's version, so that it is tried: a text's vector must not change.
        """
        probe = [np.linspace(0, self.spec.transformer.vocab_size - 1, 4, dtype=np.int64)]
        before = self.run(probe)
        if not before.any() or not memory.release(self._weights[name] for name in names):
            return False
        if np.array_equal(self.run(probe), before, equal_nan=True):
            return True
        for name in names:
            if self._weights[name].flags.writeable:  # others are views into a file, which is still there
                self._weights[name][...] = tensors[name]
        return False

    def footprint(self, lengths: Sequence[int]) -> int:
        """About how many bytes :meth:`run` takes for texts of these lengths in tokens, weights aside."""
        return memory.footprint(self.spec, lengths)

    def run(self, texts: Sequence[Sequence[int] | IntArray]) -> FloatArray:
        """Embed one micro-batch.

        Args:
            texts: token ids of each text, special tokens included; none empty.

        Returns:
            float32 [len(texts), embedding_length], one row a text, not yet of unit length.
        """
        lengths = [len(text) for text in texts]
        options = _SHRINK if self.footprint(lengths) > _LARGE else None
        block = memory.block_size(self.spec, len(texts), max(lengths))
        (vectors,) = self._session.run(None, pack(texts, block), options)
        return np.asarray(vectors, np.float32)


_LARGE = 128 << 20  # bytes of a micro-batch that are given back when it is done
_SHRINK = ort.RunOptions()
_SHRINK.add_run_config_entry("memory.enable_memory_arena_shrinkage", "cpu:0")


def _bind(built: graph.Graph, tensors: Mapping[str, npt.NDArray[np.generic]]) -> dict[str, npt.NDArray[np.generic]]:
    arrays = {}
    for name, (dtype, shape) in built.parameters.items():
        if name not in tensors:
            raise InvalidCheckpoint(f"the weights lack {name!r}")
        tensor = tensors[name]
        wanted = "uint16" if dtype == "bfloat16" else dtype  # numpy has no bfloat16: its bits do
        if tensor.dtype.name != wanted or list(tensor.shape) != shape:
            raise InvalidCheckpoint(
                f"weight {name!r} is {tensor.dtype.name} {list(tensor.shape)} where the settings say {dtype} {shape}"
            )
        arrays[name] = np.ascontiguousarray(tensor)
    return arrays


_BFLOAT16 = 16  # in onnx.TensorProto.DataType


def _ort_value(dtype: str, array: npt.NDArray[np.generic]) -> ort.OrtValue:
    if dtype == "bfloat16":
        return ort.OrtValue.ortvalue_from_numpy_with_onnx_type(array, _BFLOAT16)
    return ort.OrtValue.ortvalue_from_numpy(array)
