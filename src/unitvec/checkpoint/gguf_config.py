"""Turns a GGUF file's metadata into the numbers of a model.

The keys, under the architecture's name: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md, and llama.cpp's
``gguf-py/gguf/constants.py`` for the ones that came later.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from unitvec.models.config import BertConfig, Gemma3Config, PoolingMode, Qwen3Config, TableType

_POOLING: dict[int, PoolingMode] = {1: "mean", 2: "cls", 3: "last"}
_MAX_SIZE = 1 << 24  # any one number of a model's shape

# What would change vectors and is not carried out, with the values that ask for nothing.
_NEUTRAL: dict[str, tuple[float, ...]] = {
    "attn_logit_softcapping": (0,),
    "attention.clamp_kqv": (0,),
    "attention.max_alibi_bias": (0,),
    "rope.scaling.attn_factor": (0, 1),
    "expert_count": (0,),
}


class Metadata:
    """A file's metadata under the name of its architecture, each value checked as it is taken.

    Raises:
        ValueError: one is missing, or is not what it has to be.
    """

    def __init__(self, values: Mapping[str, Any], architecture: str) -> None:
        self.values = values
        self.architecture = architecture

    def get(self, name: str) -> Any:
        """The value as it is, None where there is none."""
        return self.values.get(f"{self.architecture}.{name}")

    def wrong(self, name: str, hint: str = "") -> ValueError:
        """That a value cannot be used."""
        return ValueError(f"{self.architecture}.{name} is {shown(self.get(name))}{hint}")

    def size(self, name: str, default: int | None = None) -> int:
        """One number of a model's shape."""
        value = self.get(name)
        if value is None and default is not None:
            return default
        if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= _MAX_SIZE:
            raise self.wrong(name)
        return value

    def number(self, name: str, default: float) -> float:
        """A positive number; 0 is as good as none."""
        value = self.get(name)
        if value is None or (value == 0 and not isinstance(value, bool)):
            return default
        if not isinstance(value, int | float) or isinstance(value, bool) or not 1e-30 < value < 1e12:
            raise self.wrong(name)
        # Stored as float32: 1e-12 comes back as 9.999999960041972e-13, which a person meant as 1e-12.
        return float(str(np.float32(value)))

    def flag(self, name: str, *, default: bool) -> bool:
        """A yes or no."""
        value = self.get(name)
        if not isinstance(value, bool | None):
            raise self.wrong(name)
        return default if value is None else value

    def demand(self, name: str, *neutral: float) -> None:
        """Refuse what is not carried out: any value but these."""
        value = self.get(name)
        if value is not None and (not isinstance(value, int | float) or value not in neutral):
            raise self.wrong(name, ", which is not supported")


def shown(value: object) -> str:
    """A value of any kind in a few words on one line."""
    if value is None:
        return "missing"
    return repr(value)[:80] if isinstance(value, str | int | float) else f"of type {type(value).__name__}"


def pooling(metadata: Metadata, default: int) -> PoolingMode | None:
    """How a text's states become one vector; None for a model that gives no vectors of texts."""
    kind = metadata.get("pooling_type")
    if not isinstance(kind, int | None):
        raise metadata.wrong("pooling_type")
    return _POOLING.get(default if kind is None else kind)


