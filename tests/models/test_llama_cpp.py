"""Against llama.cpp (the package ``xllamacpp``) on the same file. The folder MODELS may hold more files to compare."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from pathlib import Path

import gguf as writer
import numpy as np
import pytest

from tests.models import tiny
from tests.models.test_architectures import cosine
from unitvec.checkpoint import gguf, gguf_file
from unitvec.checkpoint.ggml import dequantize
from unitvec.engine.onnx import Engine

pytestmark = pytest.mark.reference

FILES = Path(__file__).parents[3] / "shared" / "models"
MORE = Path(os.environ.get("MODELS", "models"))
TEXTS = ["Why is the sky blue?", "a", "Generate embeddings for this text", "def f(x): return x ** 2", "blue " * 60]


GEMMA = partial(tiny.gemma3, outputs=tiny.WIDTH)  # llama.cpp aborts where the heads change the width


def llama_cpp(path: Path, texts: list[str]) -> np.ndarray:
    """Unit vectors, float64 [texts, width]."""
    xllamacpp = pytest.importorskip("xllamacpp")
    parameters = xllamacpp.CommonParams()
    parameters.model.path = str(path)
    parameters.embedding = True
    parameters.n_ctx, parameters.n_batch, parameters.n_ubatch, parameters.n_parallel = 512, 512, 512, 1
    parameters.cpuparams.n_threads = 2
    server = xllamacpp.Server(parameters)
    answer = server.handle_embeddings({"input": texts})
    return np.array([item["embedding"] for item in answer["data"]], np.float64)


def ours(path: Path, texts: list[str]) -> np.ndarray:
    checkpoint = gguf.read(path)
    engine = Engine(checkpoint.spec, checkpoint.tensors, threads=2)
    return engine.run([encoding.ids for encoding in checkpoint.tokenizer.encode_batch(texts)])


@pytest.mark.parametrize("name", ["all-minilm-f16", "qwen3-tiny", "embeddinggemma-tiny"])
def test_shared_files(name: str) -> None:
    path = FILES / f"{name}.gguf"
    if not path.exists():
        pytest.skip(f"no {path.name}")
    similar = cosine(ours(path, TEXTS), llama_cpp(path, TEXTS))
    print(name, similar)
    assert similar.min() > 0.9999


@pytest.mark.parametrize("kind", ["F32", "F16", "BF16"])
@pytest.mark.parametrize("make", [tiny.bert, partial(tiny.bert, pooling=2), tiny.qwen3, GEMMA])
def test_architectures(make: Callable[[], tiny.Tiny], kind: str, tmp_path: Path) -> None:
    path = make().write(tmp_path / "model.gguf", kind)
    texts = [text for text in tiny.TEXTS if text]
    similar = cosine(ours(path, texts), llama_cpp(path, texts))
    assert similar.min() > 0.9999


@pytest.mark.parametrize("kind", ["Q8_0", "Q4_0", "Q4_1", "Q5_0", "Q5_1"])
def test_on_quantized_files_the_distance_is_llama_cpp_s_rounding_of_activations(kind: str, tmp_path: Path) -> None:
    """It multiplies weights of few bits with activations of 8 bits; with the same weights written out it does not."""
    source = tiny.bert().write(tmp_path / "model.gguf", kind)
    texts = [text for text in tiny.TEXTS if text]
    if (FILES / "all-minilm-f16.gguf").exists():
        source, texts = requantized(FILES / "all-minilm-f16.gguf", tmp_path / f"{kind}.gguf", kind), TEXTS
    mine, theirs = ours(source, texts), llama_cpp(source, texts)
    exact = llama_cpp(requantized(source, tmp_path / "wide.gguf", "F32"), texts)
    print(kind, cosine(mine, theirs).min(), cosine(mine, exact).min(), cosine(theirs, exact).min())
    assert cosine(mine, exact).min() > 0.9999
    assert cosine(mine, theirs).min() > 0.999


def requantized(source: Path, target: Path, kind: str) -> Path:
    """A copy of a file with its matrices in another format."""
    form = writer.GGMLQuantizationType[kind]
    file = gguf_file.read(source)
    copy = writer.GGUFWriter(target, file.metadata["general.architecture"])
    for key, field in writer.GGUFReader(source).fields.items():
        if not key.startswith("GGUF.") and key != "general.architecture":
            sub_type = field.types[1] if len(field.types) > 1 else None
            copy.add_key_value(key, field.contents(), field.types[0], sub_type=sub_type)
    for name, tensor in file.tensors.items():
        numbers = dequantize(tensor.form, tensor.raw, tensor.shape)
        if tensor.form.name != "F32":
            copy.add_tensor(name, writer.quants.quantize(numbers, form), raw_dtype=form)
        else:
            copy.add_tensor(name, numbers)
    copy.write_header_to_file()
    copy.write_kv_data_to_file()
    copy.write_tensors_to_file()
    copy.close()
    return target


@pytest.mark.parametrize("path", sorted(MORE.glob("*.gguf")), ids=lambda path: path.name)
def test_other_files(path: Path, tmp_path: Path) -> None:
    mine, theirs = ours(path, TEXTS), llama_cpp(path, TEXTS)
    exact = llama_cpp(requantized(path, tmp_path / "wide.gguf", "F32"), TEXTS)
    print(path.name, cosine(mine, theirs).min(), cosine(mine, exact).min(), cosine(theirs, exact).min())
    assert cosine(mine, exact).min() > 0.9999
