"""Models in 8 bits against themselves in float32."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.models import tiny
from tests.models.test_architectures import cosine
from unitvec.checkpoint import gguf
from unitvec.checkpoint.checkpoint import Checkpoint, Tensors
from unitvec.engine import memory, stages
from unitvec.engine.onnx import Engine
from unitvec.engine.quantize import quantized
from unitvec.models.config import LAST, Blocks, Plan, Rows
from unitvec.models.plans import PLANS

MAKE = {"bert": tiny.bert, "qwen3": tiny.qwen3, "gemma3": tiny.gemma3}
FORMS = {
    "rows": Rows(),
    "no outliers": Rows(exact=0, smooth=0),
    "off centre": Rows(zero=24),
    "parts": Rows(size=32),
    "blocks": Blocks(),
}


def engine(checkpoint: Checkpoint, plan: Plan, **options: Path) -> Engine:
    return Engine(replace(checkpoint.spec, plan=plan), checkpoint.tensors, threads=1, **options)


def planned(checkpoint: Checkpoint) -> Plan:
    return PLANS[type(checkpoint.spec.transformer)]


def texts(count: int) -> list[list[int]]:
    rng = np.random.default_rng(0)
    return [rng.integers(4, 90, rng.integers(2, 45)).tolist() for _ in range(count)]


@pytest.mark.parametrize("kind", ["F32", "F16", "BF16", "Q8_0", "Q4_0"])
@pytest.mark.parametrize("name", MAKE)
def test_near_float32(tmp_path: Path, name: str, kind: str) -> None:
    checkpoint = gguf.read(MAKE[name]().write(tmp_path / "model.gguf", kind))
    small = engine(checkpoint, planned(checkpoint))
    exact = engine(checkpoint, ())
    cosines = cosine(small.run(texts(100)), exact.run(texts(100)))
    assert cosines.mean() > 0.999
    assert cosines.min() > 0.995  # of 64 random numbers: those of a real model average out better
    assert cosines.min() < 0.9999999  # it is not float32 by another name
    assert small.resident_bytes < 0.75 * exact.resident_bytes


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", MAKE)
def test_every_form_of_a_layer(tmp_path: Path, name: str, form: str) -> None:
    checkpoint = gguf.read(MAKE[name]().write(tmp_path / "model.gguf"))
    plan = tuple((layer, FORMS[form]) for layer, _ in planned(checkpoint))
    cosines = cosine(engine(checkpoint, plan).run(texts(50)), engine(checkpoint, ()).run(texts(50)))
    assert 0.97 < cosines.min() < 0.9999999  # a form may suit other layers better


@pytest.mark.parametrize("name", MAKE)
def test_a_vector_does_not_depend_on_its_neighbours(tmp_path: Path, name: str) -> None:
    checkpoint = gguf.read(MAKE[name]().write(tmp_path / "model.gguf"))
    small = engine(checkpoint, planned(checkpoint))
    sample = texts(60)
    alone = np.concatenate([small.run([text]) for text in sample])
    order = np.random.default_rng(1).permutation(len(sample))
    mixed = np.empty_like(alone)
    for start in range(0, len(sample), 7):
        mixed[order[start : start + 7]] = small.run([sample[index] for index in order[start : start + 7]])
    length = np.linalg.norm(alone, axis=1, keepdims=True)
    assert np.abs(mixed / length - alone / length).max() <= 1e-6


@pytest.mark.parametrize("name", MAKE)
def test_nor_on_how_attention_is_divided(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoint = gguf.read(MAKE[name]().write(tmp_path / "model.gguf"))
    small, sample = engine(checkpoint, planned(checkpoint)), texts(30)
    alone = np.concatenate([small.run([text]) for text in sample])
    monkeypatch.setattr(memory, "SCORES", 4 * tiny.HEADS * len(sample) * 48 * 20)  # 20 places of 48 at once
    assert memory.block_size(checkpoint.spec, len(sample), 48) < 48
    length = np.linalg.norm(alone, axis=1, keepdims=True)
    assert np.abs(small.run(sample) / length - alone / length).max() <= 1e-6


@pytest.mark.parametrize("name", ["bert", "qwen3", "gemma3"])
@pytest.mark.parametrize("damage", ["zero", "not finite"])
def test_weights_that_tell_of_no_outliers(tmp_path: Path, name: str, damage: str) -> None:
    """Values that are all zero, or a word nobody uses whose numbers are none: no reason for texts to suffer."""
    model = MAKE[name]()
    if damage == "zero":
        for matrix in (weight for key, weight in model.weights.items() if key.endswith("attn_v.weight")):
            matrix[:] = 0
    else:
        model.weights["token_embd.weight"][90:] = np.nan
    checkpoint = gguf.read(model.write(tmp_path / "model.gguf"))
    cosines = cosine(engine(checkpoint, planned(checkpoint)).run(texts(50)), engine(checkpoint, ()).run(texts(50)))
    assert cosines.min() > 0.99


def test_a_model_with_few_places_and_odd_sizes(tmp_path: Path) -> None:
    model = tiny.bert()
    model.weights["position_embd.weight"] = model.weights["position_embd.weight"][:9]
    model.metadata["context_length"] = 9
    checkpoint = gguf.read(model.write(tmp_path / "model.gguf"))
    sample = [text[:9] for text in texts(20)]
    assert cosine(engine(checkpoint, planned(checkpoint)).run(sample), engine(checkpoint, ()).run(sample)).min() > 0.99


def test_a_layer_that_does_not_divide_into_blocks_stays_in_float32(tmp_path: Path) -> None:
    checkpoint = gguf.read(tiny.qwen3().write(tmp_path / "model.gguf"))
    plan = (("mlp.down_proj", Blocks(size=64)),)  # of 96 inputs
    same = np.array_equal(engine(checkpoint, plan).run(texts(5)[:1]), engine(checkpoint, ()).run(texts(5)[:1]))
    assert same


@pytest.mark.parametrize("name", ["qwen3", "gemma3"])
def test_blocks_of_q8_0_are_taken_as_they_are(tmp_path: Path, name: str) -> None:
    """The file's own numbers and scales, without a way over float32."""
    checkpoint = gguf.read(MAKE[name]().write(tmp_path / "model.gguf", "Q8_0"))
    assert isinstance(checkpoint.tensors, Tensors)
    layer = "layers.0.mlp.down_proj"
    wanted = [f"{layer}.weight", f"{layer}.scale"]
    made = quantized(checkpoint.tensors, replace(checkpoint.spec, plan=planned(checkpoint)), wanted, {})
    numbers, scales = checkpoint.tensors.q8[f"{layer}.weight"]()
    weight = made[f"{layer}.weight"].astype(np.int16) - 128
    assert np.array_equal(weight.reshape(numbers.shape), numbers)
    assert np.array_equal(made[f"{layer}.scale"], scales.astype(np.float32).reshape(len(numbers), -1))


