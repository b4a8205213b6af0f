from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.models import plain, tiny
from unitvec.checkpoint import gguf
from unitvec.engine import memory
from unitvec.engine.onnx import Engine

MODELS = {
    "bert, mean": (tiny.bert, plain.bert),
    "bert, cls": (lambda: tiny.bert(pooling=2), plain.bert),
    "qwen3": (tiny.qwen3, plain.qwen3),
    "gemma-embedding": (tiny.gemma3, plain.gemma3),
    "gemma3": (lambda: tiny.gemma3(architecture="gemma3"), plain.gemma3),
}


def cosine(got: np.ndarray, want: np.ndarray) -> np.ndarray:
    return (got * want).sum(-1) / np.linalg.norm(got, axis=-1) / np.linalg.norm(want, axis=-1)


def vectors(path: Path) -> tuple[Engine, list[list[int]], np.ndarray]:
    checkpoint = gguf.read(path)
    engine = Engine(checkpoint.spec, checkpoint.tensors, threads=1)
    ids = [encoding.ids for encoding in checkpoint.tokenizer.encode_batch(tiny.TEXTS)]
    return engine, ids, engine.run(ids)


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("kind", ["F32", "F16", "BF16", "Q8_0", "Q4_0", "Q4_1", "Q5_0", "Q5_1"])
def test_agrees_with_the_architecture_written_out(tmp_path: Path, name: str, kind: str) -> None:
    make, reference = MODELS[name]
    model = make()
    _, ids, got = vectors(model.write(tmp_path / "model.gguf", kind))
    want = np.stack([reference(model.rounded(kind), text) for text in ids])
    assert got.dtype == np.float32
    # The table of a format without a form of its own in memory is kept as float16.
    np.testing.assert_allclose(got, want, atol=5e-5 if kind in ("F32", "F16", "BF16", "Q8_0") else 1e-2)


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize(("kind", "least"), [("F16", 0.9999), ("BF16", 0.9999), ("Q8_0", 0.999)])
def test_small_formats_stay_near_the_weights_they_came_from(tmp_path: Path, name: str, kind: str, least: float) -> None:
    make, reference = MODELS[name]
    model = make()
    _, ids, got = vectors(model.write(tmp_path / "model.gguf", kind))
    assert cosine(got, np.stack([reference(model, text) for text in ids])).min() > least


@pytest.mark.parametrize("name", MODELS)
def test_a_vector_does_not_depend_on_its_neighbours(tmp_path: Path, name: str) -> None:
    engine, ids, together = vectors(MODELS[name][0]().write(tmp_path / "model.gguf"))
    alone = np.concatenate([engine.run([text]) for text in ids])
    np.testing.assert_allclose(together, alone, atol=1e-6 * np.abs(alone).max())


@pytest.mark.parametrize("name", MODELS)
def test_attention_in_blocks_gives_the_same(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    engine, _, _ = vectors(MODELS[name][0]().write(tmp_path / "model.gguf"))
    rng = np.random.default_rng(0)
    texts = [rng.integers(4, 90, length).tolist() for length in (45, 3, 33)]
    whole = engine.run(texts)
    monkeypatch.setattr(memory, "SCORES", 0)
    assert memory.block_size(engine.spec, 3, 45) < 20
    np.testing.assert_allclose(engine.run(texts), whole, atol=2e-6 * np.abs(whole).max())


def test_the_two_forms_of_gemma_files_are_the_same_model(tmp_path: Path) -> None:
    _, _, one = vectors(tiny.gemma3().write(tmp_path / "one.gguf"))
    _, _, other = vectors(tiny.gemma3(architecture="gemma3").write(tmp_path / "other.gguf"))
    assert np.array_equal(one, other)
