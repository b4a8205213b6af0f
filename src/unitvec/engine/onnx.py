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
from unitvec.engine.packing import Inputs, IntArray, pack
from unitvec.engine.stage import LoadedStage, Values, bind
from unitvec.models.config import VECTOR, ModelSpec

FloatArray = npt.NDArray[np.float32]


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
        # Attention over more padding adds the same numbers in another order, and what differs in the last bit may round
        # to another of 8 bits. Padded to whole vectors, the order stays.
        self._multiple = VECTOR if spec.plan else 1
        stages = graph.load(spec, cache_dir)
        wanted = [name for stage in stages for name in stage.parameters]
        largest = outliers.largest(spec, tensors, threads, cache_dir)
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
_LARGE = 128 << 20  # bytes of a micro-batch that are given back when it is done
_SHRINK = ort.RunOptions()
_SHRINK.add_run_config_entry("memory.enable_memory_arena_shrinkage", "cpu:0")


def _values(arrays: Inputs) -> Values:
    return {name: ort.OrtValue.ortvalue_from_numpy(array) for name, array in arrays.items()}
