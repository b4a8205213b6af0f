"""Qwen3 (Qwen Team 2025), the decoder behind qwen3-embedding."""

from __future__ import annotations

from onnxscript import nn

from unitvec.models.config import Qwen3Config
from unitvec.models.layers import (
    Embedding,
    GatedMLP,
    Linear,
    NormedHeads,
    Op,
    PackedBatch,
    RMSNorm,
    Value,
    full_mask,
    pack,
    rotary_angles,
    spread,
)

Angles = tuple[Value, Value]


class SelfAttention(nn.Module):
    def __init__(self, config: Qwen3Config) -> None:
        super().__init__()
        self.heads, self.kv_heads = config.num_attention_heads, config.num_key_value_heads
        self.causal = config.causal
        self.width = self.heads * config.head_dim
        kv_width = self.kv_heads * config.head_dim
        self.q_proj = Linear(config.hidden_size, self.width, bias=False)
        self.k_proj = Linear(config.hidden_size, kv_width, bias=False)
        self.v_proj = Linear(config.hidden_size, kv_width, bias=False)
        self.o_proj = Linear(self.width, config.hidden_size, bias=False)
        self.q_norm = NormedHeads(self.heads, config.head_dim, config.rms_norm_eps)
        self.k_norm = NormedHeads(self.kv_heads, config.head_dim, config.rms_norm_eps)

    def forward(self, op: Op, batch: PackedBatch, x: Value, mask: Value, angles: Angles) -> Value:
        q = self.q_norm(op, self.q_proj(op, x), angles)
        k = self.k_norm(op, self.k_proj(op, x), angles)
        q, k, v = (spread(op, batch, y) for y in (q, k, self.v_proj(op, x)))
        heads = {"q_num_heads": self.heads, "kv_num_heads": self.kv_heads}
        seen = op.Attention(q, k, v, mask, is_causal=int(self.causal), **heads)
        return self.o_proj(op, pack(op, batch, seen, self.width))


class Layer(nn.Module):
    def __init__(self, config: Qwen3Config) -> None:
        super().__init__()
        self.self_attn = SelfAttention(config)
        self.mlp = GatedMLP(config.hidden_size, config.intermediate_size, config.hidden_act)
        self.input_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.post_attention_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)

    def forward(self, op: Op, batch: PackedBatch, x: Value, mask: Value, angles: Angles) -> Value:
        x = op.Add(x, self.self_attn(op, batch, self.input_layernorm(op, x), mask, angles))
        return op.Add(x, self.mlp(op, self.post_attention_layernorm(op, x)))


class Qwen3(nn.Module):
    """Packed tokens to their last hidden states: float32 [T, hidden_size]."""

    def __init__(self, config: Qwen3Config) -> None:
        super().__init__()
        self.config = config
        self.embed_tokens = Embedding(config.vocab_size, config.hidden_size, config.table)
        self.layers = nn.ModuleList([Layer(config) for _ in range(config.num_hidden_layers)])
        self.norm = RMSNorm(config.hidden_size, config.rms_norm_eps)

    def forward(self, op: Op, batch: PackedBatch) -> Value:
        # A token that sees only what stands before it never sees the padding behind its text.
        mask = None if self.config.causal else full_mask(op, batch)
        angles = rotary_angles(op, batch, self.config.head_dim, self.config.rope_theta)
        x = self.embed_tokens(op, batch.ids)
        for layer in self.layers:
            x = layer(op, batch, x, mask, angles)
        return self.norm(op, x)
