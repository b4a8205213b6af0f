"""The vectors in tests/data, computed afresh."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.reference import make
from unitvec import config
from unitvec.store.name import Name


@pytest.mark.reference
@pytest.mark.filterwarnings("default")  # what other people's libraries say of each other
def test_the_kept_vectors_are_sentence_transformers(all_minilm: str) -> None:
    stored = config.stores().find(Name.parse(all_minilm))
    assert stored is not None
    texts, kept = make.load()
    afresh = make.vectors(texts, Path(stored.weights))
    assert np.einsum("ij,ij->i", afresh, kept).min() > 0.999999
