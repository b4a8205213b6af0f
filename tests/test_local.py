"""Vectors, from Python: against sentence-transformers, and whatever else is in the batch."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

import unitvec
from tests.reference import make
from unitvec.errors import InvalidRequest, UnitvecError
from unitvec.local import Model


@pytest.fixture(scope="module")
def model(all_minilm: str) -> Iterator[Model]:
    with unitvec.load(all_minilm) as loaded:
        yield loaded


def test_a_thousand_texts_as_sentence_transformers(model: Model) -> None:
    texts, wanted = make.load()
    vectors = model.embed(texts)
    assert vectors.shape == (1000, 384)
    assert vectors.dtype == np.float32
    cosines = np.einsum("ij,ij->i", vectors, wanted)
    assert cosines.min() >= 0.99999, texts[int(cosines.argmin())]


def test_a_vector_does_not_depend_on_its_neighbours(model: Model) -> None:
    texts, _ = make.load()
    sample = texts[:60]
    together = model.embed(sample)
    backwards = model.embed(sample[::-1])[::-1]
    alone = np.concatenate([model.embed(text) for text in sample])
    assert np.abs(together - alone).max() <= 1e-6
    assert np.abs(backwards - alone).max() <= 1e-6


def test_every_vector_has_unit_length_whatever_its_dimensions(model: Model) -> None:
    full = model.embed(["a text", "another"])
    for dimensions in (1, 2, 100, 383):
        cut = model.embed(["a text", "another"], dimensions=dimensions)
        assert cut.shape == (2, dimensions)
        assert np.linalg.norm(cut, axis=1) == pytest.approx(1, abs=1e-6)
        assert np.einsum("ij,ij->i", cut, full[:, :dimensions]) / np.linalg.norm(
            full[:, :dimensions], axis=1
        ) == pytest.approx(1, abs=1e-6)
    for unchanged in (0, -3, 384, 10_000):
        assert np.array_equal(model.embed(["a text", "another"], dimensions=unchanged), full)


def test_nothing_gives_nothing(model: Model) -> None:
    assert model.embed([]).shape == (0, 384)


def test_too_long_is_an_error_when_it_may_not_be_cut(model: Model) -> None:
    with pytest.raises(InvalidRequest, match="exceeds the context length"):
        model.embed("word " * 300, truncate=False)
    assert np.array_equal(model.embed("word " * 300), model.embed("word " * 254))


def test_a_name_that_is_nowhere() -> None:
    with pytest.raises(UnitvecError):
        unitvec.load("no-such-model")