def test_columns_that_outgrow_the_others_stay_exact(tmp_path: Path) -> None:
    """As in real models: three columns forty times as large as the rest, read with weights as much smaller."""
    model = tiny.bert()
    outgrown = [3, 17, 40]
    for layer in range(tiny.LAYERS):
        model.weights[f"blk.{layer}.attn_output_norm.weight"][outgrown] *= 40
        model.weights[f"blk.{layer}.ffn_up.weight"][:, outgrown] /= 40
        model.weights[f"blk.{layer}.layer_output_norm.weight"][outgrown] /= 40
    checkpoint = gguf.read(model.write(tmp_path / "model.gguf"))
    exact = engine(checkpoint, ()).run(texts(50))

    def loss(columns: int) -> float:
        plan = (("intermediate.dense", Rows(exact=columns, smooth=0)),)
        return 1 - float(cosine(engine(checkpoint, plan).run(texts(50)), exact).mean())

    assert loss(3) < loss(0) / 10


@pytest.mark.parametrize("name", MAKE)
def test_in_stages_and_kept(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoint = gguf.read(MAKE[name]().write(tmp_path / "model.gguf"))
    whole = engine(checkpoint, planned(checkpoint)).run(texts(10))
    monkeypatch.setattr(stages, "_SMALLEST", 0)
    monkeypatch.setattr(stages, "_WHOLE", 0)
    for _ in range(2):  # built, then read
        parts = engine(checkpoint, planned(checkpoint), cache_dir=tmp_path)
        assert len(parts._stages) >= 3
        assert cosine(parts.run(texts(10)), whole).min() > 0.99999


def test_a_layer_of_odd_width_is_quantized_row_by_row() -> None:
    assert Rows(size=256).groups(1536) == 6
    assert Rows(size=256).groups(100) == 1


def test_the_plans_name_layers_that_there_are(tmp_path: Path) -> None:
    made: list[Callable[[], tiny.Tiny]] = list(MAKE.values())
    for make in made:
        checkpoint = gguf.read(make().write(tmp_path / "model.gguf"))
        names = {f".{name.removeprefix(LAST)}.weight" for name, _ in planned(checkpoint)}
        assert all(any(key.endswith(name) for key in checkpoint.tensors) for name in names)
