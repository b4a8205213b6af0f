"""The number formats of GGUF tensors and how each is turned into float32.

A quantized row is a run of blocks; a block holds scales and the small integers that they multiply.
Formats: https://github.com/ggml-org/llama.cpp/blob/master/ggml/src/ggml-common.h (the ``block_*`` types).
Each decoder takes uint8 [n, bytes of a block] and gives float32 [n, numbers of a block].
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Bytes = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]

_CHUNK = 1 << 18  # numbers decoded at once: the steps in between stay in the processor's cache


def _half(blocks: Bytes, at: int) -> Floats:
    """The float16 at byte ``at`` of each block, as a column."""
    return np.ascontiguousarray(blocks[:, at : at + 2]).view(np.float16).astype(np.float32)


def _nibbles(packed: Bytes) -> Bytes:
    """[n, k] bytes to [n, 2k]: all low halves, then all high ones."""
    return np.concatenate([packed & 15, packed >> 4], axis=1)


def _fifth_bits(packed: Bytes) -> Bytes:
    """[n, 4] bytes to [n, 32]: the bits in order, each in the place of the fifth bit."""
    return np.unpackbits(packed, axis=1, bitorder="little") << np.uint8(4)


def _bfloat16(blocks: Bytes) -> Floats:
    return (blocks.reshape(-1).view(np.uint16).astype(np.uint32) << 16).view(np.float32)[:, None]


def _q8_0(blocks: Bytes) -> Floats:
    return blocks[:, 2:].view(np.int8) * _half(blocks, 0)


def _q4_0(blocks: Bytes) -> Floats:
    return (_nibbles(blocks[:, 2:]).view(np.int8) - np.int8(8)) * _half(blocks, 0)


def _q4_1(blocks: Bytes) -> Floats:
    return _nibbles(blocks[:, 4:]) * _half(blocks, 0) + _half(blocks, 2)


def _q5_0(blocks: Bytes) -> Floats:
    numbers = _nibbles(blocks[:, 6:]) | _fifth_bits(blocks[:, 2:6])
    return (numbers.view(np.int8) - np.int8(16)) * _half(blocks, 0)


def _q5_1(blocks: Bytes) -> Floats:
    numbers = _nibbles(blocks[:, 8:]) | _fifth_bits(blocks[:, 4:8])
    return numbers * _half(blocks, 0) + _half(blocks, 2)


def _bit_pairs(packed: Bytes) -> Bytes:
    """[n, k, 32] bytes to [n, 4k, 32]: of each 32 bytes the lowest bit pairs, then the next ones."""
    shifts = np.array([0, 2, 4, 6], np.uint8)[:, None]
    return ((packed[:, :, None, :] >> shifts) & np.uint8(3)).reshape(len(packed), -1, 32)


def _grouped(numbers: npt.NDArray[np.number[Any]], scales: Floats) -> Floats:
    """Numbers [n, 256] times scales [n, groups], each scale for as many of them as fall to it."""
    groups = scales.shape[1]
    products: Floats = np.multiply(numbers.reshape(len(scales), groups, -1), scales[:, :, None], dtype=np.float32)
    return products.reshape(len(scales), -1)


def _spread_minimum(minimum: Floats) -> Floats:
    return np.repeat(minimum, 256 // minimum.shape[1], axis=1)


def _q2_k(blocks: Bytes) -> Floats:
    scales = blocks[:, :16]
    numbers = _bit_pairs(blocks[:, 16:80].reshape(-1, 2, 32))
    positive = _grouped(numbers, (scales & 15) * _half(blocks, 80))
    return positive - _spread_minimum((scales >> 4) * _half(blocks, 82))


def _q3_k(blocks: Bytes) -> Floats:
    low, packed = _bit_pairs(blocks[:, 32:96].reshape(-1, 2, 32)), blocks[:, 96:108]
    high = np.unpackbits(blocks[:, :32, None], axis=2, bitorder="little").transpose(0, 2, 1)
    numbers = (low | high << 2).view(np.int8) - np.int8(4)
    top = ((packed[:, None, 8:] >> np.array([0, 2, 4, 6], np.uint8)[:, None]) & 3).reshape(-1, 16)
    scales = (_nibbles(packed[:, :8]) | top << 4).view(np.int8) - np.int8(32)
    return _grouped(numbers, scales * _half(blocks, 108))


def _scales_and_minima(packed: Bytes) -> tuple[Bytes, Bytes]:
    """The eight 6-bit scales and eight 6-bit minima that Q4_K and Q5_K keep in 12 bytes."""
    first, second, rest = packed[:, :4], packed[:, 4:8], packed[:, 8:12]
    scales = np.concatenate([first & 63, (rest & 15) | (first >> 6) << 4], axis=1)
    minima = np.concatenate([second & 63, (rest >> 4) | (second >> 6) << 4], axis=1)
    return scales, minima


def _nibble_rows(packed: Bytes) -> Bytes:
    """[n, 128] bytes to [n, 256]: of each 32 bytes the low halves, then the high ones."""
    rows = packed.reshape(-1, 4, 1, 32)
    return np.concatenate([rows & 15, rows >> 4], axis=2).reshape(-1, 256)


def _q4_k(blocks: Bytes) -> Floats:
    scales, minima = _scales_and_minima(blocks[:, 4:16])
    positive = _grouped(_nibble_rows(blocks[:, 16:]), scales * _half(blocks, 0))
    return positive - _spread_minimum(minima * _half(blocks, 2))


def _q5_k(blocks: Bytes) -> Floats:
    scales, minima = _scales_and_minima(blocks[:, 4:16])
    fifth = np.unpackbits(blocks[:, 16:48, None], axis=2, bitorder="little").transpose(0, 2, 1).reshape(-1, 256)
    positive = _grouped(_nibble_rows(blocks[:, 48:]) | fifth << 4, scales * _half(blocks, 0))
    return positive - _spread_minimum(minima * _half(blocks, 2))


def _q6_k(blocks: Bytes) -> Floats:
    halves = blocks[:, :128].reshape(-1, 2, 1, 64)
    low = np.concatenate([halves & 15, halves >> 4], axis=2).reshape(-1, 256)
    high = _bit_pairs(blocks[:, 128:192].reshape(-1, 2, 32)).reshape(-1, 256)
    numbers = (low | high << 4).view(np.int8) - np.int8(32)
    return _grouped(numbers, blocks[:, 192:208].view(np.int8) * _half(blocks, 208))


# The sixteen values of the non-linear 4-bit formats.
_NON_LINEAR = np.array([-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113], np.float32)


def _iq4_nl(blocks: Bytes) -> Floats:
    return _NON_LINEAR[_nibbles(blocks[:, 2:])] * _half(blocks, 0)


def _iq4_xs(blocks: Bytes) -> Floats:
    high = np.ascontiguousarray(blocks[:, 2:4]).view(np.uint16)
    shifts = np.arange(0, 16, 2, dtype=np.uint16)
    low = np.stack([blocks[:, 4:8] & 15, blocks[:, 4:8] >> 4], axis=2).reshape(-1, 8)
    scales = (low | ((high >> shifts) & 3) << 4).astype(np.float32) - 32
    rows = blocks[:, 8:].reshape(-1, 8, 16)
    numbers = _NON_LINEAR[np.concatenate([rows & 15, rows >> 4], axis=2)]
    return _grouped(numbers, scales * _half(blocks, 0))


@dataclass(frozen=True)
class Format:
    """How a tensor's numbers lie in the file.

    Attributes:
        name: as GGUF calls it, ``"Q4_K"``.
        numbers: in a block.
        bytes: of a block.
        decode: uint8 [n, bytes] to float32 [n, numbers].
    """

    name: str
    numbers: int
    bytes: int
    decode: Callable[[Bytes], Floats]


FORMATS = {
    0: Format("F32", 1, 4, lambda blocks: blocks.view(np.float32)),
    1: Format("F16", 1, 2, lambda blocks: blocks.reshape(-1).view(np.float16).astype(np.float32)[:, None]),
    2: Format("Q4_0", 32, 18, _q4_0),
    3: Format("Q4_1", 32, 20, _q4_1),
    6: Format("Q5_0", 32, 22, _q5_0),
    7: Format("Q5_1", 32, 24, _q5_1),
    8: Format("Q8_0", 32, 34, _q8_0),
    10: Format("Q2_K", 256, 84, _q2_k),
    11: Format("Q3_K", 256, 110, _q3_k),
    12: Format("Q4_K", 256, 144, _q4_k),
    13: Format("Q5_K", 256, 176, _q5_k),
    14: Format("Q6_K", 256, 210, _q6_k),
    20: Format("IQ4_NL", 32, 18, _iq4_nl),
    23: Format("IQ4_XS", 256, 136, _iq4_xs),
    30: Format("BF16", 1, 2, _bfloat16),
}

# ``general.file_type``: what most of a file's tensors are, and how the others were chosen.
FILE_TYPES = {
    0: "F32",
    1: "F16",
    2: "Q4_0",
    3: "Q4_1",
    7: "Q8_0",
    8: "Q5_0",
    9: "Q5_1",
    10: "Q2_K",
    11: "Q3_K_S",
    12: "Q3_K_M",
    13: "Q3_K_L",
    14: "Q4_K_S",
    15: "Q4_K_M",
    16: "Q5_K_S",
    17: "Q5_K_M",
    18: "Q6_K",
    21: "Q2_K_S",
    25: "IQ4_NL",
    30: "IQ4_XS",
    32: "BF16",
}


def dequantize(
    form: Format, raw: Bytes, shape: tuple[int, ...], dtype: type[np.floating[Any]] = np.float32
) -> npt.NDArray[np.floating[Any]]:
    """A tensor's bytes, uint8 [size], as a new array of ``shape``: float32, or float16 where that is asked for."""
    blocks = raw.reshape(-1, form.bytes)
    out = np.empty((len(blocks), form.numbers), dtype)
    step = max(1, _CHUNK // form.numbers)
    with np.errstate(all="ignore"):  # a damaged file's scales may be infinite
        for start in range(0, len(blocks), step):
            out[start : start + step] = form.decode(blocks[start : start + step])
    return out.reshape(shape)
