"""Against the vectors that sentence-transformers and the reference server gave for files of llama.cpp's converter."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from tests.models.test_architectures import cosine
from unitvec.checkpoint import gguf
from unitvec.engine.onnx import Engine

FILES = Path(__file__).parents[3] / "shared" / "models"


@pytest.mark.parametrize("name", ["qwen3-tiny", "embeddinggemma-tiny"])
def test_tokens_and_vectors(name: str) -> None:
    path = FILES / f"{name}.gguf"
    if not path.exists():
        pytest.skip(f"no {name}.gguf")
    recorded = json.loads(path.with_suffix(".json").read_text())
    checkpoint = gguf.read(path)
    ids = [encoding.ids for encoding in checkpoint.tokenizer.encode_batch(recorded["texts"])]
    assert ids == recorded["token_ids"]
    got = Engine(checkpoint.spec, checkpoint.tensors, threads=2).run(ids)
    assert cosine(got, np.array(recorded["sentence_transformers"])).min() > 0.99999
    server = cosine(got, np.array(recorded["ollama"]))
    agree = [len(text) == count for text, count in zip(ids, recorded["ollama_tokens"], strict=True)]
    assert sum(agree) >= 11
    assert server[agree].min() > 0.9999


def test_all_minilm() -> None:
    path = FILES / "all-minilm-f16.gguf"
    if not path.exists():
        pytest.skip("no all-minilm-f16.gguf")
    checkpoint = gguf.read(path)
    case = json.loads((Path(__file__).parents[1] / "golden" / "ollama.json").read_text())
    show = next(one["expect"]["json"] for one in case if one["name"] == "show")
    assert {key: checkpoint.model_info[key] for key in show["model_info"] if key in checkpoint.model_info} == {
        # Two converters wrote the two files: they name the tokenizer differently.
        key: value if key != "tokenizer.ggml.pre" else "jina-v2-en"
        for key, value in show["model_info"].items()
        if key in checkpoint.model_info
    }
    assert set(show["model_info"]) - set(checkpoint.model_info) == {"tokenizer.ggml.scores"}

    def by_name(tensor: dict[str, object]) -> str:
        return str(tensor["name"])

    assert sorted(checkpoint.tensor_list, key=by_name) == sorted(show["tensors"], key=by_name)
    assert (checkpoint.details.family, checkpoint.details.quantization_level) == ("bert", "F16")
    assert checkpoint.context_length == 512
    engine = Engine(checkpoint.spec, checkpoint.tensors, threads=2)
    alike, other = engine.run([checkpoint.tokenizer.encode(text).ids for text in ("the sky is blue", "tax law")])
    asked = engine.run([checkpoint.tokenizer.encode("what colour is the sky?").ids])[0]
    assert cosine(asked, alike) > 0.6 > 0.2 > cosine(asked, other)