def bert(metadata: Metadata, rows: Mapping[str, int], table: TableType) -> BertConfig:
    """BERT.

    Args:
        metadata: of the file.
        rows: the number of rows of its tensors, by checkpoint name.
        table: how the token embeddings are kept.
    """
    _check(metadata)
    width, heads = metadata.size("embedding_length"), metadata.size("attention.head_count")
    if width % heads:
        raise ValueError(f"{heads} heads do not divide the width {width}")
    if metadata.flag("attention.causal", default=False):
        raise metadata.wrong("attention.causal", ", which is not supported")
    _usual_scale(metadata, width // heads)
    return BertConfig(
        vocab_size=rows["embeddings.word_embeddings.weight"],
        hidden_size=width,
        num_hidden_layers=metadata.size("block_count"),
        num_attention_heads=heads,
        intermediate_size=metadata.size("feed_forward_length"),
        max_position_embeddings=rows["embeddings.position_embeddings.weight"],
        type_vocab_size=rows["embeddings.token_type_embeddings.weight"],
        layer_norm_eps=metadata.number("attention.layer_norm_epsilon", 1e-12),
        table=table,
    )


def gemma3(metadata: Metadata, rows: Mapping[str, int], table: TableType) -> Gemma3Config:
    """Gemma 3; see :func:`bert`."""
    common = _decoder(metadata, rows)
    if metadata.flag("attention.causal", default=False):
        raise metadata.wrong("attention.causal", ", which is not supported")
    layers = range(common["num_hidden_layers"])
    pattern = metadata.get("attention.sliding_window_pattern")
    if isinstance(pattern, np.ndarray):
        if len(pattern) != len(layers):
            raise ValueError("attention.sliding_window_pattern is not as long as there are layers")
        sliding = tuple(bool(is_near) for is_near in pattern)
    else:  # every sixth layer sees everything
        period = metadata.size("attention.sliding_window_pattern", 6)
        sliding = tuple((layer + 1) % period > 0 for layer in layers)
    # Ollama's converter names the bases "global" and "local", llama.cpp's has "_swa" for the layers with a window.
    everywhere = metadata.number("rope.global.freq_base", 1_000_000.0)
    near = metadata.number("rope.local.freq_base", 10_000.0)
    return Gemma3Config(
        sliding_window=metadata.size("attention.sliding_window"),
        sliding_layers=sliding,
        query_pre_attn_scalar=metadata.number("attention.scale", common["head_dim"] ** -0.5) ** -2,
        rope_theta=metadata.number("rope.freq_base", everywhere),
        rope_local_base_freq=metadata.number("rope.freq_base_swa", near),
        table=table,
        **common,
    )


def qwen3(metadata: Metadata, rows: Mapping[str, int], table: TableType) -> Qwen3Config:
    """Qwen3; see :func:`bert`."""
    common = _decoder(metadata, rows)
    _usual_scale(metadata, common["head_dim"])
    metadata.demand("attention.sliding_window", 0)
    return Qwen3Config(
        rope_theta=metadata.number("rope.freq_base", 1_000_000.0),
        causal=metadata.flag("attention.causal", default=True),
        table=table,
        **common,
    )


def _decoder(metadata: Metadata, rows: Mapping[str, int]) -> dict[str, Any]:
    """What Gemma 3 and Qwen3 have in common."""
    _check(metadata)
    heads = metadata.size("attention.head_count")
    width = metadata.size("embedding_length")
    head_dim = metadata.size("attention.key_length", max(1, width // heads))
    if metadata.size("attention.value_length", head_dim) != head_dim:
        raise ValueError("keys and values of different widths are not supported")
    keys = metadata.size("attention.head_count_kv", heads)
    if heads % keys or head_dim % 2:
        raise ValueError(f"{heads} query and {keys} key heads of {head_dim}")
    metadata.demand("rope.dimension_count", 0, head_dim)
    if metadata.get("rope.scaling.type") != "none":  # one that is not named is linear
        if metadata.get("rope.scaling.type") not in (None, "linear"):
            raise metadata.wrong("rope.scaling.type", ", which is not supported")
        for name in ("rope.scaling.factor", "rope.scale_linear"):
            metadata.demand(name, 0, 1)
    return {
        "vocab_size": rows["embed_tokens.weight"],
        "hidden_size": width,
        "num_hidden_layers": metadata.size("block_count"),
        "num_attention_heads": heads,
        "num_key_value_heads": keys,
        "head_dim": head_dim,
        "intermediate_size": metadata.size("feed_forward_length"),
        "rms_norm_eps": metadata.number("attention.layer_norm_rms_epsilon", 1e-6),
    }


def _check(metadata: Metadata) -> None:
    for name, neutral in _NEUTRAL.items():
        metadata.demand(name, *neutral)


def _usual_scale(metadata: Metadata, head_dim: int) -> None:
    usual = head_dim**-0.5
    if abs(metadata.number("attention.scale", usual) / usual - 1) > 1e-4:
        raise metadata.wrong("attention.scale", f", which is not supported; heads of {head_dim} have {usual:.6g}")
