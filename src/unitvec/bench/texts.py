"""Texts to measure with: English prose that comes with Python, never the same text twice.

The prose is the language reference in :mod:`pydoc_data`, its markup taken out. A text is a run of
its words behind four words that spell the text's serial number in a dictionary of 2,048. So no text
of a run is equal to another, nor to one of a run with another seed, and as they differ within the
first four words, neither a cache of whole texts nor one of beginnings can help a server.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable
from functools import cache

WORD_BITS = 11
SERIAL_WORDS = 4
SEED_BITS = 20
_INDEX_BITS = WORD_BITS * SERIAL_WORDS - SEED_BITS
_SCATTER = 0x9E3779B97F5  # odd: times this, modulo 2**44, gives every number another one

# Words that a text has, by kind. English prose has about 1.3 tokens a word in BERT's vocabulary.
_LENGTHS: dict[str, Callable[[random.Random], int]] = {
    "short": lambda _: 28,  # about 35 tokens
    "passages": lambda _: 125,  # about 150
    "mixed": lambda rng: min(180, max(SERIAL_WORDS + 1, round(rng.lognormvariate(3.3, 0.9)))),  # most 10 to 100
}
KINDS = tuple(_LENGTHS)


class Texts:
    """An endless supply of texts.

    Args:
        seed: a number; with the same one, the same texts come in the same order.
    """

    def __init__(self, seed: int) -> None:
        self._seed = seed % 2**SEED_BITS
        self._taken = 0

    def take(self, kind: str, count: int) -> list[str]:
        """The next ``count`` texts of a kind: one of :data:`KINDS`."""
        first = self._taken
        self._taken += count
        return [_text(kind, self._seed << _INDEX_BITS | index) for index in range(first, self._taken)]


def _text(kind: str, serial: int) -> str:
    words, dictionary = _prose()
    number = serial * _SCATTER % 2 ** (WORD_BITS * SERIAL_WORDS)
    spelled = [dictionary[number >> WORD_BITS * place & 2**WORD_BITS - 1] for place in reversed(range(SERIAL_WORDS))]
    rng = random.Random(serial)  # noqa: S311  no secret
    length = _LENGTHS[kind](rng) - SERIAL_WORDS
    start = rng.randrange(len(words) - length)
    return " ".join([*spelled, *words[start : start + length]])


@cache
def _prose() -> tuple[list[str], list[str]]:
    """All words in order with their punctuation, and 2,048 different ones without."""
    from pydoc_data.topics import topics

    words: list[str] = []
    for topic in sorted(topics):
        words += re.findall(r"(?<!\S)[A-Za-z][a-z]*[,.;:]?(?!\S)", topics[topic])
    different = sorted({word.rstrip(",.;:").lower() for word in words})
    return words, different[: 2**WORD_BITS]
