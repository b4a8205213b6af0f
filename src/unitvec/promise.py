"""What the int8 mode promises, measured: vectors near those of float32, and the same ranking.

Texts come with unitvec and with Python: prose of the language reference, sentences in many scripts alone and mixed, and
the docstrings of the standard library, each function's summary a query for what else is said of it.
"""

from __future__ import annotations

import ast
import random
import sysconfig
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np

from unitvec.bench.texts import Texts
from unitvec.commands.compare import TEXTS as MANY_SCRIPTS

if TYPE_CHECKING:
    from unitvec.engine.onnx import FloatArray

COSINE_MEAN, COSINE_LEAST = 0.999, 0.998
RECALL, NDCG_LOSS = 0.98, 0.003
_CUT = 10  # ranks that count
_QUERIES = 600
_SHORTEST = 80  # characters of a docstring behind its summary


@dataclass(frozen=True)
class Kept:
    """What is left of float32.

    Attributes:
        cosine_mean, cosine_least: over the texts.
        recall: share of float32's own first ten that are among the first ten.
        ndcg_before, ndcg_after: normalized discounted cumulative gain of the first ten, the text that belongs to a
            query being the only one that counts.
    """

    texts: int
    cosine_mean: float
    cosine_least: float
    queries: int
    recall: float
    ndcg_before: float
    ndcg_after: float

    @property
    def holds(self) -> bool:
        """All that was promised."""
        near = self.cosine_mean >= COSINE_MEAN and self.cosine_least >= COSINE_LEAST
        return near and self.recall >= RECALL and self.ndcg_after >= self.ndcg_before * (1 - NDCG_LOSS)

    def __str__(self) -> str:
        return (
            f"{self.texts} texts: cosine with float32 {self.cosine_mean:.5f} in the mean, {self.cosine_least:.5f} at "
            f"least; {self.queries} queries: recall@{_CUT} {self.recall:.4f} of float32's own, "
            f"nDCG@{_CUT} {self.ndcg_after:.4f}, was {self.ndcg_before:.4f}"
        )


class Embeds(Protocol):
    """What is measured: a model, however it was loaded."""

    def embed(self, texts: Sequence[str]) -> FloatArray:
        """Unit vectors [len(texts), width]."""


def measure(exact: Embeds, other: Embeds) -> Kept:
    """Embed the same texts with both and compare."""
    sample = texts()
    cosines = np.einsum("ij,ij->i", exact.embed(sample), other.embed(sample), dtype=np.float64)
    queries, answers = zip(*questions(), strict=True)
    before, after = (_ranking(model.embed(queries), model.embed(answers)) for model in (exact, other))
    shared = [len(set(a) & set(b)) for a, b in zip(before[:, :_CUT].tolist(), after[:, :_CUT].tolist(), strict=True)]
    return Kept(
        len(sample),
        float(cosines.mean()),
        float(cosines.min()),
        len(queries),
        sum(shared) / (_CUT * len(queries)),
        _ndcg(before),
        _ndcg(after),
    )


def texts() -> list[str]:
    """Two thousand, the same every time: scripts, prose of all lengths, code's descriptions."""
    rng = random.Random(8)  # noqa: S311  no secret
    prose = Texts(8)
    found = [*MANY_SCRIPTS, *prose.take("short", 500), *prose.take("mixed", 400), *prose.take("passages", 70)]
    found += [text for pair in questions()[:250] for text in pair]
    words = [text.split(" ") for text in MANY_SCRIPTS]
    while len(found) < 2000:
        parts = (rng.choice(words) for _ in range(rng.randint(1, 4)))
        found.append(" ".join(word for part in parts for word in part[rng.randrange(len(part)) :][:20]))
    return found


def questions() -> list[tuple[str, str]]:
    """Summaries of the standard library's functions, and the text that each belongs to; no summary twice."""
    found: dict[str, str] = {}
    for path in sorted(Path(sysconfig.get_path("stdlib")).glob("*.py")):
        for text in _docstrings(path):
            summary, _, rest = text.partition("\n\n")
            if len(rest) >= _SHORTEST and 20 <= len(summary) <= 200:
                found.setdefault(" ".join(summary.split()), rest[:1000])
    chosen = sorted(found.items())
    random.Random(8).shuffle(chosen)  # noqa: S311  no secret
    return chosen[:_QUERIES]


def _docstrings(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_bytes())):
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and (text := ast.get_docstring(node)):
            yield text


def _ranking(queries: FloatArray, answers: FloatArray) -> np.ndarray[tuple[int, int], np.dtype[np.int64]]:
    """For each query, the numbers of the answers, the nearest first."""
    return np.argsort(-(queries @ answers.T), axis=1, kind="stable")


def _ndcg(ranking: np.ndarray[tuple[int, int], np.dtype[np.int64]]) -> float:
    ranks = np.argmax(ranking == np.arange(len(ranking))[:, None], axis=1)
    return float(np.where(ranks < _CUT, 1 / np.log2(ranks + 2), 0).mean())
