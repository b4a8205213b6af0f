"""Reads GGUF, the container of llama.cpp: metadata and tensors, as views into a memory map.

The format, all little-endian (https://github.com/ggml-org/ggml/blob/master/docs/gguf.md): ``GGUF``, uint32 version,
uint64 number of tensors, uint64 number of metadata entries; the entries (key, uint32 type, value); for each tensor
its name, uint32 number of dimensions, uint64 dimensions (innermost first), uint32 format, uint64 offset; padding to
``general.alignment``; the data. A string is a uint64 length and UTF-8 bytes.

Nothing in the file is believed: every length is held against what is left of the file before it is used.
"""

from __future__ import annotations

import math
import mmap
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from unitvec.checkpoint.ggml import FORMATS, Format
from unitvec.errors import InvalidCheckpoint

_SCALARS = dict(enumerate(map(np.dtype, ("u1", "i1", "<u2", "<i2", "<u4", "<i4", "<f4"))))
_SCALARS |= {7: np.dtype("u1"), 10: np.dtype("<u8"), 11: np.dtype("<i8"), 12: np.dtype("<f8")}
_BOOL, _STRING, _ARRAY = 7, 8, 9
_MAX_ENTRIES = 1 << 16  # metadata entries, and tensors: models have hundreds
_MAX_STRINGS = 1 << 22  # in all arrays of a file: vocabularies and merges have some 300,000
_MAX_DIMENSIONS = 4


@dataclass(frozen=True)
class Tensor:
    """One tensor: ``shape`` is outermost first, as numpy's; ``raw`` is uint8 [bytes in the file], read-only."""

    form: Format
    shape: tuple[int, ...]
    raw: npt.NDArray[np.uint8]


@dataclass(frozen=True)
class GgufFile:
    """What a file holds: metadata by key (arrays of strings are lists, of numbers numpy's), tensors by name."""

    metadata: dict[str, Any]
    tensors: dict[str, Tensor]


def read(path: Path) -> GgufFile:
    """Map a file and read its directory.

    Raises:
        InvalidCheckpoint: it is missing, cut off, contradicts itself, or is of a version that is not supported.
    """
    try:
        with path.open("rb") as file:
            data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except (OSError, ValueError) as error:
        raise InvalidCheckpoint(f"cannot read GGUF file {path}: {error}") from None
    try:
        return _Reader(data).file()
    except _Damage as damage:
        raise InvalidCheckpoint(f"damaged GGUF file {path}: {damage}") from None


class _Damage(Exception):
    """What is wrong with a file."""


