"""Reads safetensors files as views into a memory map.

The format (https://huggingface.co/docs/safetensors): 8 bytes little-endian length of a JSON header,
the header {name: {"dtype", "shape", "data_offsets"}}, the data. The library of that name copies every
tensor it is asked for; a view costs nothing until it is read.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import orjson

from unitvec.errors import InvalidCheckpoint

# BF16 comes as its 16 bits; who needs numbers widens them.
_DTYPES = {"F32": np.float32, "F16": np.float16, "BF16": np.uint16, "I64": np.int64, "I32": np.int32, "U8": np.uint8}
_MAX_HEADER = 100_000_000  # as the reference implementation


def read(path: Path) -> tuple[dict[str, npt.NDArray[np.generic]], dict[str, str]]:
    """All tensors of a file by name, as read-only views, and the file's dtype of each ("F32", "BF16", ...).

    Raises:
        InvalidCheckpoint: the file is missing, cut off, or not safetensors.
    """
    try:
        data = np.memmap(path, np.uint8, "r")
    except (OSError, ValueError) as error:
        raise InvalidCheckpoint(f"cannot read weights {path}: {error}") from None
    header, start = _header(path, data)
    tensors: dict[str, npt.NDArray[np.generic]] = {}
    dtypes: dict[str, str] = {}
    for name, entry in header.items():
        if name == "__metadata__":
            continue
        try:
            dtype, shape, (begin, end) = entry["dtype"], tuple(map(int, entry["shape"])), entry["data_offsets"]
            kind = np.dtype(_DTYPES[dtype])
            if not isinstance(begin, int) or not isinstance(end, int) or min(shape, default=0) < 0:
                raise ValueError
        except (KeyError, TypeError, ValueError):
            raise InvalidCheckpoint(f"damaged weights file {path}: tensor {name[:80]!r} is not described") from None
        if not 0 <= begin <= end <= len(data) - start or end - begin != math.prod(shape) * kind.itemsize:
            raise InvalidCheckpoint(f"damaged weights file {path}: tensor {name[:80]!r} lies outside the file")
        tensors[name] = data[start + begin : start + end].view(kind).reshape(shape)
        dtypes[name] = dtype
    return tensors, dtypes


def _header(path: Path, data: npt.NDArray[np.uint8]) -> tuple[dict[str, Any], int]:
    length = int.from_bytes(data[:8].tobytes(), "little")
    if len(data) < 8 or not 2 <= length <= min(_MAX_HEADER, len(data) - 8):
        raise InvalidCheckpoint(f"damaged weights file {path}: no safetensors header")
    try:
        header = orjson.loads(data[8 : 8 + length].tobytes())
    except ValueError:
        header = None
    if not isinstance(header, dict):
        raise InvalidCheckpoint(f"damaged weights file {path}: its header is not JSON")
    return header, 8 + length
