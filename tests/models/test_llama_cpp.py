"""Against llama.cpp (the package ``xllamacpp``) on the same file. The folder MODELS may hold more files to compare."""

from __future__ import annotations

import os
from pathlib import Path

import gguf as writer
import numpy as np
import pytest

from tests.models.test_architectures import cosine
from unitvec.checkpoint import gguf, gguf_file
from unitvec.checkpoint.ggml import dequantize
from unitvec.engine.onnx import Engine

pytestmark = pytest.mark.reference

FILES = Path(__file__).parents[3] / "shared" / "models"
MORE = Path(os.environ.get("MODELS", "models"))
TEXTS = ["Why is the sky blue?", "a", "Generate embeddings for this text", "def f(x): return x ** 2", "blue " * 60]


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
    similar = cosine(ours(path, TEXTS), llama_cpp(path, TEXTS))
    print(name, similar)
    assert similar.min() > 0.9999


@pytest.mark.parametrize("kind", ["F32", "BF16", "Q8_0", "Q4_0", "Q4_1", "Q5_0", "Q5_1"])
def test_formats(kind: str, tmp_path: Path) -> None:
    path = requantized(FILES / "all-minilm-f16.gguf", tmp_path / f"{kind}.gguf", kind)
    similar = cosine(ours(path, TEXTS), llama_cpp(path, TEXTS))
    print(kind, similar)
    # llama.cpp rounds activations to 8 bits before it multiplies them with quantized weights.
    assert similar.min() > (0.9999 if kind in ("F32", "BF16") else 0.999)


def requantized(source: Path, target: Path, kind: str) -> Path:
    """A copy of a file with its F16 matrices in another format."""
    form = writer.GGMLQuantizationType[kind]
    file = gguf_file.read(source)
    copy = writer.GGUFWriter(target, file.metadata["general.architecture"])
    for key, field in writer.GGUFReader(source).fields.items():
        if not key.startswith("GGUF.") and key != "general.architecture":
            sub_type = field.types[1] if len(field.types) > 1 else None
            copy.add_key_value(key, field.contents(), field.types[0], sub_type=sub_type)
    for name, tensor in file.tensors.items():
        numbers = dequantize(tensor.form, tensor.raw, tensor.shape)
        if tensor.form.name == "F16":
            copy.add_tensor(name, writer.quants.quantize(numbers, form), raw_dtype=form)
        else:
            copy.add_tensor(name, numbers)
    copy.write_header_to_file()
    copy.write_kv_data_to_file()
    copy.write_tensors_to_file()
    copy.close()
    return target


@pytest.mark.parametrize("path", sorted(MORE.glob("*.gguf")), ids=lambda path: path.name)
def test_other_files(path: Path) -> None:
    similar = cosine(ours(path, TEXTS), llama_cpp(path, TEXTS))
    print(path.name, similar)
    assert similar.min() > 0.99
