"""Runs an embedding model on onnxruntime."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import zip_longest
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnxruntime as ort

from unitvec import pages
from unitvec.checkpoint.checkpoint import Tensors
from unitvec.engine import graph, memory, outliers, quantize
from unitvec.engine.stage import LoadedStage, Values, bind
from unitvec.models.config import ModelSpec

IntArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float32]
Inputs = dict[str, npt.NDArray[np.int64 | np.bool]]


def pack(texts: Sequence[Sequence[int] | IntArray], block: int | None = None, multiple: int = 1) -> Inputs:
    """The graph's inputs (``unitvec.models.layers.PackedBatch``) for texts of token ids, none of them empty.

    Args:
        texts: token ids of each text.
        block: places that attention takes at once; None for all.
        multiple: attention is padded to a multiple of so many places.
    """
    lengths = np.fromiter(map(len, texts), np.int64, len(texts))
    longest = -(-int(lengths.max()) // multiple) * multiple
    count = -(-longest // (block or longest))  # blocks
    size = -(-longest // count)  # of each: as equal as can be
    starts = np.cumsum(lengths) - lengths
    text_of = np.repeat(np.arange(len(texts)), lengths)
    positions = np.arange(len(text_of)) - starts[text_of]
    places = np.arange(count * size)
    inside = places < lengths[:, None]
    spread = np.where(inside, starts[:, None] + places, 0)
    return {
        "ids": np.concatenate([np.asarray(text, np.int64) for text in texts]),
        "texts": text_of,
        "positions": positions,
        "lengths": lengths,
        "places": places[:longest],
        "inside": inside[:, None, None, :longest],
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
        spin: whether they wait for each other awake: faster by itself, a hindrance to whatever else wants the cores.
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
        spin: bool = True,
        cache_dir: Path | None = None,
    ) -> None:
        self.spec = spec
        self.resident_bytes = 0
        self._multiple = _VECTOR if spec.plan else 1
        stages = graph.load(spec, cache_dir)
        wanted = [name for stage in stages for name in stage.parameters]
        drawn = np.random.default_rng(0).integers(0, spec.transformer.vocab_size, _DRAWN)
        largest = outliers.largest(spec, tensors, _values(pack(list(drawn))), threads, cache_dir)
        tensors = quantize.quantized(tensors, spec, wanted, largest)
        own = tensors if isinstance(tensors, Tensors) else None  # others may be somebody else's too
        probe = [np.linspace(0, spec.transformer.vocab_size - 1, 4, dtype=np.int64)]
        values = _values(pack(probe, multiple=self._multiple))
        self._stages: list[LoadedStage] = []
        with ThreadPoolExecutor(1) as reader:  # the next stage's weights, while onnxruntime lays out this one's
            coming = reader.submit(bind, stages[0], tensors)
            for built, later in zip_longest(stages, stages[1:]):
                weights = coming.result()
                if later is not None:
                    coming = reader.submit(bind, later, tensors)
                stage = LoadedStage(built, weights, threads, spin=spin)
                self.resident_bytes += stage.settle(own, values)
                values |= stage.run(values, None)
                self._stages.append(stage)
                pages.trim()

    def run(self, texts: Sequence[Sequence[int] | IntArray]) -> FloatArray:
        """Embed one micro-batch.

        Args:
            texts: token ids of each text, special tokens included; none empty.

        Returns:
            float32 [len(texts), embedding_length], one row a text, not yet of unit length.
        """
        lengths = [len(text) for text in texts]
        longest = -(-max(lengths) // self._multiple) * self._multiple
        options = _SHRINK if memory.footprint(self.spec, len(texts), longest, sum(lengths)) > _LARGE else None
        block = memory.block_size(self.spec, len(texts), longest)
        values = _values(pack(texts, block, self._multiple))
        for number, stage in enumerate(self._stages):
            values |= stage.run(values, options)
            wanted = {name for later in self._stages[number + 1 :] for name in later.inputs}
            values = {name: value for name, value in values.items() if name in wanted or name == _RESULT}
        return np.array(values[_RESULT].numpy(), np.float32)


def weight_bytes(spec: ModelSpec, cache_dir: Path | None = None) -> int:
    """About how many bytes of memory a model's weights will take once it is loaded, as its graph has them."""
    stages = graph.load(spec, cache_dir)
    return sum(
        math.prod(shape) * (2 if dtype == "bfloat16" else np.dtype(dtype).itemsize)  # numpy has no bfloat16
        for stage in stages
        for dtype, shape in stage.parameters.values()
    )


_RESULT = "embeddings"
# Attention over more padding adds the same numbers in another order, and what differs in the last bit may round to
# another of 8 bits. Padded to whole vectors of the processor, the order stays.
_VECTOR = 16
_DRAWN = 8, 16  # texts and tokens of each that show a model's outliers
_LARGE = 128 << 20  # bytes of a micro-batch that are given back when it is done
_SHRINK = ort.RunOptions()
_SHRINK.add_run_config_entry("memory.enable_memory_arena_shrinkage", "cpu:0")


def _values(arrays: Inputs) -> Values:
    return {name: ort.OrtValue.ortvalue_from_numpy(array) for name, array in arrays.items()}