class _Reader:
    def __init__(self, data: mmap.mmap) -> None:
        self.data = data
        self.size = len(data)
        self.position = 0
        self.strings_left = _MAX_STRINGS

    def file(self) -> GgufFile:
        if self.data[:4] != b"GGUF":
            raise _Damage("it does not begin with GGUF")
        self.position = 4
        version = self.number("<I")
        if version in (2 << 24, 3 << 24):
            raise _Damage("it is big-endian, which is not supported")
        if version not in (2, 3):
            raise _Damage(f"version {version} is not supported; supported: 2 and 3")
        tensors, entries = self.count("tensors"), self.count("metadata entries")
        metadata: dict[str, Any] = {}
        for _ in range(entries):
            key = self.text()
            if key in metadata:
                raise _Damage(f"metadata {key[:80]!r} occurs twice")
            metadata[key] = self.value(self.number("<I"))
        return GgufFile(metadata, dict(self.tensors(tensors, metadata.get("general.alignment", 32))))

    def take(self, size: int) -> int:
        """Where the next ``size`` bytes begin."""
        start = self.position
        if size > self.size - start:
            raise _Damage(f"it ends at byte {self.size}, within what byte {start} begins")
        self.position = start + size
        return start

    def number(self, form: str) -> int:
        return int(struct.unpack_from(form, self.data, self.take(struct.calcsize(form)))[0])

    def count(self, what: str) -> int:
        count = self.number("<Q")
        if count > _MAX_ENTRIES:
            raise _Damage(f"{count} {what}")
        return count

    def text(self) -> str:
        length = self.number("<Q")
        start = self.take(length)
        return self.data[start : start + length].decode("utf-8", "replace")

    def value(self, kind: int) -> Any:
        if kind == _STRING:
            return self.text()
        if kind == _ARRAY:
            return self.array(self.number("<I"), self.number("<Q"))
        if kind not in _SCALARS:
            raise _Damage(f"metadata type {kind} does not exist")
        value = self.array(kind, 1)[0].item()
        return bool(value) if kind == _BOOL else value

    def array(self, kind: int, length: int) -> Any:
        if kind == _STRING:
            return self.strings(length)
        if kind not in _SCALARS:
            raise _Damage(f"arrays of type {kind} are not supported")
        dtype = _SCALARS[kind]
        start = self.take(length * dtype.itemsize)
        return np.frombuffer(self.data, dtype, length, start)

    def strings(self, length: int) -> list[str]:
        """An array of strings; the loop that decides how long a large vocabulary takes to read."""
        self.strings_left -= length
        if self.strings_left < 0 or length > (self.size - self.position) // 8:
            raise _Damage(f"an array of {length} strings")
        data, size, position = self.data, self.size, self.position
        unpack = struct.Struct("<Q").unpack_from
        strings = []
        try:
            for _ in range(length):
                start = position + 8
                position = start + unpack(data, position)[0]
                if position > size:
                    raise _Damage(f"it ends at byte {size}, within a string at byte {start}")
                strings.append(data[start:position].decode())
        except struct.error:
            raise _Damage(f"it ends at byte {size}, within an array of strings") from None
        except UnicodeDecodeError:
            raise _Damage(f"the string at byte {start} is not UTF-8") from None
        self.position = position
        return strings

    def tensors(self, count: int, alignment: Any) -> Iterator[tuple[str, Tensor]]:
        if not isinstance(alignment, int) or not 8 <= alignment <= 1 << 20 or alignment & (alignment - 1):
            raise _Damage(f"general.alignment is {alignment if isinstance(alignment, int) else 'no number'}")
        directory: dict[str, tuple[tuple[int, ...], Format, int]] = {}
        for _ in range(count):
            name = self.text()
            if name in directory:
                raise _Damage(f"tensor {name[:80]!r} occurs twice")
            directory[name] = (*self.shape_and_format(name), self.number("<Q"))
        begin = -(-self.position // alignment) * alignment
        end_of_last = 0
        views = {}
        for name, (shape, form, offset) in sorted(directory.items(), key=lambda item: item[1][2]):
            size = math.prod(shape) // form.numbers * form.bytes
            if offset % alignment or offset < end_of_last or size > self.size - begin - offset:
                raise _Damage(f"tensor {name[:80]!r} lies outside the file, across another tensor or out of line")
            end_of_last = offset + size
            views[name] = Tensor(form, shape, np.frombuffer(self.data, np.uint8, size, begin + offset))
        return ((name, views[name]) for name in directory)

    def shape_and_format(self, name: str) -> tuple[tuple[int, ...], Format]:
        dimensions = self.number("<I")
        if not 1 <= dimensions <= _MAX_DIMENSIONS:
            raise _Damage(f"tensor {name[:80]!r} has {dimensions} dimensions")
        shape = tuple(self.number("<Q") for _ in range(dimensions))[::-1]
        kind = self.number("<I")
        if kind not in FORMATS:
            raise _Damage(
                f"tensor {name[:80]!r} is of format {kind}, which is not supported; "
                f"supported: {', '.join(form.name for form in FORMATS.values())}"
            )
        if min(shape) < 1 or shape[-1] % FORMATS[kind].numbers:
            raise _Damage(f"tensor {name[:80]!r} of {FORMATS[kind].name} has the shape {list(shape)}")
        return shape, FORMATS[kind]
