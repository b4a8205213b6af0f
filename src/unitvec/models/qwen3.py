"""Qwen3 (Qwen Team 2025), the decoder behind qwen3-embedding."""

from __future__ import annotations

from onnxscript import nn

from unitvec.models.config import Qwen3Config
from unitvec.models.layers import (
    Embedding,
    GatedMLP,
    Heads,
    Linear,
    NormedHeads,
    Op,
    PackedBatch,
    RMSNorm,
    Sight,
    Value,
    attend,
    rotary_angles,
)

Angles = tuple[Value, Value]


class SelfAttention(nn.Module):
    def __init__(self, config: Qwen3Config) -> None:
        super().__init__()
        self.heads = Heads(config.num_attention_heads, config.num_key_value_heads, config.head_dim)
        width, kv_width = self.heads.queries * config.head_dim, self.heads.keys * config.head_dim
        self.q_proj = Linear(config.hidden_size, width, bias=False)
        self.k_proj = Linear(config.hidden_size, kv_width, bias=False)
        self.v_proj = Linear(config.hidden_size, kv_width, bias=False)
        self.o_proj = Linear(width, config.hidden_size, bias=False)
        self.q_norm = NormedHeads(self.heads.queries, config.head_dim, config.rms_norm_eps)
        self.k_norm = NormedHeads(self.heads.keys, config.head_dim, config.rms_norm_eps)

    def forward(self, op: Op, batch: PackedBatch, x: Value, sight: Sight, angles: Angles) -> Value:
        q = self.q_norm(op, self.q_proj(op, x), angles)
        k = self.k_norm(op, self.k_proj(op, x), angles)
        seen = attend(op, batch, (q, k, self.v_proj(op, x)), self.heads, sight, self.heads.width**-0.5)
        return self.o_proj(op, seen)


class Layer(nn.Module):
    def __init__(self, config: Qwen3Config) -> None:
        super().__init__()
        self.self_attn = SelfAttention(config)
        self.mlp = GatedMLP(config.hidden_size, config.intermediate_size, config.hidden_act)
        self.input_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.post_attention_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)

    def forward(self, op: Op, batch: PackedBatch, x: Value, sight: Sight, angles: Angles) -> Value:
        x = op.Add(x, self.self_attn(op, batch, self.input_layernorm(op, x), sight, angles))
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
        sight = Sight(ahead=1) if self.config.causal else Sight()
        angles = rotary_angles(op, batch, self.config.head_dim, self.config.rope_theta)
        x = self.embed_tokens(op, batch.ids)
        for layer in self.layers:
            x = layer(op, batch, x, sight, angles)
        return self.norm(op, x)
