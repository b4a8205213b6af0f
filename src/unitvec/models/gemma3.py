"""Gemma 3 (Gemma Team 2025) as an encoder with bidirectional attention: embeddinggemma.

Norms multiply by their weight as it stands; who reads a checkpoint that stores ``weight - 1`` adds the one.
"""

from __future__ import annotations

from onnxscript import nn

from unitvec.models.config import Gemma3Config
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
    def __init__(self, config: Gemma3Config) -> None:
        super().__init__()
        self.heads = Heads(config.num_attention_heads, config.num_key_value_heads, config.head_dim)
        width, kv_width = self.heads.queries * config.head_dim, self.heads.keys * config.head_dim
        self.scale = config.query_pre_attn_scalar**-0.5
        self.q_proj = Linear(config.hidden_size, width, bias=False)
        self.k_proj = Linear(config.hidden_size, kv_width, bias=False)
        self.v_proj = Linear(config.hidden_size, kv_width, bias=False)
        self.o_proj = Linear(width, config.hidden_size, bias=False)
        self.q_norm = NormedHeads(self.heads.queries, config.head_dim, config.rms_norm_eps)
        self.k_norm = NormedHeads(self.heads.keys, config.head_dim, config.rms_norm_eps)

    def forward(self, op: Op, batch: PackedBatch, x: Value, sight: Sight, angles: Angles) -> Value:
        q = self.q_norm(op, self.q_proj(op, x), angles)
        k = self.k_norm(op, self.k_proj(op, x), angles)
        seen = attend(op, batch, (q, k, self.v_proj(op, x)), self.heads, sight, self.scale)
        return self.o_proj(op, seen)


class Layer(nn.Module):
    def __init__(self, config: Gemma3Config) -> None:
        super().__init__()
        self.self_attn = SelfAttention(config)
        self.mlp = GatedMLP(config.hidden_size, config.intermediate_size, config.hidden_act)
        self.input_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.post_attention_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.pre_feedforward_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.post_feedforward_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)

    def forward(self, op: Op, batch: PackedBatch, x: Value, sight: Sight, angles: Angles) -> Value:
        seen = self.self_attn(op, batch, self.input_layernorm(op, x), sight, angles)
        x = op.Add(x, self.post_attention_layernorm(op, seen))
        thought = self.mlp(op, self.pre_feedforward_layernorm(op, x))
        return op.Add(x, self.post_feedforward_layernorm(op, thought))


class Gemma3(nn.Module):
    """Packed tokens to their last hidden states: float32 [T, hidden_size]."""

    def __init__(self, config: Gemma3Config) -> None:
        super().__init__()
        self.config = config
        self.embed_tokens = Embedding(config.vocab_size, config.hidden_size, config.table)
        self.layers = nn.ModuleList([Layer(config) for _ in range(config.num_hidden_layers)])
        self.norm = RMSNorm(config.hidden_size, config.rms_norm_eps)

    def forward(self, op: Op, batch: PackedBatch) -> Value:
        config = self.config
        reach = config.sliding_window // 2 + 1
        everywhere = Sight(), rotary_angles(op, batch, config.head_dim, config.rope_theta)
        near = Sight(reach, reach), rotary_angles(op, batch, config.head_dim, config.rope_local_base_freq)
        x = op.Mul(self.embed_tokens(op, batch.ids), config.hidden_size**0.5)
        for layer, sliding in zip(self.layers, config.sliding_layers, strict=True):
            x = layer(op, batch, x, *(near if sliding else everywhere))
        return self.norm(op, x)
