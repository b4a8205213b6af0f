"""Reads a folder as sentence-transformers saves it: config.json, modules.json, tokenizer.json and safetensors."""

from __future__ import annotations

import math
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import orjson
from tokenizers import Tokenizer

from unitvec.checkpoint import safetensors
from unitvec.checkpoint.checkpoint import Checkpoint, Details
from unitvec.errors import InvalidCheckpoint
from unitvec.models.config import Activation, BertConfig, DenseConfig, ModelSpec, PoolingMode

_ACTIVATIONS: dict[str, Activation] = {
    "gelu": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "silu": "silu",
    "relu": "relu",
    "torch.nn.modules.linear.Identity": "identity",
    "torch.nn.modules.activation.Tanh": "tanh",
}
_POOLING: dict[str, PoolingMode] = {
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_cls_token": "cls",
    "pooling_mode_lasttoken": "last",
}


def read(folder: Path) -> Checkpoint:
    """A model folder, as ``SentenceTransformer.save`` writes it.

    Raises:
        InvalidCheckpoint: a file is missing or damaged, or the model is of a kind that cannot be run.
    """
    config = _json(folder / "config.json")
    architecture = config.get("model_type") if isinstance(config, dict) else None
    if architecture != "bert":
        raise InvalidCheckpoint(f"{folder}: architecture {architecture!r} is not supported; supported: bert")
    try:
        transformer = _bert(config)
        pooling, dense = _heads(folder)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise InvalidCheckpoint(f"{folder}: its settings lack or misstate {error}") from None
    stored, dtypes = safetensors.read(folder / "model.safetensors")
    tensors = {name.removeprefix("bert."): _float32(tensor, dtypes[name]) for name, tensor in stored.items()}
    for number, (_, path) in enumerate(dense):
        head, head_dtypes = safetensors.read(path / "model.safetensors")
        tensors |= {f"dense.{number}.{name}": _float32(head[name], head_dtypes[name]) for name in head}
    cut = folder / "sentence_bert_config.json"
    return Checkpoint(
        spec=ModelSpec(transformer, pooling, tuple(head for head, _ in dense)),
        tensors=tensors,
        tokenizer=_tokenizer(folder / "tokenizer.json"),
        context_length=transformer.max_position_embeddings,
        max_length=_json(cut)["max_seq_length"] if cut.exists() else None,
        details=Details(
            format="safetensors",
            family=architecture,
            parameter_count=sum(math.prod(tensor.shape) for tensor in tensors.values()),
            quantization_level=Counter(dtypes.values()).most_common(1)[0][0],
        ),
    )


def _bert(config: dict[str, Any]) -> BertConfig:
    if (kind := config.get("position_embedding_type", "absolute")) != "absolute":
        raise ValueError(f"position_embedding_type {kind!r}")
    return BertConfig(
        vocab_size=int(config["vocab_size"]),
        hidden_size=int(config["hidden_size"]),
        num_hidden_layers=int(config["num_hidden_layers"]),
        num_attention_heads=int(config["num_attention_heads"]),
        intermediate_size=int(config["intermediate_size"]),
        max_position_embeddings=int(config["max_position_embeddings"]),
        type_vocab_size=int(config.get("type_vocab_size", 2)),
        layer_norm_eps=float(config.get("layer_norm_eps", 1e-12)),
        hidden_act=_ACTIVATIONS[config.get("hidden_act", "gelu")],
    )


def _heads(folder: Path) -> tuple[PoolingMode, list[tuple[DenseConfig, Path]]]:
    """What ``modules.json`` puts behind the transformer; Normalize is left out, every answer is normalized."""
    pooling: PoolingMode | None = None
    dense: list[tuple[DenseConfig, Path]] = []
    for module in _json(folder / "modules.json")[1:]:
        kind, path = str(module["type"]).rsplit(".", 1)[-1], folder / module["path"]
        if kind == "Pooling":
            on = [
                key for key, value in _json(path / "config.json").items() if key.startswith("pooling_mode_") and value
            ]
            if len(on) != 1:
                raise ValueError(f"pooling {on}: one mode at a time is supported")
            pooling = _POOLING[on[0]]
        elif kind == "Dense":
            config = _json(path / "config.json")
            activation = _ACTIVATIONS[config["activation_function"]]
            head = DenseConfig(
                int(config["in_features"]), int(config["out_features"]), bool(config["bias"]), activation
            )
            dense.append((head, path))
        elif kind != "Normalize":
            raise ValueError(f"module {kind!r}")
    if pooling is None:
        raise ValueError("a Pooling module")
    return pooling, dense


def _tokenizer(path: Path) -> Tokenizer:
    try:
        tokenizer = Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises nothing narrower
        raise InvalidCheckpoint(f"cannot read tokenizer {path}: {error}") from None
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def _float32(tensor: npt.NDArray[np.generic], dtype: str) -> npt.NDArray[np.generic]:
    if dtype == "BF16":  # the upper half of a float32
        return (tensor.astype(np.uint32) << 16).view(np.float32)
    return tensor.astype(np.float32, copy=False) if dtype == "F16" else tensor


def _json(path: Path) -> Any:
    try:
        return orjson.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise InvalidCheckpoint(f"cannot read {path}: {error}") from None
