"""Turns transformers' ``config.json`` into the numbers of a model."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from unitvec.models.config import Activation, BertConfig, Gemma3Config, Qwen3Config, TransformerConfig

T = TypeVar("T")

_ACTIVATIONS: dict[str, Activation] = {
    "gelu": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "silu": "silu",
    "relu": "relu",
}
_MAX_SIZE = 1 << 24  # any one number of a model's shape


def one_of(known: Mapping[str, T], name: str, value: object) -> T:
    """What is ``known`` under a setting's value.

    Raises:
        ValueError: nothing is.
    """
    if not isinstance(value, str) or value not in known:
        raise ValueError(f"{name} {str(value)[:80]!r} is not supported; supported: {', '.join(known)}")
    return known[value]


def _size(config: dict[str, Any], name: str, default: int | None = None) -> int:
    """One number of a model's shape."""
    value = config.get(name)
    if value is None and default is not None:
        return default
    if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= _MAX_SIZE:
        raise ValueError(f"{name} is {'missing' if value is None else str(value)[:80]}")
    return value


def _number(config: dict[str, Any], name: str, default: float) -> float:
    value = config.get(name, default)
    if not isinstance(value, int | float) or isinstance(value, bool) or not 1e-30 < value < 1e12:
        raise ValueError(f"{name} is {str(value)[:80]}")
    return float(value)


def _demand(config: dict[str, Any], **wanted: Any) -> None:
    """Refuse settings that the architecture's modules do not carry out."""
    for name, value in wanted.items():
        if (given := config.get(name) or None) != (value or None):
            raise ValueError(f"{name} {str(given)[:80]} is not supported")


def _rope_base(config: dict[str, Any], kind: str | None, name: str, default: float) -> float:
    """A rotary base: under ``rope_parameters`` since transformers 5, under ``name`` before."""
    parameters = config.get("rope_parameters") or {}
    parameters = (parameters.get(kind) if kind else parameters) or {}
    scaling = config.get("rope_scaling") or {}
    for rope_type in (parameters.get("rope_type"), scaling.get("rope_type", scaling.get("type"))):
        if rope_type not in (None, "default"):
            raise ValueError(f"rotary positions of type {str(rope_type)[:80]!r} are not supported")
    for part in (parameters.get("partial_rotary_factor"), config.get("partial_rotary_factor")):
        if part not in (None, 1):
            raise ValueError(f"partial_rotary_factor {str(part)[:80]} is not supported")
    return _number(parameters, "rope_theta", _number(config, name, default))


def _bert(config: dict[str, Any]) -> BertConfig:
    if config.get("position_embedding_type", "absolute") != "absolute":
        raise ValueError(f"position_embedding_type {str(config['position_embedding_type'])[:80]!r} is not supported")
    _demand(config, is_decoder=False)
    width, heads = _size(config, "hidden_size"), _size(config, "num_attention_heads")
    if width % heads:
        raise ValueError(f"{heads} heads do not divide the width {width}")
    return BertConfig(
        vocab_size=_size(config, "vocab_size"),
        hidden_size=width,
        num_hidden_layers=_size(config, "num_hidden_layers"),
        num_attention_heads=heads,
        intermediate_size=_size(config, "intermediate_size"),
        max_position_embeddings=context_length(config),
        type_vocab_size=_size(config, "type_vocab_size", 2),
        layer_norm_eps=_number(config, "layer_norm_eps", 1e-12),
        hidden_act=one_of(_ACTIVATIONS, "hidden_act", config.get("hidden_act", "gelu")),
    )


def first_position(config: dict[str, Any]) -> int:
    """The row of the position table that a text's first token gets: RoBERTa keeps the ones before for padding."""
    return int(config.get("pad_token_id", 1)) + 1 if config["model_type"] in _ROBERTA else 0


def context_length(config: dict[str, Any]) -> int:
    """The most tokens that the model can take in.

    Raises:
        ValueError: the settings leave room for none.
    """
    length = _size(config, "max_position_embeddings") - first_position(config)
    if length < 1:
        raise ValueError(f"max_position_embeddings is {config['max_position_embeddings']}")
    return length


def _decoder(config: dict[str, Any]) -> dict[str, Any]:
    heads, width = _size(config, "num_attention_heads"), _size(config, "hidden_size")
    keys, head_dim = _size(config, "num_key_value_heads", heads), _size(config, "head_dim", max(1, width // heads))
    if heads % keys or head_dim % 2:
        raise ValueError(f"{heads} query and {keys} key heads of {head_dim}")
    return {
        "vocab_size": _size(config, "vocab_size"),
        "hidden_size": width,
        "num_hidden_layers": _size(config, "num_hidden_layers"),
        "num_attention_heads": heads,
        "num_key_value_heads": keys,
        "head_dim": head_dim,
        "intermediate_size": _size(config, "intermediate_size"),
        "rms_norm_eps": _number(config, "rms_norm_eps", 1e-6),
    }


def _gemma3(config: dict[str, Any]) -> Gemma3Config:
    _demand(config, use_bidirectional_attention=True, attn_logit_softcapping=None, attention_bias=False)
    layers = range(_size(config, "num_hidden_layers"))
    period = _size(config, "_sliding_window_pattern", _size(config, "sliding_window_pattern", 6))
    kinds = config.get("layer_types") or [
        "sliding_attention" if (layer + 1) % period else "full_attention" for layer in layers
    ]
    if len(kinds) != len(layers) or set(kinds) - {"sliding_attention", "full_attention"}:
        raise ValueError("layer_types does not say of each layer whether its attention is sliding or full")
    return Gemma3Config(
        sliding_window=_size(config, "sliding_window"),
        sliding_layers=tuple(kind == "sliding_attention" for kind in kinds),
        query_pre_attn_scalar=_number(config, "query_pre_attn_scalar", 256),
        rope_theta=_rope_base(config, "full_attention", "rope_theta", 1_000_000.0),
        rope_local_base_freq=_rope_base(config, "sliding_attention", "rope_local_base_freq", 10_000.0),
        hidden_act=one_of(_ACTIVATIONS, "hidden_activation", config.get("hidden_activation", "gelu_pytorch_tanh")),
        **_decoder(config),
    )


def _qwen3(config: dict[str, Any]) -> Qwen3Config:
    _demand(config, use_sliding_window=False, attention_bias=False)
    if "sliding_attention" in (config.get("layer_types") or ()):
        raise ValueError("layer_types with sliding_attention is not supported")
    return Qwen3Config(
        rope_theta=_rope_base(config, None, "rope_theta", 10_000.0),
        hidden_act=one_of(_ACTIVATIONS, "hidden_act", config.get("hidden_act", "silu")),
        **_decoder(config),
    )


_ROBERTA = ("roberta", "xlm-roberta")
ARCHITECTURES: dict[str, Callable[[dict[str, Any]], TransformerConfig]] = {
    "bert": _bert,
    "roberta": _bert,
    "xlm-roberta": _bert,
    "gemma3_text": _gemma3,
    "qwen3": _qwen3,
}
