"""The unit of bulk work: a window of rows comes in, a part of the output goes out."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from unitvec.engine.onnx import FloatArray

Vectors = npt.NDArray[np.float32] | npt.NDArray[np.float16]


@dataclass(frozen=True)
class Position:
    """A place between two rows of the input.

    Attributes:
        file: which of the files, from 0.
        row: rows of that file before it.
        offset: bytes of that file before it, as they are when uncompressed; in Parquet, rows again.
    """

    file: int = 0
    row: int = 0
    offset: int = 0


@dataclass(frozen=True)
class Window:
    """Rows of one file that run together. Plain values: it may be sent to another process.

    Attributes:
        number: 0 for the first of the input; none is left out.
        start: where it begins.
        end: where the next one begins.
        texts: one a row, ``""`` where the row has none.
        refused: rows that have no text, counted from the window's first, and why.
        carried: the columns carried along, as :mod:`unitvec.bulk.carried` writes them; empty where there are none.
    """

    number: int
    start: Position
    end: Position
    texts: list[str]
    refused: dict[int, str]
    carried: bytes


@dataclass(frozen=True)
class Embedded:
    """What became of some texts.

    Attributes:
        vectors: float32 [texts, width], each of unit length; rows of refused texts may hold anything.
        tokens: how many tokens were run.
        refused: indices of texts that cannot be embedded, and why.
    """

    vectors: FloatArray
    tokens: int
    refused: Mapping[int, str]


# Takes texts, all different, perhaps none; called from several threads at once.
# Raises UnitvecError where going on is of no use.
Embed = Callable[[Sequence[str]], Embedded]


@dataclass(frozen=True)
class Part:
    """A window, embedded.

    Attributes:
        number: its window's.
        start: likewise.
        end: likewise.
        vectors: float32 or float16 [rows, width]; NaN where a row was refused.
        refused: rows without a vector, counted from the window's first, and why.
        carried: its window's.
        texts: how many different ones were embedded.
        tokens: how many tokens were run.
    """

    number: int
    start: Position
    end: Position
    vectors: Vectors
    refused: dict[int, str]
    carried: bytes
    texts: int
    tokens: int


def embed_window(window: Window, embed: Embed, dtype: str = "float32") -> Part:
    """Embed a window's texts, equal ones once.

    Args:
        window: whose.
        embed: what embeds.
        dtype: ``float32`` or ``float16``, of the part's vectors.
    """
    places: dict[str, int] = {}
    of_row = np.array(
        [-1 if row in window.refused else places.setdefault(text, len(places)) for row, text in enumerate(window.texts)]
    )
    found = embed(list(places))
    width = found.vectors.shape[1]
    vectors = np.full((len(of_row), width), np.nan, dtype)
    refused = dict(window.refused)
    for row, place in enumerate(of_row.tolist()):
        if place >= 0 and place in found.refused:
            refused[row] = found.refused[place]
    kept = np.array([row not in refused for row in range(len(of_row))], bool)
    vectors[kept] = found.vectors[of_row[kept]]
    texts = len(places) - len(found.refused)
    return Part(window.number, window.start, window.end, vectors, refused, window.carried, texts, found.tokens)
