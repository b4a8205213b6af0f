"""Turns transformers' ``config.json`` into the numbers of a model."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from unitvec.models.config import Activation, BertConfig, Gemma3Config, Qwen3Config, TransformerConfig

ACTIVATIONS: dict[str, Activation] = {
    "gelu": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "silu": "silu",
    "relu": "relu",
    "torch.nn.modules.linear.Identity": "identity",
    "torch.nn.modules.activation.Tanh": "tanh",
    "torch.nn.modules.activation.GELU": "gelu",
    "torch.nn.modules.activation.ReLU": "relu",
    "torch.nn.modules.activation.SiLU": "silu",
}


def _demand(config: dict[str, Any], **wanted: Any) -> None:
    """Refuse settings that the architecture's modules do not carry out."""
    for name, value in wanted.items():
        if (given := config.get(name) or None) != (value or None):
            raise ValueError(f"{name}: {given!r} is not supported")


def _rope_base(config: dict[str, Any], kind: str | None, name: str, default: float) -> float:
    """A rotary base: under ``rope_parameters`` since transformers 5, under ``name`` before."""
    parameters = config.get("rope_parameters") or {}
    parameters = (parameters.get(kind) if kind else parameters) or {}
    scaling = config.get("rope_scaling") or {}
    for rope_type in (parameters.get("rope_type"), scaling.get("rope_type", scaling.get("type"))):
        if rope_type not in (None, "default"):
            raise ValueError(f"rotary positions of type {rope_type!r} are not supported")
    return float(parameters.get("rope_theta", config.get(name, default)))


def _bert(config: dict[str, Any]) -> BertConfig:
    if config.get("position_embedding_type", "absolute") != "absolute":
        raise ValueError(f"position_embedding_type {config['position_embedding_type']!r} is not supported")
    return BertConfig(
        vocab_size=int(config["vocab_size"]),
        hidden_size=int(config["hidden_size"]),
        num_hidden_layers=int(config["num_hidden_layers"]),
        num_attention_heads=int(config["num_attention_heads"]),
        intermediate_size=int(config["intermediate_size"]),
        max_position_embeddings=int(config["max_position_embeddings"]) - first_position(config),
        type_vocab_size=int(config.get("type_vocab_size", 2)),
        layer_norm_eps=float(config.get("layer_norm_eps", 1e-12)),
        hidden_act=ACTIVATIONS[config.get("hidden_act", "gelu")],
    )


def first_position(config: dict[str, Any]) -> int:
    """The row of the position table that a text's first token gets: RoBERTa keeps the ones before for padding."""
    return int(config.get("pad_token_id", 1)) + 1 if config["model_type"] in _ROBERTA else 0


def _decoder(config: dict[str, Any]) -> dict[str, Any]:
    heads = int(config["num_attention_heads"])
    return {
        "vocab_size": int(config["vocab_size"]),
        "hidden_size": int(config["hidden_size"]),
        "num_hidden_layers": int(config["num_hidden_layers"]),
        "num_attention_heads": heads,
        "num_key_value_heads": int(config["num_key_value_heads"]),
        "head_dim": int(config.get("head_dim") or int(config["hidden_size"]) // heads),
        "intermediate_size": int(config["intermediate_size"]),
        "rms_norm_eps": float(config.get("rms_norm_eps", 1e-6)),
    }


def _gemma3(config: dict[str, Any]) -> Gemma3Config:
    _demand(config, use_bidirectional_attention=True, attn_logit_softcapping=None, attention_bias=False)
    layers = range(int(config["num_hidden_layers"]))
    period = int(config.get("_sliding_window_pattern", config.get("sliding_window_pattern", 6)))
    kinds = config.get("layer_types") or [
        "sliding_attention" if (layer + 1) % period else "full_attention" for layer in layers
    ]
    if len(kinds) != len(layers):
        raise ValueError("layer_types is not as long as there are layers")
    return Gemma3Config(
        sliding_window=int(config["sliding_window"]),
        sliding_layers=tuple(kind == "sliding_attention" for kind in kinds),
        query_pre_attn_scalar=float(config.get("query_pre_attn_scalar", 256)),
        rope_theta=_rope_base(config, "full_attention", "rope_theta", 1_000_000.0),
        rope_local_base_freq=_rope_base(config, "sliding_attention", "rope_local_base_freq", 10_000.0),
        hidden_act=ACTIVATIONS[config.get("hidden_activation", "gelu_pytorch_tanh")],
        **_decoder(config),
    )


def _qwen3(config: dict[str, Any]) -> Qwen3Config:
    _demand(config, use_sliding_window=False, attention_bias=False)
    return Qwen3Config(
        rope_theta=_rope_base(config, None, "rope_theta", 10_000.0),
        hidden_act=ACTIVATIONS[config.get("hidden_act", "silu")],
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
