"""Models of a few thousand random weights, written as GGUF files the way llama.cpp's converter writes them."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import gguf
import numpy as np

WIDTH, INNER, LAYERS, HEADS, KV_HEADS, HEAD = 64, 96, 3, 4, 2, 16
WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *"abcdefghijklmnopqrst", *(f"w{number}" for number in range(76))]
TEXTS = ["a", "b c d", "w1 w2 w3 w4 w5 w6 w7 w8 w9 w10 w11 w12 w13 w14 w15 w16 w17 w18 w19 w20", "", "q q q q zzz q"]


@dataclass
class Tiny:
    """What goes into a file: metadata of the architecture and float32 weights, by GGUF's names."""

    architecture: str
    metadata: dict[str, Any]
    weights: dict[str, np.ndarray] = field(default_factory=dict)

    def _is_kept(self, name: str, kind: str) -> bool:
        return self.weights[name].ndim < 2 or kind == "F32" or name.startswith(("position", "token_types"))

    def rounded(self, kind: str) -> Tiny:
        """The same with the weights that a file in the format ``kind`` holds."""
        form = gguf.GGMLQuantizationType[kind]
        weights = {
            name: weight
            if self._is_kept(name, kind)
            else gguf.quants.dequantize(gguf.quants.quantize(weight, form), form)
            for name, weight in self.weights.items()
        }
        return Tiny(self.architecture, self.metadata, weights)

    def write(self, path: Path, kind: str = "F32") -> Path:
        """Matrices in the format ``kind``, vectors and small tables in F32."""
        writer = gguf.GGUFWriter(path, self.architecture)
        for key, value in self.metadata.items():
            full = f"{self.architecture}.{key}"
            if isinstance(value, bool):
                writer.add_bool(full, value)
            elif isinstance(value, float):
                writer.add_float32(full, value)
            elif isinstance(value, str):
                writer.add_string(full, value)
            elif isinstance(value, list):
                writer.add_array(full, value)
            else:
                writer.add_uint32(full, value)
        writer.add_tokenizer_model("bert")
        special = [word if word.startswith("[") else f"▁{word}" for word in WORDS]
        writer.add_token_list(special)
        writer.add_token_types([3 if word.startswith("[") else 1 for word in WORDS])
        writer.add_uint32("tokenizer.ggml.unknown_token_id", 1)
        writer.add_uint32("tokenizer.ggml.bos_token_id", 2)
        writer.add_uint32("tokenizer.ggml.eos_token_id", 3)
        writer.add_uint32("tokenizer.ggml.seperator_token_id", 3)
        writer.add_uint32("tokenizer.ggml.token_type_count", 2)
        form = gguf.GGMLQuantizationType[kind]
        for name, weight in self.weights.items():
            if self._is_kept(name, kind):
                writer.add_tensor(name, weight)
            else:
                writer.add_tensor(name, gguf.quants.quantize(weight, form), raw_dtype=form)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        return path


def _matrix(rng: np.random.Generator, rows: int, columns: int) -> np.ndarray:
    return (rng.standard_normal((rows, columns)) / np.sqrt(columns)).astype(np.float32)


def _norm(rng: np.random.Generator, width: int) -> np.ndarray:
    return (1 + rng.standard_normal(width) / 5).astype(np.float32)


