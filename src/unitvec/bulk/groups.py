"""Texts of like length together."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping


def by_length(sizes: Mapping[int, int], *, most: int, count: float = math.inf) -> Iterator[list[int]]:
    """Groups of texts of like length, the longest first: where several are done at once, all end at about one time.

    Args:
        sizes: the length of each text, by its index.
        most: what the lengths of a group come to at the most; one text may be longer by itself.
        count: how many texts a group has at the most.

    Yields:
        The indices of each group, none empty.
    """
    group: list[int] = []
    total = 0
    for index in sorted(sizes, key=sizes.__getitem__, reverse=True):
        if group and (len(group) == count or total + sizes[index] > most):
            yield group
            group, total = [], 0
        group.append(index)
        total += sizes[index]
    if group:
        yield group
