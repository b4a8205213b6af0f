"""Tokenizers trained here, taken apart into metadata as llama.cpp's converter does it, and rebuilt."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tokenizers import (
    AddedToken,
    Regex,
    Tokenizer,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)

from unitvec.tokenizer.gguf import build

CORPUS = [
    line for file in sorted((Path(__file__).parents[2] / "src").rglob("*.py")) for line in file.read_text().splitlines()
] + ["Der Himmel ist blau, weil Licht gestreut wird", "天空为什么是蓝色的", "Почему небо голубое", "한국어 하늘"] * 20
QWEN_WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def strings(count: int, special: list[str]) -> list[str]:
    """Lines of text and code, in pieces and mixed with spaces, special tokens, marks and any Unicode."""
    rng = random.Random(3)
    anything = [*range(0x20, 0xD800), *range(0xE000, 0x1FFFF)]
    parts: list[Callable[[], str]] = [
        lambda: rng.choice(CORPUS),
        lambda: rng.choice(CORPUS)[: rng.randrange(9)],
        lambda: rng.choice(special),
        lambda: rng.choice(" \n\t\r\x00\x7f\u00ad\u200d\u3000\ufeff") * rng.randrange(1, 5),
        lambda: chr(rng.choice(anything)),
        lambda: rng.choice(["e\u0301", "ﬁ", "👨‍👩‍👧", "İ", "½", "x" * 120, "1234567", "don't", "DON'T"]),
    ]  # fmt: skip
    return ["".join(rng.choice(parts)() for _ in range(rng.randrange(8))) for _ in range(count)]


def assert_equal(metadata: dict[str, Any], original: Tokenizer, special: list[str]) -> None:
    rebuilt = build({f"tokenizer.ggml.{key}": value for key, value in metadata.items()}, len(metadata["tokens"]))
    texts = strings(4000, special)
    for text, one, other in zip(texts, original.encode_batch(texts), rebuilt.encode_batch(texts), strict=True):
        assert one.ids == other.ids, repr(text)


def by_id(tokenizer: Tokenizer) -> list[str]:
    return [str(tokenizer.id_to_token(number)) for number in range(tokenizer.get_vocab_size())]


def wordpiece() -> tuple[Tokenizer, dict[str, Any]]:
    original = Tokenizer(models.WordPiece(unk_token="[UNK]", max_input_chars_per_word=100))
    original.normalizer = normalizers.BertNormalizer()
    original.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    original.train_from_iterator(CORPUS, trainers.WordPieceTrainer(vocab_size=900, special_tokens=special))
    original.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    tokens = by_id(original)
    marked = [
        token if number < 5 else token[2:] if token.startswith("##") else f"▁{token}"
        for number, token in enumerate(tokens)
    ]
    return original, {
        "model": "bert", "tokens": marked, "token_type": np.array([3] * 5 + [1] * (len(tokens) - 5)),
        "unknown_token_id": 1, "bos_token_id": 2, "seperator_token_id": 3, "padding_token_id": 0, "mask_token_id": 4,
    }  # fmt: skip


def byte_level(*, begin: bool = False) -> tuple[Tokenizer, dict[str, Any]]:
    original = Tokenizer(models.BPE())
    original.normalizer = normalizers.NFC()
    words = pre_tokenizers.Split(Regex(QWEN_WORDS), "isolated")
    bytes_ = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    original.pre_tokenizer = pre_tokenizers.Sequence([words, bytes_])
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    original.train_from_iterator(CORPUS, trainers.BpeTrainer(vocab_size=900, initial_alphabet=alphabet))
    size = original.get_vocab_size()
    original.add_special_tokens([AddedToken("<|endoftext|>", normalized=False)])
    original.add_tokens([AddedToken("<think>", normalized=False)])
    single = ["<|endoftext|>", "$A", "<|endoftext|>"] if begin else ["$A", "<|endoftext|>"]
    original.post_processor = processors.TemplateProcessing(single=single, special_tokens=[("<|endoftext|>", size)])
    merges = [" ".join(pair) for pair in json.loads(original.to_str())["model"]["merges"]]
    return original, {
        "model": "gpt2", "pre": "qwen2", "tokens": by_id(original), "token_type": np.array([1] * size + [3, 4]),
        "merges": merges, "eos_token_id": size, "bos_token_id": size, "add_eos_token": True, "add_bos_token": begin,
    }  # fmt: skip


def sentencepiece() -> tuple[Tokenizer, dict[str, Any]]:
    """As Gemma's: pieces are merged by score, bytes stand in for what is not known, runs of spaces are tokens."""
    trained = Tokenizer(models.BPE())
    trained.normalizer = normalizers.Replace(" ", "▁")
    trained.train_from_iterator(CORPUS, trainers.BpeTrainer(vocab_size=900, max_token_length=9))
    first = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>", "▁▁", "▁▁▁"]
    first += [f"<0x{byte:02X}>" for byte in range(256)]
    learned = [token for token in by_id(trained) if token not in first]
    tokens = first + learned
    ids = {token: number for number, token in enumerate(tokens)}
    ranks = {token: -float(number) for number, token in enumerate(tokens)} | dict.fromkeys(first, 0.0)
    # Every way to split a token into two others, the best scores and the longer parts first.
    merges = [(t[:n], t[n:]) for t in tokens for n in range(1, len(t)) if t[:n] in ids and t[n:] in ids]
    merges.sort(key=lambda pair: (ranks[pair[0] + pair[1]], len(pair[0]), len(pair[1])), reverse=True)
    original = Tokenizer(models.BPE(ids, merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    original.normalizer = normalizers.Replace(" ", "▁")
    original.add_special_tokens([AddedToken(token, normalized=False) for token in first[:4]])
    original.add_tokens([AddedToken(token, normalized=False) for token in first[4:7]])
    original.post_processor = processors.TemplateProcessing(
        single=["<bos>", "$A", "<eos>"], special_tokens=[("<bos>", 2), ("<eos>", 1)]
    )
    scores = [-1000.0 if number < 7 else ranks[token] for number, token in enumerate(tokens)]
    written = [token.replace("▁", " ") if 4 <= number < 7 else token for number, token in enumerate(tokens)]
    kinds = [3] * 4 + [4] * 3 + [6] * 256 + [1] * len(learned)
    return original, {
        "model": "llama", "tokens": written, "scores": np.array(scores, np.float32), "token_type": np.array(kinds),
        "unknown_token_id": 3, "bos_token_id": 2, "eos_token_id": 1, "add_bos_token": True, "add_eos_token": True,
        "add_space_prefix": False,
    }  # fmt: skip


def unigram() -> tuple[Tokenizer, dict[str, Any]]:
    original = Tokenizer(models.Unigram())
    split = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace()])
    original.pre_tokenizer = split
    special = ["<s>", "<pad>", "</s>", "<unk>"]
    trainer = trainers.UnigramTrainer(vocab_size=600, special_tokens=special, unk_token="<unk>")
    original.train_from_iterator(CORPUS[::5], trainer)
    original.post_processor = processors.TemplateProcessing(
        single=["<s>", "$A", "</s>"], special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    pieces = json.loads(original.to_str())["model"]["vocab"]
    return original, {
        "model": "t5", "tokens": [piece for piece, _ in pieces], "scores": np.array([score for _, score in pieces]),
        "token_type": np.array([3] * 4 + [1] * (len(pieces) - 4)), "unknown_token_id": 3, "bos_token_id": 0,
        "eos_token_id": 2, "add_bos_token": True, "add_eos_token": True,
    }  # fmt: skip


FAMILIES = {"bert": wordpiece, "gpt2": byte_level, "llama": sentencepiece, "t5": unigram}
SPECIAL = [
    "[SEP]",
    "[MASK]",
    "<|endoftext|>",
    "<think>",
    "<bos>",
    "<mask>",
    "<eos>",
    "▁▁",
    "</s>",
    "<0x0A>",
    "  ",
    "   ",
]


@pytest.mark.parametrize("family", FAMILIES)
def test_token_ids_are_those_of_the_original(family: str) -> None:
    original, metadata = FAMILIES[family]()
    assert_equal(metadata, original, SPECIAL)


def test_begin_and_end_tokens_come_as_the_metadata_says() -> None:
    original, metadata = byte_level(begin=True)
    assert_equal(metadata, original, SPECIAL)
    metadata |= {"add_bos_token": False, "add_eos_token": False}
    bare = build({f"tokenizer.ggml.{key}": value for key, value in metadata.items()}, len(metadata["tokens"]))
    assert bare.encode("a text").ids == original.encode("a text", add_special_tokens=False).ids


def rebuilt(metadata: dict[str, Any], **general: str) -> Tokenizer:
    named = {f"tokenizer.ggml.{key}": value for key, value in metadata.items()}
    return build(named | {f"general.{key}": value for key, value in general.items()}, len(metadata["tokens"]))


def test_wordpiece_has_begin_and_end_tokens_unless_the_metadata_says_otherwise() -> None:
    _, metadata = wordpiece()
    both = rebuilt(metadata).encode("the").ids
    assert (both[0], both[-1]) == (2, 3)
    assert rebuilt(metadata | {"add_bos_token": False}).encode("the").ids == both[1:]
    assert rebuilt(metadata | {"add_eos_token": False}).encode("the").ids == both[:-1]
    assert rebuilt(metadata | {"add_bos_token": True, "add_eos_token": True}).encode("the").ids == both


def test_gemma_has_no_space_prefix_where_the_metadata_does_not_say() -> None:
    original, metadata = sentencepiece()
    del metadata["add_space_prefix"]
    want = original.encode("the").ids
    assert rebuilt(metadata, architecture="gemma3").encode("the").ids == want
    assert rebuilt(metadata, architecture="llama").encode("the").ids != want


def test_the_work_of_a_vocabulary_is_bounded() -> None:
    _, metadata = sentencepiece()
    metadata["tokens"][-1] = "a" * 3_000_000  # every way to split it would take hours
    with pytest.raises(ValueError, match="a token of 3000000 characters"):
        rebuilt(metadata)


@pytest.mark.parametrize("family", ["llama", "t5"])
@pytest.mark.parametrize("wrong", [np.nan, np.inf, -np.inf])
def test_scores_that_are_not_finite_are_refused(family: str, wrong: float) -> None:
    _, metadata = FAMILIES[family]()
    metadata["scores"] = metadata["scores"].copy()
    metadata["scores"][20] = wrong
    with pytest.raises(ValueError, match="not finite"):
        rebuilt(metadata)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_damaged_vocabulary_is_refused(family: str) -> None:
    _, metadata = FAMILIES[family]()
    size = len(metadata["tokens"])
    for key in metadata:
        for wrong in (None, "text", -1, 10**9, [], ["a"], np.zeros(2), np.full(size, np.nan), [""] * size, True):
            try:
                build({f"tokenizer.ggml.{k}": wrong if k == key else v for k, v in metadata.items()}, size)
            except ValueError as error:
                assert "\n" not in str(error)
    with pytest.raises(ValueError, match="as many as there are embeddings"):
        build({f"tokenizer.ggml.{key}": value for key, value in metadata.items()}, size + 1)


def test_unknown_kinds_are_refused_by_name() -> None:
    with pytest.raises(ValueError, match="'rwkv' is not supported; supported: bert, gpt2, llama, t5"):
        build({"tokenizer.ggml.model": "rwkv", "tokenizer.ggml.tokens": ["a"]}, 1)
    with pytest.raises(ValueError, match="'llama-bpe' is not supported; supported: qwen2"):
        build({"tokenizer.ggml.model": "gpt2", "tokenizer.ggml.pre": "llama-bpe", "tokenizer.ggml.tokens": ["a"]}, 1)