def bert(seed: int = 0, pooling: int = 1) -> Tiny:
    rng = np.random.default_rng(seed)
    metadata = {
        "block_count": LAYERS, "context_length": 48, "embedding_length": WIDTH, "feed_forward_length": INNER,
        "attention.head_count": HEADS, "attention.layer_norm_epsilon": 1e-12, "attention.causal": False,
        "pooling_type": pooling,
    }  # fmt: skip
    model = Tiny("bert", metadata)
    weights = model.weights
    weights["token_embd.weight"] = _matrix(rng, len(WORDS), WIDTH) * 4
    weights["position_embd.weight"] = _matrix(rng, 48, WIDTH)
    weights["token_types.weight"] = _matrix(rng, 2, WIDTH)
    shapes = {"attn_q": (WIDTH, WIDTH), "attn_k": (WIDTH, WIDTH), "attn_v": (WIDTH, WIDTH),
              "attn_output": (WIDTH, WIDTH), "ffn_up": (INNER, WIDTH), "ffn_down": (WIDTH, INNER)}  # fmt: skip
    norms = ["token_embd_norm"]
    for layer in range(LAYERS):
        for name, (rows, columns) in shapes.items():
            weights[f"blk.{layer}.{name}.weight"] = _matrix(rng, rows, columns)
            weights[f"blk.{layer}.{name}.bias"] = _matrix(rng, 1, rows)[0]
        norms += [f"blk.{layer}.attn_output_norm", f"blk.{layer}.layer_output_norm"]
    for name in norms:
        weights[f"{name}.weight"] = _norm(rng, WIDTH)
        weights[f"{name}.bias"] = _matrix(rng, 1, WIDTH)[0]
    return model


def _decoder(model: Tiny, rng: np.random.Generator, norms: tuple[str, ...]) -> Tiny:
    shapes = {"attn_q": (HEADS * HEAD, WIDTH), "attn_k": (KV_HEADS * HEAD, WIDTH), "attn_v": (KV_HEADS * HEAD, WIDTH),
              "attn_output": (WIDTH, HEADS * HEAD), "ffn_up": (INNER, WIDTH), "ffn_gate": (INNER, WIDTH),
              "ffn_down": (WIDTH, INNER)}  # fmt: skip
    model.weights["token_embd.weight"] = _matrix(rng, len(WORDS), WIDTH)
    model.weights["output_norm.weight"] = _norm(rng, WIDTH)
    for layer in range(model.metadata["block_count"]):
        for name, (rows, columns) in shapes.items():
            model.weights[f"blk.{layer}.{name}.weight"] = _matrix(rng, rows, columns)
        for name in norms:
            model.weights[f"blk.{layer}.{name}.weight"] = _norm(rng, WIDTH)
        for name in ("attn_q_norm", "attn_k_norm"):
            model.weights[f"blk.{layer}.{name}.weight"] = _norm(rng, HEAD)
    return model


_DECODER_METADATA = {
    "context_length": 256, "embedding_length": WIDTH, "feed_forward_length": INNER, "attention.head_count": HEADS,
    "attention.head_count_kv": KV_HEADS, "attention.key_length": HEAD, "attention.value_length": HEAD,
    "attention.layer_norm_rms_epsilon": 1e-6, "rope.freq_base": 50_000.0,
}  # fmt: skip


def qwen3(seed: int = 0) -> Tiny:
    model = Tiny("qwen3", {"block_count": LAYERS, "pooling_type": 3, **_DECODER_METADATA})
    return _decoder(model, np.random.default_rng(seed), ("attn_norm", "ffn_norm"))


def gemma3(seed: int = 0, architecture: str = "gemma-embedding", outputs: int = 32) -> Tiny:
    rng = np.random.default_rng(seed)
    dense = {"gemma-embedding": ("dense_2", "dense_3"), "gemma3": ("dense.0", "dense.1")}[architecture]
    metadata = {"block_count": 7, "pooling_type": 1, "attention.sliding_window": 6, **_DECODER_METADATA}
    metadata |= {"dense_2_feat_in": WIDTH, "dense_2_feat_out": 128, "dense_3_feat_in": 128, "dense_3_feat_out": outputs}
    model = Tiny(architecture, metadata)
    norms = ("attn_norm", "ffn_norm", "post_attention_norm", "post_ffw_norm")
    _decoder(model, rng, norms)
    model.weights[f"{dense[0]}.weight"] = _matrix(rng, 128, WIDTH)
    model.weights[f"{dense[1]}.weight"] = _matrix(rng, outputs, 128)
    return model
