"""Folders that sentence-transformers saves, with random weights, against the vectors that it gives for them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.models.test_architectures import cosine
from unitvec.checkpoint import huggingface
from unitvec.engine.onnx import Engine

pytestmark = [pytest.mark.reference, pytest.mark.filterwarnings("default")]

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *(f"w{number}" for number in range(60))]
COMMON = {"vocab_size": 64, "hidden_size": 32, "num_attention_heads": 4, "max_position_embeddings": 128}
DECODER = COMMON | {"num_hidden_layers": 7, "num_key_value_heads": 2, "head_dim": 16, "intermediate_size": 48}
ENCODER = COMMON | {"num_hidden_layers": 2, "intermediate_size": 64}


def transformer(kind: str) -> Any:
    import torch
    import transformers

    torch.manual_seed(1)
    match kind:
        case "bert":
            model = transformers.BertModel(transformers.BertConfig(**ENCODER))
        case "xlm-roberta":
            config = transformers.XLMRobertaConfig(**ENCODER, type_vocab_size=1, pad_token_id=1)
            model = transformers.XLMRobertaModel(config)
        case "gemma3":
            config = transformers.Gemma3TextConfig(
                **DECODER, sliding_window=6, use_bidirectional_attention=True, query_pre_attn_scalar=24
            )
            model = transformers.Gemma3TextModel(config)
        case _:
            model = transformers.Qwen3Model(transformers.Qwen3Config(**DECODER))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    return model


def tokenizer(side: str) -> Any:
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    words = Tokenizer(models.WordLevel({word: number for number, word in enumerate(WORDS)}, unk_token="[UNK]"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    words.post_processor = processors.TemplateProcessing(
        single=["[CLS]", "$A", "[SEP]"], special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    return PreTrainedTokenizerFast(tokenizer_object=words, pad_token="[PAD]", unk_token="[UNK]", padding_side=side)


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize(
    ("kind", "pooling", "shards"),
    [
        ("bert", "cls", "5GB"),
        ("bert", "mean", "40KB"),
        ("xlm-roberta", "cls", "5GB"),
        ("gemma3", "mean", "60KB"),
        ("qwen3", "lasttoken", "60KB"),
    ],
)
def test_same_vectors(kind: str, pooling: str, shards: str, dtype: str, tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    from sentence_transformers import SentenceTransformer
    from sentence_transformers import models as modules

    model = transformer(kind).to(getattr(torch, dtype))
    model.save_pretrained(tmp_path / "bare")
    tokenizer("left" if kind == "qwen3" else "right").save_pretrained(tmp_path / "bare")
    parts = [
        modules.Transformer(str(tmp_path / "bare"), model_args={"dtype": "float32"}),
        modules.Pooling(32, pooling),
    ]
    if kind == "gemma3":
        parts += [
            modules.Dense(32, 64, bias=False, activation_function=torch.nn.Identity()),
            modules.Dense(64, 24, bias=True, activation_function=torch.nn.Tanh()),
        ]
    whole = SentenceTransformer(modules=[*parts, modules.Normalize()], device="cpu")
    whole.save(str(tmp_path / "saved"))
    (tmp_path / "saved" / "model.safetensors").unlink()
    model.save_pretrained(tmp_path / "saved", max_shard_size=shards)  # in the wanted dtype, in pieces
    rng = np.random.default_rng(0)
    texts = [" ".join(rng.choice(WORDS[4:], count)) for count in (1, 5, 20, 40, 3)]
    want = whole.encode(texts)

    checkpoint = huggingface.read(tmp_path / "saved")
    engine = Engine(checkpoint.spec, checkpoint.tensors, threads=1)
    got = engine.run([checkpoint.tokenizer.encode(text).ids for text in texts])
    assert cosine(got, want).min() > 0.999999
