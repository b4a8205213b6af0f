"""Real vocabularies from GGUF files against the tokenizer.json files that they were made from.

The folder TOKENIZERS holds all-minilm.json, gemma3.json and qwen3.json (docs/models.md says where they come from).
"""

from __future__ import annotations

import json
import os
import random
from pathlib import Path

import pytest
from tokenizers import Tokenizer

from tests.tokenizer.test_gguf import strings
from unitvec.checkpoint import gguf_file
from unitvec.tokenizer.gguf import build

ORIGINALS = Path(os.environ.get("TOKENIZERS", "tokenizers"))
FILES = Path(__file__).parents[3] / "shared" / "models"
SPECIAL = [
    "<bos>", "<eos>", "<pad>", "<unk>", "<mask>", "[multimodal]", "<unused99>", "<start_of_turn>", "<|endoftext|>",
    "<|im_start|>", "<think>", "</think>", "<tool_call>", "[CLS]", "[SEP]", "[MASK]", "[PAD]", "[unused1]", "</s>",
    "<h1>", "</table>", "<0x0A>", "▁", "▁▁", "  ", "          ", "\n\n", "\t\t\t",
]  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize(
    ("file", "original"),
    [("all-minilm-f16", "all-minilm"), ("embeddinggemma-tiny", "gemma3"), ("qwen3-tiny", "qwen3")],
)
def test_100_000_strings(file: str, original: str) -> None:
    path = ORIGINALS / f"{original}.json"
    if not path.exists():
        pytest.skip(f"no {path}")
    whole = Tokenizer.from_file(str(path))
    whole.no_truncation()
    whole.no_padding()
    metadata = gguf_file.read(FILES / f"{file}.gguf").metadata
    rebuilt = build(metadata, len(metadata["tokenizer.ggml.tokens"]))
    rng = random.Random(1)
    vocabulary = list(json.loads(path.read_text())["model"]["vocab"])
    texts = strings(80_000, SPECIAL)
    texts += [" ".join(rng.choices(vocabulary, k=rng.randrange(6))) for _ in range(10_000)]
    texts += ["".join(rng.choices(vocabulary, k=rng.randrange(9))) for _ in range(10_000)]
    pairs = zip(
        texts,
        whole.encode_batch(texts, add_special_tokens=False),
        rebuilt.encode_batch(texts, add_special_tokens=False),
        strict=True,
    )
    assert [text for text, one, other in pairs if one.ids != other.ids] == []
