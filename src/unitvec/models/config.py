"""The numbers that make a model, apart from the modules so that reading them does not import the graph builder."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

PoolingMode = Literal["mean", "cls", "last"]
Activation = Literal["identity", "tanh", "gelu", "gelu_tanh", "silu", "relu"]


@dataclass(frozen=True)
class BertConfig:
    """BERT; names as in Hugging Face's ``config.json``."""

    vocab_size: int
    hidden_size: int
    num_hidden_layers: int
    num_attention_heads: int
    intermediate_size: int
    max_position_embeddings: int
    type_vocab_size: int = 2
    layer_norm_eps: float = 1e-12
    hidden_act: Activation = "gelu"


TransformerConfig = BertConfig


@dataclass(frozen=True)
class DenseConfig:
    """One of sentence-transformers' Dense heads."""

    in_features: int
    out_features: int
    bias: bool
    activation: Activation


@dataclass(frozen=True)
class ModelSpec:
    """What a graph is built from: a transformer, how its states become one vector, and heads behind that."""

    transformer: TransformerConfig
    pooling: PoolingMode
    dense: tuple[DenseConfig, ...] = ()

    @property
    def embedding_length(self) -> int:
        """The width of the vectors that come out."""
        return self.dense[-1].out_features if self.dense else self.transformer.hidden_size
