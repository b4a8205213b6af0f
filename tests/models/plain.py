"""The architectures once more, text by text in float64 numpy and in the words of their papers."""

from __future__ import annotations

import math

import numpy as np

from tests.models.tiny import HEAD, HEADS, KV_HEADS, LAYERS, WIDTH, Tiny

_erf = np.vectorize(math.erf)


class Weights:
    """A layer's weights, as float64."""

    def __init__(self, model: Tiny, prefix: str) -> None:
        self.model, self.prefix = model, prefix

    def __call__(self, name: str) -> np.ndarray:
        return self.model.weights[self.prefix + name].astype(np.float64)

    def linear(self, name: str, x: np.ndarray) -> np.ndarray:
        bias = self.prefix + f"{name}.bias"
        return x @ self(f"{name}.weight").T + (self(f"{name}.bias") if bias in self.model.weights else 0)

    def layer_norm(self, name: str, x: np.ndarray) -> np.ndarray:
        centred = x - x.mean(-1, keepdims=True)
        return centred / np.sqrt(x.var(-1, keepdims=True) + 1e-12) * self(f"{name}.weight") + self(f"{name}.bias")

    def rms_norm(self, name: str, x: np.ndarray) -> np.ndarray:
        return x / np.sqrt((x**2).mean(-1, keepdims=True) + 1e-6) * self(f"{name}.weight")


def _attention(q: np.ndarray, k: np.ndarray, v: np.ndarray, seen: np.ndarray) -> np.ndarray:
    """[S, heads, width] each, ``seen`` bool [S, S]."""
    out = np.empty_like(q)
    for head in range(q.shape[1]):
        of = head // (q.shape[1] // k.shape[1])
        scores = np.where(seen, q[:, head] @ k[:, of].T / math.sqrt(q.shape[2]), -np.inf)
        weights = np.exp(scores - scores.max(-1, keepdims=True))
        out[:, head] = weights / weights.sum(-1, keepdims=True) @ v[:, of]
    return out.reshape(len(q), -1)


def _rotate(x: np.ndarray, base: float) -> np.ndarray:
    half = x.shape[2] // 2
    angles = np.arange(len(x))[:, None] * base ** (-np.arange(half) / half)
    cos, sin = np.cos(angles)[:, None], np.sin(angles)[:, None]
    return np.concatenate([x[..., :half] * cos - x[..., half:] * sin, x[..., half:] * cos + x[..., :half] * sin], -1)


def _gelu(x: np.ndarray) -> np.ndarray:
    return x * 0.5 * (1 + _erf(x / math.sqrt(2)))


def _gelu_tanh(x: np.ndarray) -> np.ndarray:
    return 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))


def bert(model: Tiny, ids: list[int]) -> np.ndarray:
    top = Weights(model, "")
    x = top("token_embd.weight")[ids] + top("position_embd.weight")[: len(ids)] + top("token_types.weight")[0]
    x = top.layer_norm("token_embd_norm", x)
    everything = np.ones((len(ids), len(ids)), bool)
    for layer in range(LAYERS):
        w = Weights(model, f"blk.{layer}.")
        q, k, v = (
            w.linear(name, x).reshape(len(ids), HEADS, WIDTH // HEADS) for name in ("attn_q", "attn_k", "attn_v")
        )
        x = w.layer_norm("attn_output_norm", x + w.linear("attn_output", _attention(q, k, v, everything)))
        x = w.layer_norm("layer_output_norm", x + w.linear("ffn_down", _gelu(w.linear("ffn_up", x))))
    return x[0] if model.metadata["pooling_type"] == 2 else x.mean(0)


def _heads(w: Weights, x: np.ndarray, base: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    q = w.rms_norm("attn_q_norm", w.linear("attn_q", x).reshape(len(x), HEADS, HEAD))
    k = w.rms_norm("attn_k_norm", w.linear("attn_k", x).reshape(len(x), KV_HEADS, HEAD))
    return _rotate(q, base), _rotate(k, base), w.linear("attn_v", x).reshape(len(x), KV_HEADS, HEAD)


def qwen3(model: Tiny, ids: list[int]) -> np.ndarray:
    top = Weights(model, "")
    x = top("token_embd.weight")[ids]
    before = np.tri(len(ids), dtype=bool)
    for layer in range(LAYERS):
        w = Weights(model, f"blk.{layer}.")
        q, k, v = _heads(w, w.rms_norm("attn_norm", x), 50_000.0)
        x = x + w.linear("attn_output", _attention(q, k, v, before))
        y = w.rms_norm("ffn_norm", x)
        gate = w.linear("ffn_gate", y)
        x = x + w.linear("ffn_down", gate / (1 + np.exp(-gate)) * w.linear("ffn_up", y))
    return top.rms_norm("output_norm", x)[-1]


def gemma3(model: Tiny, ids: list[int]) -> np.ndarray:
    top = Weights(model, "")
    x = top("token_embd.weight")[ids] * math.sqrt(WIDTH)
    apart = np.abs(np.arange(len(ids))[:, None] - np.arange(len(ids)))
    for layer in range(7):
        w = Weights(model, f"blk.{layer}.")
        whole = layer == 5
        q, k, v = _heads(w, w.rms_norm("attn_norm", x), 50_000.0 if whole else 10_000.0)
        seen = w.linear("attn_output", _attention(q, k, v, apart < (10**9 if whole else 4)))
        x = x + w.rms_norm("post_attention_norm", seen)
        y = w.rms_norm("ffn_norm", x)
        y = w.linear("ffn_down", _gelu_tanh(w.linear("ffn_gate", y)) * w.linear("ffn_up", y))
        x = x + w.rms_norm("post_ffw_norm", y)
    x = top.rms_norm("output_norm", x).mean(0)
    for name in ("dense_2", "dense_3") if model.architecture == "gemma-embedding" else ("dense.0", "dense.1"):
        x = top.linear(name, x)
    return x
