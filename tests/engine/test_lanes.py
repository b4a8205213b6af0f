from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest

from tests.models import tiny
from unitvec.checkpoint import gguf
from unitvec.engine.lanes import Lanes

TEXTS = [(4, 5, 6), (7, 8), (9,)]


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.qwen3().write(tmp_path_factory.mktemp("lanes") / "model.gguf", "Q8_0")


def lanes(file: Path, *, workers: int, small: bool) -> Lanes:
    checkpoint = gguf.read(file)
    return Lanes(checkpoint.spec, checkpoint.tensors, threads=1, workers=workers, small=small, cache_dir=None)


def test_a_small_model_gets_an_engine_for_runs_side_by_side_once_there_are_some(file: Path) -> None:
    model = lanes(file, workers=2, small=True)
    before = model.resident_bytes
    alone = model.run(TEXTS, alone=True)
    assert model.resident_bytes == before
    at_once = model.run(TEXTS, alone=False)  # the first engine does it while the second is built
    until = time.monotonic() + 30
    while model.resident_bytes == before and time.monotonic() < until:
        time.sleep(0.01)
    assert before < model.resident_bytes <= 2 * before
    for vectors in (at_once, model.run(TEXTS, alone=False)):
        np.testing.assert_allclose(vectors, alone, rtol=0, atol=1e-6)


@pytest.mark.parametrize(("workers", "small"), [(2, False), (1, True)])
def test_others_hold_their_weights_once(file: Path, workers: int, small: bool) -> None:
    model = lanes(file, workers=workers, small=small)
    before = model.resident_bytes
    np.testing.assert_allclose(model.run(TEXTS, alone=False), model.run(TEXTS, alone=True), rtol=0, atol=1e-6)
    time.sleep(0.5)
    assert model.resident_bytes == before
