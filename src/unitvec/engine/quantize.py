"""Weights in the forms that 8-bit layers want (:mod:`unitvec.models.int8`), made when they are asked for."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from functools import partial

import numpy as np
import numpy.typing as npt

from unitvec.checkpoint.checkpoint import Tensors
from unitvec.errors import InvalidCheckpoint
from unitvec.models.config import Q8_BLOCK, Blocks, ModelSpec, Rows
from unitvec.models.plans import form_of

Array = npt.NDArray[np.generic]
Floats = npt.NDArray[np.float32]
Weights = Mapping[str, Array]

_PART = re.compile(r"(.+)\.((?:weight|scale)(?:\.\d+)?|columns|inner|outer)")
_SMALLEST = 1e-30  # a row of zeros has a scale too, and a column a size
_SMALLEST_COLUMN = 1e-3  # beside the largest: tokens drawn at random may leave one of zeros
_CHUNK = 1 << 18  # numbers that are quantized at once: the steps in between stay in the processor's cache


def quantized(tensors: Weights, spec: ModelSpec, wanted: Iterable[str], largest: Mapping[str, Floats]) -> Weights:
    """What ``tensors`` has of the parameters ``wanted``, the matrices that the plan names in its forms.

    Args:
        tensors: by checkpoint name.
        spec: with the plan.
        wanted: the names of the graph's parameters.
        largest: by a matrix's name, how large each column of its layer's activations gets: float32 [inputs].

    Raises:
        InvalidCheckpoint: when one of them is taken that is no matrix.
    """
    if not spec.plan:
        return tensors
    made: dict[str, Callable[[], Array]] = {}
    layers: dict[str, _Layer] = {}
    names = set(wanted)
    for name in names:
        part = _PART.fullmatch(name)
        matrix = f"{part[1]}.weight" if part else ""
        form = form_of(part[1], spec.plan, spec.transformer.num_hidden_layers) if part else None
        # A layer that does not divide into blocks is left in float32, and has no scale.
        whole = isinstance(form, Blocks) and part and f"{part[1]}.scale" not in names
        if part and isinstance(form, Rows | Blocks) and not whole and matrix in tensors:
            layer = layers.setdefault(matrix, _Layer(partial(_parts, tensors, matrix, form, largest)))
            made[name] = partial(layer.take, part[2])
        elif name in tensors:
            made[name] = partial(tensors.__getitem__, name)
    if isinstance(tensors, Tensors):
        return Tensors(made)
    return {name: make() for name, make in made.items()}


class _Layer:
    """A layer's parameters, which are made together and taken one by one; what was taken is not kept."""

    def __init__(self, make: Callable[[], dict[str, Array]]) -> None:
        self._make = make
        self._left: dict[str, Array] = {}

    def take(self, part: str) -> Array:
        if part not in self._left:
            self._left = self._make()
        return self._left.pop(part)


def _parts(tensors: Weights, name: str, form: Rows | Blocks, largest: Mapping[str, Floats]) -> dict[str, Array]:
    if isinstance(form, Blocks) and form.size == Q8_BLOCK and isinstance(tensors, Tensors) and name in tensors.q8:
        return _in_blocks(*tensors.q8[name](), form.size)  # it lies in such blocks in its file
    matrix = np.asarray(tensors[name], np.float32)
    if matrix.ndim != 2:
        raise InvalidCheckpoint(f"weight {name!r} has {matrix.ndim} dimensions where a matrix has two")
    if isinstance(form, Rows):
        return _in_rows(matrix, form, largest[name])
    numbers, scales = _rounded(matrix.reshape(-1, form.size))
    return _in_blocks(numbers.reshape(matrix.shape), scales, form.size)


def _in_rows(matrix: Floats, form: Rows, largest: Floats) -> dict[str, Array]:
    """The parameters of :class:`unitvec.models.int8.RowsLinear`."""
    inputs = matrix.shape[1]
    columns = np.sort(np.argsort(-largest, kind="stable")[: form.columns(inputs)])
    inner = np.maximum(largest, max(_SMALLEST, _SMALLEST_COLUMN * largest.max())) ** np.float32(-form.smooth)
    rest = matrix / inner
    inner[columns], rest[:, columns] = 0, 0
    parts: dict[str, Array] = {"columns": columns, "inner": inner, "outer": np.ascontiguousarray(matrix[:, columns].T)}
    groups = form.groups(inputs)
    for group, one in enumerate(np.split(rest, groups, axis=1)):
        numbers, scales = _rounded(one)
        parts |= {f"weight.{group}": np.ascontiguousarray(numbers.T), f"scale.{group}": scales}
    return parts


def _in_blocks(numbers: npt.NDArray[np.int8], scales: Array, size: int) -> dict[str, Array]:
    """int8 [outputs, inputs] as uint8 [outputs, blocks, size] around 128, scales as float32 [outputs, blocks]."""
    outputs = len(numbers)
    around = (numbers.view(np.uint8) ^ np.uint8(128)).reshape(outputs, -1, size)
    return {"weight": around, "scale": scales.astype(np.float32, copy=False).reshape(outputs, -1)}


def _rounded(matrix: Floats) -> tuple[npt.NDArray[np.int8], Floats]:
    """Rows as int8 and a float32 [rows] that they are times: the largest number of each becomes 127."""
    numbers, scales = np.empty(matrix.shape, np.int8), np.empty(len(matrix), np.float32)
    step = max(1, _CHUNK // matrix.shape[1])
    for start in range(0, len(matrix), step):
        part = matrix[start : start + step]
        scale = np.maximum(np.abs(part).max(axis=1), np.float32(_SMALLEST)) / np.float32(127)
        scales[start : start + step] = scale
        numbers[start : start + step] = np.rint(part / scale[:, None])
    return numbers, scales
