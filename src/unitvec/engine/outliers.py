"""How large each column of an 8-bit layer's activations gets: a few are many times larger than the others.

Which they are lies in the weights, so that any tokens show it: numbers drawn at random find the same columns as texts
do. They run through the float32 model once, of which one stage is in memory at a time.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from unitvec.engine import graph
from unitvec.engine.stage import LoadedStage, Values, Weights, bind
from unitvec.models.config import LARGEST, ModelSpec, Rows, Watched


def largest(
    spec: ModelSpec, tensors: Weights, values: Values, threads: int, cache_dir: Path | None
) -> dict[str, npt.NDArray[np.float32]]:
    """By the name of a matrix that ``spec`` wants in rows of 8 bits: float32 [inputs].

    Args:
        spec: with its plan.
        tensors: the parameters by checkpoint name.
        values: the graph's inputs for some texts.
        threads: cores that the run uses.
        cache_dir: where built graphs are kept.
    """
    plan = tuple((name, Watched()) for name, form in spec.plan if isinstance(form, Rows))
    if not plan:
        return {}
    for built in graph.load(replace(spec, plan=plan), cache_dir):
        values = values | LoadedStage(built, bind(built, tensors), threads, spin=False).run(values)
    return {
        name.removesuffix(LARGEST): np.array(value.numpy()) for name, value in values.items() if name.endswith(LARGEST)
    }
