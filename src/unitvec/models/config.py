"""The numbers that make a model, apart from the modules so that reading them does not import the graph builder."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, cast, get_args

from unitvec.errors import InvalidRequest

PoolingMode = Literal["mean", "cls", "last"]
Activation = Literal["identity", "tanh", "gelu", "gelu_tanh", "silu", "relu"]
# How the table of token embeddings is kept: as in the file where that is small. int8 has a float16 scale for each
# Q8_BLOCK numbers of a row.
TableType = Literal["float32", "float16", "bfloat16", "int8"]
Q8_BLOCK = 32
VECTOR = 16  # places: sums over whole vectors of the processor have one order, to the last bit


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
    table: TableType = "float32"


@dataclass(frozen=True)
class Gemma3Config:
    """Gemma 3 as an encoder; names as in Hugging Face's ``config.json``, and which layers see only a window.

    ``sliding_window`` is the window's whole width as in ``config.json``: half of it lies on either side.
    """

    vocab_size: int
    hidden_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    head_dim: int
    intermediate_size: int
    sliding_window: int
    sliding_layers: tuple[bool, ...]
    query_pre_attn_scalar: float
    rms_norm_eps: float = 1e-6
    rope_theta: float = 1_000_000.0
    rope_local_base_freq: float = 10_000.0
    hidden_act: Activation = "gelu_tanh"
    table: TableType = "float32"


@dataclass(frozen=True)
class Qwen3Config:
    """Qwen3; names as in Hugging Face's ``config.json``."""

    vocab_size: int
    hidden_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    head_dim: int
    intermediate_size: int
    rms_norm_eps: float = 1e-6
    rope_theta: float = 1_000_000.0
    hidden_act: Activation = "silu"
    causal: bool = True
    table: TableType = "float32"


@dataclass(frozen=True)
class Rows:
    """A linear layer in 8 bits whose activations have a scale for each row, its weights one for each output.

    Attributes:
        zero: the number that stands for 0.0, of 0 to 255: 128 where activations are as often negative as positive.
        size: numbers of a row that share a scale, activations and weights alike; None for all of them.
        exact: columns of the activations that stay in float32, the largest: they would set the scale of all others.
        smooth: the power of its size that each other column is divided by, and its weights multiplied by.
    """

    zero: int = 128
    size: int | None = None
    exact: int = 16
    smooth: float = 0.5

    def groups(self, inputs: int) -> int:
        """How many scales a row of ``inputs`` numbers has."""
        return inputs // self.size if self.size and inputs % self.size == 0 else 1

    def columns(self, inputs: int) -> int:
        """How many of ``inputs`` columns stay in float32."""
        return min(self.exact, inputs // 4)


@dataclass(frozen=True)
class Blocks:
    """A linear layer in 8 bits whose activations and weights have a scale for each ``size`` numbers of a row."""

    size: int = 32


@dataclass(frozen=True)
class Watched:
    """A linear layer in float32 that tells how large each column of its activations gets: what rows are made from."""


LARGEST = ".largest"  # behind a weight's name: the output of the graph that a watched layer tells it by
Form = Rows | Blocks | Watched
# By the layers' names within a transformer's layer: ("mlp.up_proj", Rows()). LAST before a name means that of the last
# layer, whose errors nothing evens out any more; None is float32.
Plan = tuple[tuple[str, Form | None], ...]
LAST = "last."
Dtype = Literal["float32", "int8"]


def parse_dtype(value: object) -> Dtype:
    """What a model is to compute in, as a person has written it.

    Raises:
        InvalidRequest: it is none of those.
    """
    for dtype in get_args(Dtype):
        if value == dtype:
            return cast(Dtype, dtype)
    raise InvalidRequest(f"dtype must be {' or '.join(get_args(Dtype))}, not {value!r}")


TransformerConfig = BertConfig | Gemma3Config | Qwen3Config


@dataclass(frozen=True)
class DenseConfig:
    """One of sentence-transformers' Dense heads."""

    in_features: int
    out_features: int
    bias: bool
    activation: Activation


@dataclass(frozen=True)
class ModelSpec:
    """What a graph is built from: a transformer, how its states become one vector, and heads behind that.

    ``plan`` says which linear layers compute in 8 bits; with none of them all is float32.
    """

    transformer: TransformerConfig
    pooling: PoolingMode
    dense: tuple[DenseConfig, ...] = ()
    plan: Plan = ()

    @property
    def embedding_length(self) -> int:
        """The width of the vectors that come out."""
        return self.dense[-1].out_features if self.dense else self.transformer.hidden_size
