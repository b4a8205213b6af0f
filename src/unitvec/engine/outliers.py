"""How large each column of an 8-bit layer's activations gets: a few are many times larger than the others.

Which they are lies in the weights, so that any tokens show it: numbers drawn at random find the same columns as texts
do. They run through the float32 model once, of which one stage is in memory at a time.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnxruntime as ort

from unitvec import pages
from unitvec.engine import graph
from unitvec.engine.packing import pack
from unitvec.engine.stage import LoadedStage, Weights, bind
from unitvec.models.config import LARGEST, BertConfig, ModelSpec, Rows, Watched

_TEXTS, _LENGTH = 8, 16


def largest(
    spec: ModelSpec, tensors: Weights, threads: int, cache_dir: Path | None
) -> dict[str, npt.NDArray[np.float32]]:
    """By the name of a matrix that ``spec`` wants in rows of 8 bits: float32 [inputs].

    Where nothing is to be learned, because weights are not finite or all is zero, columns are equal.

    Args:
        spec: with its plan.
        tensors: the parameters by checkpoint name.
        threads: cores that the run uses.
        cache_dir: where built graphs are kept.
    """
    plan = tuple((name, Watched()) for name, form in spec.plan if isinstance(form, Rows))
    if not plan:
        return {}
    sizes = spec.transformer
    length = min(_LENGTH, sizes.max_position_embeddings) if isinstance(sizes, BertConfig) else _LENGTH
    drawn = np.random.default_rng(0).integers(0, sizes.vocab_size, (_TEXTS, length))
    values: dict[str, npt.NDArray[np.generic]] = dict(pack(list(drawn)))
    found: dict[str, npt.NDArray[np.float32]] = {}
    for built in graph.load(replace(spec, plan=plan), cache_dir):
        given = {name: ort.OrtValue.ortvalue_from_numpy(values[name]) for name in built.inputs}
        results = LoadedStage(built, bind(built, tensors), threads, spin=False).run(given)
        # Copies: a session's memory lives as long as what came out of it.
        made = {name: np.array(value.numpy()) for name, value in results.items()}
        values |= {name: array for name, array in made.items() if not name.endswith(LARGEST)}
        found |= {name.removesuffix(LARGEST): array for name, array in made.items() if name.endswith(LARGEST)}
        del results
        pages.trim()
    return {name: of if np.isfinite(of).all() and of.any() else np.ones_like(of) for name, of in found.items()}
