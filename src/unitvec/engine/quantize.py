"""Weights in the forms that 8-bit layers want (:mod:`unitvec.models.int8`), made when they are asked for."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from functools import partial

import numpy as np
import numpy.typing as npt

from unitvec.checkpoint.checkpoint import Tensors
from unitvec.errors import InvalidCheckpoint
from unitvec.models.config import FINE, Q8_BLOCK, Blocks, Form, Plan, Rows
from unitvec.models.plans import kind_of

Array = npt.NDArray[np.generic]
Weights = Mapping[str, Array]

_PART = re.compile(r"(.+)\.(weight|scale)(?:\.(\d+))?")
_SMALLEST = 1e-30  # a row of zeros has a scale too
_CHUNK = 1 << 18  # numbers that are quantized at once: the steps in between stay in the processor's cache


def quantized(tensors: Weights, plan: Plan, wanted: Iterable[str]) -> Weights:
    """What ``tensors`` has of the parameters ``wanted``, the matrices that ``plan`` names in its forms.

    Raises:
        InvalidCheckpoint: when one of them is taken that is no matrix.
    """
    if not plan:
        return tensors
    forms = dict(plan)
    made: dict[str, Callable[[], Array]] = {}
    pairs: dict[tuple[str, int], _Pair] = {}
    for name in wanted:
        part = _PART.fullmatch(name)
        matrix = f"{part[1]}.weight" if part else ""
        form = forms.get(kind_of(part[1]) or "") if part else None
        if part and form and matrix in tensors:
            group = int(part[3] or 0)
            pair = pairs.setdefault((matrix, group), _Pair(partial(_pair, tensors, matrix, form, group)))
            made[name] = partial(pair.take, part[2])
        elif name in tensors:
            made[name] = partial(tensors.__getitem__, name)
    if isinstance(tensors, Tensors):
        return Tensors(made)
    return {name: make() for name, make in made.items()}


class _Pair:
    """A matrix's numbers and scales, which are made together and taken one by one; what was taken is not kept."""

    def __init__(self, make: Callable[[], tuple[Array, Array]]) -> None:
        self._make = make
        self._left: dict[str, Array] = {}

    def take(self, part: str) -> Array:
        if part not in self._left:
            self._left = dict(zip(("weight", "scale"), self._make(), strict=True))
        return self._left.pop(part)


def _pair(tensors: Weights, name: str, form: Form, group: int) -> tuple[Array, Array]:
    if isinstance(form, Blocks) and form.size == Q8_BLOCK and isinstance(tensors, Tensors) and name in tensors.q8:
        return _in_blocks(*tensors.q8[name](), form.size)  # it lies in such blocks in its file
    matrix = np.asarray(tensors[name], np.float32)
    if matrix.ndim != 2:
        raise InvalidCheckpoint(f"weight {name!r} has {matrix.ndim} dimensions where a matrix has two")
    if isinstance(form, Blocks):
        numbers, scales = _rounded(matrix.reshape(-1, form.size))
        return _in_blocks(numbers.reshape(matrix.shape), scales, form.size)
    return _in_rows(matrix, form, group)


def _in_rows(matrix: npt.NDArray[np.float32], form: Rows, group: int) -> tuple[Array, Array]:
    """int8 [inputs of the group, outputs], twice as many inputs if fine, and float32 [outputs]."""
    size = matrix.shape[1] // form.groups(matrix.shape[1])
    numbers, scales = _rounded(matrix[:, group * size : (group + 1) * size])
    if form.fine:
        numbers = np.concatenate([numbers, np.rint(numbers / np.float32(FINE)).astype(np.int8)], axis=1)
    return np.ascontiguousarray(numbers.T), scales


def _in_blocks(numbers: npt.NDArray[np.int8], scales: Array, size: int) -> tuple[Array, Array]:
    """int8 [outputs, inputs] as uint8 [outputs, blocks, size] around 128, scales as float32 [outputs, blocks]."""
    outputs, inputs = numbers.shape
    blocks = inputs // size
    around = numbers.view(np.uint8) ^ np.uint8(128)
    return around.reshape(outputs, blocks, size), scales.astype(np.float32, copy=False).reshape(outputs, blocks)


def _rounded(matrix: npt.NDArray[np.float32]) -> tuple[npt.NDArray[np.int8], npt.NDArray[np.float32]]:
    """Rows as int8 and a float32 [rows] that they are times: the largest number of each becomes 127."""
    numbers, scales = np.empty(matrix.shape, np.int8), np.empty(len(matrix), np.float32)
    step = max(1, _CHUNK // matrix.shape[1])
    for start in range(0, len(matrix), step):
        part = matrix[start : start + step]
        scale = np.maximum(np.abs(part).max(axis=1), np.float32(_SMALLEST)) / np.float32(127)
        scales[start : start + step] = scale
        numbers[start : start + step] = np.rint(part / scale[:, None])
    return numbers, scales
