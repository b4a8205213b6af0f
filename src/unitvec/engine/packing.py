"""Texts of token ids as the graph's inputs."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

IntArray = npt.NDArray[np.int64]
Inputs = dict[str, npt.NDArray[np.int64 | np.bool]]


def pack(texts: Sequence[Sequence[int] | IntArray], block: int | None = None, multiple: int = 1) -> Inputs:
    """The graph's inputs (``unitvec.models.layers.PackedBatch``) for texts of token ids, none of them empty.

    Args:
        texts: token ids of each text.
        block: places that attention takes at once; None for all.
        multiple: attention, and each of its blocks, is padded to a multiple of so many places.
    """
    lengths = np.fromiter(map(len, texts), np.int64, len(texts))
    longest = -(-int(lengths.max()) // multiple) * multiple
    count = -(-longest // (block or longest))  # blocks
    size = -(-longest // (count * multiple)) * multiple  # of each: as equal as can be
    starts = np.cumsum(lengths) - lengths
    text_of = np.repeat(np.arange(len(texts)), lengths)
    positions = np.arange(len(text_of)) - starts[text_of]
    places = np.arange(count * size)
    inside = places < lengths[:, None]
    spread = np.where(inside, starts[:, None] + places, 0)
    return {
        "ids": np.concatenate([np.asarray(text, np.int64) for text in texts]),
        "texts": text_of,
        "positions": positions,
        "lengths": lengths,
        "places": places[:longest],
        "inside": inside[:, None, None, :longest],
        "spread": spread[:, :longest],
        "blocks": np.ascontiguousarray(spread.reshape(len(texts), count, size).swapaxes(0, 1)),
        "block_places": places.reshape(count, size),
        "slots": (positions // size * len(texts) + text_of) * size + positions % size,
    }
