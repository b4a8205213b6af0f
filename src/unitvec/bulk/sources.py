"""Files, read as windows of rows: forwards only, some thousand rows in memory at a time."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from unitvec.bulk.inputs import COMPRESSED, STDIN
from unitvec.bulk.window import Position, Window

ALL = "*"  # stands for every column
_CHARACTERS = 1 << 20  # of a window's texts, so that one of long texts is no more work than one of short ones
_CARRIED = 32 << 20  # bytes of what a window carries along, so that it is no larger in memory either


@dataclass(frozen=True)
class Wanted:
    """What is read of each row, and how much of it at a time.

    Attributes:
        column: which holds the text; in JSON it may be a path, ``a.b``.
        carry: columns to carry along to the output, likewise; ``*`` for all.
        rows: of a window, at most.
    """

    column: str
    carry: tuple[str, ...]
    rows: int

    def is_full(self, rows: int, characters: int, along: int) -> bool:
        """Whether a window ends here. It depends on nothing else, so that windows are the same each time.

        Args:
            rows: that it has.
            characters: of its texts.
            along: bytes that it carries along, about.
        """
        return rows >= self.rows or characters >= _CHARACTERS or along >= _CARRIED


class Reader(Protocol):
    """One file."""

    @property
    def rows(self) -> int | None:
        """How many it has, where that is known without reading it."""

    def windows(self, number: int, start: Position) -> Iterator[Window]:
        """Its windows from ``start`` on, the first of them with this number."""


class Source:
    """The input, all of its files.

    Args:
        files: in order, as :func:`unitvec.bulk.inputs.find` gives them.
        kind: one of :data:`unitvec.bulk.inputs.KINDS`.
        wanted: what is read of them.

    Raises:
        InvalidRequest: one cannot be read, lacks a column, or differs from the others in the type of one.
    """

    def __init__(self, files: Sequence[str], kind: str, wanted: Wanted) -> None:
        self.files = files
        self._sizes = [0 if file == STDIN else os.path.getsize(file) for file in files]
        self._plain = STDIN not in files and not any(file.endswith(COMPRESSED) for file in files)
        self._readers = _readers(files, kind, wanted)
        counts = [reader.rows for reader in self._readers]
        self._counts = [count for count in counts if count is not None]

    @property
    def rows(self) -> int | None:
        """How many there are, where that is known without reading them."""
        return sum(self._counts) if len(self._counts) == len(self._readers) else None

    def share(self, at: Position) -> float | None:
        """About how much of the input lies before a place, 0 to 1, where that can be told."""
        if self.rows is not None:
            return (sum(self._counts[: at.file]) + at.row) / max(1, self.rows)
        if self._plain:
            return (sum(self._sizes[: at.file]) + at.offset) / max(1, sum(self._sizes))
        return None

    def windows(self, number: int = 0, start: Position = Position()) -> Iterator[Window]:  # noqa: B008  it is frozen
        """All windows from a place on, which must be where a window begins.

        Args:
            number: of the first of them.
            start: that place.

        Raises:
            InvalidRequest: a file is damaged.
        """
        for file in range(start.file, len(self._readers)):
            if file > start.file:
                start = Position(file)
            for window in self._readers[file].windows(number, start):
                yield window
                number = window.number + 1


def _readers(files: Sequence[str], kind: str, wanted: Wanted) -> list[Reader]:
    if kind == "parquet":
        from unitvec.bulk.parquet import readers

        return [*readers(files, wanted)]
    from unitvec.bulk.text import TextReader

    return [TextReader(file, kind, wanted) for file in files]
