"""BERT (Devlin et al. 2018), the encoder of all-minilm, bge, mxbai, snowflake-arctic and others."""

from __future__ import annotations

from onnxscript import nn

from unitvec.models.config import BertConfig
from unitvec.models.layers import (
    Embedding,
    Heads,
    LayerNorm,
    Linear,
    Op,
    PackedBatch,
    Sight,
    Value,
    activate,
    attend,
)


class Embeddings(nn.Module):
    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        self.word_embeddings = Embedding(config.vocab_size, config.hidden_size, config.table)
        self.position_embeddings = Embedding(config.max_position_embeddings, config.hidden_size)
        self.token_type_embeddings = Embedding(config.type_vocab_size, config.hidden_size)
        self.LayerNorm = LayerNorm(config.hidden_size, config.layer_norm_eps)

    def forward(self, op: Op, batch: PackedBatch) -> Value:
        words = self.word_embeddings(op, batch.ids)
        places = self.position_embeddings(op, batch.positions)
        first_type = self.token_type_embeddings(op, [0])  # a text by itself is all of the first type
        return self.LayerNorm(op, op.Add(op.Add(words, first_type), places))


class SelfAttention(nn.Module):
    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        width = config.hidden_size // config.num_attention_heads
        self.heads = Heads(config.num_attention_heads, config.num_attention_heads, width)
        self.query = Linear(config.hidden_size, config.hidden_size)
        self.key = Linear(config.hidden_size, config.hidden_size)
        self.value = Linear(config.hidden_size, config.hidden_size)

    def forward(self, op: Op, batch: PackedBatch, x: Value) -> Value:
        qkv = self.query(op, x), self.key(op, x), self.value(op, x)
        return attend(op, batch, qkv, self.heads, Sight(), self.heads.width**-0.5)


class Residual(nn.Module):
    """BERT's ``output`` blocks: a linear layer, the block's input added, the sum normalized."""

    def __init__(self, inputs: int, config: BertConfig) -> None:
        super().__init__()
        self.dense = Linear(inputs, config.hidden_size)
        self.LayerNorm = LayerNorm(config.hidden_size, config.layer_norm_eps)

    def forward(self, op: Op, x: Value, skip: Value) -> Value:
        return self.LayerNorm(op, op.Add(self.dense(op, x), skip))


class Attention(nn.Module):
    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        self.self = SelfAttention(config)
        self.output = Residual(config.hidden_size, config)

    def forward(self, op: Op, batch: PackedBatch, x: Value) -> Value:
        return self.output(op, self.self(op, batch, x), x)


class Intermediate(nn.Module):
    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        self.activation = config.hidden_act
        self.dense = Linear(config.hidden_size, config.intermediate_size)

    def forward(self, op: Op, x: Value) -> Value:
        return activate(op, self.dense(op, x), self.activation)


class Layer(nn.Module):
    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        self.attention = Attention(config)
        self.intermediate = Intermediate(config)
        self.output = Residual(config.intermediate_size, config)

    def forward(self, op: Op, batch: PackedBatch, x: Value) -> Value:
        x = self.attention(op, batch, x)
        return self.output(op, self.intermediate(op, x), x)


class Encoder(nn.Module):
    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        self.layer = nn.ModuleList([Layer(config) for _ in range(config.num_hidden_layers)])

    def forward(self, op: Op, batch: PackedBatch, x: Value) -> Value:
        for layer in self.layer:
            x = layer(op, batch, x)
        return x


class Bert(nn.Module):
    """Packed tokens to their last hidden states: float32 [T, hidden_size]."""

    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        self.embeddings = Embeddings(config)
        self.encoder = Encoder(config)

    def forward(self, op: Op, batch: PackedBatch) -> Value:
        return self.encoder(op, batch, self.embeddings(op, batch))
