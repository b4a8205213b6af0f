"""Reads embedding models from GGUF files, as llama.cpp's and Ollama's converters write them."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from tokenizers import Tokenizer

from unitvec import pages
from unitvec.checkpoint import gguf_file, names
from unitvec.checkpoint.checkpoint import Checkpoint, Details, Tensors
from unitvec.checkpoint.ggml import FILE_TYPES, dequantize
from unitvec.errors import InvalidCheckpoint
from unitvec.models.config import (
    Q8_BLOCK,
    BertConfig,
    DenseConfig,
    Gemma3Config,
    ModelSpec,
    PoolingMode,
    Qwen3Config,
    TableType,
    TransformerConfig,
)
from unitvec.tokenizer import gguf as tokenizers

_POOLING: dict[int, PoolingMode] = {1: "mean", 2: "cls", 3: "last"}
_TABLES: dict[str, TableType] = {"F32": "float32", "F16": "float16", "BF16": "bfloat16", "Q8_0": "int8"}
_IGNORED = ("output.weight",)  # the head that predicts tokens
_LONG = 5  # /api/show gives longer arrays as null
_MAX_SIZE = 1 << 24  # any one number of a model's shape


class _Metadata:
    """A file's metadata of one architecture, each number checked as it is taken."""

    def __init__(self, values: dict[str, Any], architecture: str) -> None:
        self.values = values
        self.architecture = architecture

    def get(self, name: str) -> Any:
        return self.values.get(f"{self.architecture}.{name}")

    def size(self, name: str, default: int | None = None) -> int:
        value = self.get(name)
        if value is None and default is not None:
            return default
        if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= _MAX_SIZE:
            raise ValueError(f"{self.architecture}.{name} is {_shown(value)}")
        return value

    def number(self, name: str, default: float | None = None) -> float:
        value = self.get(name)
        if value is None and default is not None:
            return default
        if not isinstance(value, float) or not 0 < value < 1e12:
            raise ValueError(f"{self.architecture}.{name} is {_shown(value)}")
        # Stored as float32: 1e-12 comes back as 9.999999960041972e-13, which a person meant as 1e-12.
        return float(str(np.float32(value)))

    def flag(self, name: str, *, default: bool) -> bool:
        value = self.get(name)
        return value if isinstance(value, bool) else default


def _shown(value: object) -> str:
    if value is None:
        return "missing"
    return repr(value)[:80] if isinstance(value, str | int | float) else f"of type {type(value).__name__}"


def read(path: Path) -> Checkpoint:
    """An embedding model in one GGUF file.

    Raises:
        InvalidCheckpoint: the file is missing or damaged, or the model is of a kind that cannot be run.
    """
    file = gguf_file.read(path)
    architecture = file.metadata.get("general.architecture")
    known = _ARCHITECTURES.get(architecture) if isinstance(architecture, str) else None
    if known is None:
        raise InvalidCheckpoint(f"{path}: architecture {_shown(architecture)} is not supported; {_supported()}")
    metadata = _Metadata(file.metadata, str(architecture))
    try:
        pooling = _POOLING.get(metadata.size("pooling_type", default=known.pooling))
        if pooling is None:
            raise InvalidCheckpoint(
                f"{path}: this {architecture} model generates text or ranks, it gives no embeddings; {_supported()}"
            )
        tensors = _translated(file.tensors, known.names)
        if (table := tensors.get(f"{known.table}.weight")) is None:
            raise ValueError("the tensor 'token_embd.weight' is missing")
        transformer = known.config(metadata, tensors, _TABLES.get(table.form.name, "float16"))
        _check_shapes(tensors, known.shapes(transformer))
        spec = ModelSpec(transformer, pooling, _dense(tensors))
        if spec.dense and spec.dense[0].in_features != transformer.hidden_size:
            raise ValueError("the Dense heads do not fit the model's width")
        context = metadata.size("context_length")
    except KeyError as error:
        raise InvalidCheckpoint(f"damaged GGUF file {path}: the weight {error} is missing") from None
    except (TypeError, ValueError) as error:
        raise InvalidCheckpoint(f"damaged GGUF file {path}: {error}") from None
    if isinstance(transformer, BertConfig):
        context = min(context, transformer.max_position_embeddings)
    count = sum(math.prod(tensor.shape) for tensor in file.tensors.values())
    return Checkpoint(
        spec=spec,
        tensors=_numbers(tensors, spec, known.table),
        make_tokenizer=partial(_tokenizer, path, file.metadata, transformer.vocab_size),
        context_length=context,
        details=Details("gguf", str(architecture), count, _quantization(file)),
        model_info={key: _brief(value) for key, value in file.metadata.items() if key not in _NOT_SHOWN}
        | {"general.parameter_count": count},
        tensor_list=[
            {"name": name, "type": tensor.form.name, "shape": list(tensor.shape[::-1])}
            for name, tensor in file.tensors.items()
        ],
    )


def _tokenizer(path: Path, metadata: dict[str, Any], size: int) -> Tokenizer:
    try:
        return tokenizers.build(metadata, size)
    except (TypeError, ValueError) as error:
        raise InvalidCheckpoint(f"damaged GGUF file {path}: {error}") from None


_NOT_SHOWN = ("general.name", "tokenizer.chat_template")


def _brief(value: Any) -> Any:
    """A metadata value as ``/api/show`` gives it."""
    if isinstance(value, list | np.ndarray):
        return None if len(value) > _LONG else list(value) if isinstance(value, list) else value.tolist()
    if isinstance(value, float):  # JSON knows no others, and a float32 reads best with as few digits as name it
        return float(str(np.float32(value))) if math.isfinite(value) else None
    return value


def _quantization(file: gguf_file.GgufFile) -> str:
    kind = file.metadata.get("general.file_type")
    if isinstance(kind, int) and kind in FILE_TYPES:
        return FILE_TYPES[kind]
    sizes: Counter[str] = Counter()
    for tensor in file.tensors.values():
        sizes[tensor.form.name] += len(tensor.raw)
    return sizes.most_common(1)[0][0]


def _translated(tensors: dict[str, gguf_file.Tensor], table: dict[str, str]) -> dict[str, gguf_file.Tensor]:
    translated = {}
    for name, tensor in tensors.items():
        if name in _IGNORED:
            continue
        known = names.translate(name, table)
        if known is None or known in translated:  # left out, the vectors would be wrong
            raise ValueError(f"the tensor {name[:80]!r} does not belong to the architecture")
        translated[known] = tensor
    return translated


def _check_shapes(tensors: dict[str, gguf_file.Tensor], shapes: dict[str, tuple[int, ...]]) -> None:
    """Hold the metadata against the weights before anything is sized by it."""
    for name, shape in shapes.items():
        if (tensor := tensors.get(name)) is None:
            raise ValueError(f"the weight {name!r} is missing")
        if tensor.shape != shape:
            raise ValueError(f"the weight {name!r} is {list(tensor.shape)} where the metadata says {list(shape)}")


def _dense(tensors: dict[str, gguf_file.Tensor]) -> tuple[DenseConfig, ...]:
    heads: list[DenseConfig] = []
    while (weight := tensors.get(f"dense.{len(heads)}.linear.weight")) is not None:
        if len(weight.shape) != 2 or (heads and weight.shape[1] != heads[-1].out_features):
            raise ValueError("the Dense heads do not fit together")
        outputs, inputs = weight.shape
        heads.append(DenseConfig(inputs, outputs, f"dense.{len(heads)}.linear.bias" in tensors, "identity"))
    return tuple(heads)


def _numbers(tensors: dict[str, gguf_file.Tensor], spec: ModelSpec, table: str) -> Tensors:
    """Arrays that are made when they are asked for: float32, but for the table, which stays as small as it is."""

    def plain(tensor: gguf_file.Tensor) -> Callable[[], npt.NDArray[np.generic]]:
        if tensor.form.name == "F32":
            return lambda: tensor.raw.view(np.float32).reshape(tensor.shape)
        return lambda: widened(tensor)

    def widened(tensor: gguf_file.Tensor, dtype: type[np.floating[Any]] = np.float32) -> npt.NDArray[np.generic]:
        numbers = dequantize(tensor.form, tensor.raw, tensor.shape, dtype)
        pages.release([tensor.raw])  # of the file's map: it is not read again
        return numbers

    def unwoven(tensor: gguf_file.Tensor, part: slice) -> npt.NDArray[np.uint8]:
        numbers = np.ascontiguousarray(tensor.raw.reshape(-1, tensor.form.bytes)[:, part])
        pages.release([tensor.raw])
        return numbers

    def blocks(tensor: gguf_file.Tensor) -> tuple[npt.NDArray[np.int8], npt.NDArray[np.float16]]:
        rows, width = tensor.shape
        scales = np.ascontiguousarray(tensor.raw.reshape(-1, tensor.form.bytes)[:, :2])
        numbers = unwoven(tensor, slice(2, None)).view(np.int8)
        return numbers.reshape(rows, width), scales.view(np.float16).reshape(rows, width // Q8_BLOCK)

    made = {name: plain(tensor) for name, tensor in tensors.items()}
    q8 = {name: partial(blocks, tensor) for name, tensor in tensors.items() if tensor.form.name == "Q8_0"}
    rows = tensors[f"{table}.weight"]
    match spec.transformer.table:
        case "int8":
            scales = (rows.shape[0], rows.shape[1] // Q8_BLOCK)
            made[f"{table}.scale"] = lambda: unwoven(rows, slice(0, 2)).view(np.float16).reshape(scales)
            made[f"{table}.weight"] = lambda: unwoven(rows, slice(2, None)).view(np.int8).reshape(rows.shape)
        case "float16" if rows.form.name == "F16":
            made[f"{table}.weight"] = lambda: rows.raw.view(np.float16).reshape(rows.shape)
        case "float16":
            made[f"{table}.weight"] = lambda: widened(rows, np.float16)
        case "bfloat16":
            made[f"{table}.weight"] = lambda: rows.raw.view(np.uint16).reshape(rows.shape)
    return Tensors(made, q8)


def _bert(metadata: _Metadata, tensors: dict[str, gguf_file.Tensor], table: TableType) -> BertConfig:
    types = tensors["embeddings.token_type_embeddings.weight"].shape[0]
    return BertConfig(
        vocab_size=tensors["embeddings.word_embeddings.weight"].shape[0],
        hidden_size=metadata.size("embedding_length"),
        num_hidden_layers=metadata.size("block_count"),
        num_attention_heads=metadata.size("attention.head_count"),
        intermediate_size=metadata.size("feed_forward_length"),
        max_position_embeddings=tensors["embeddings.position_embeddings.weight"].shape[0],
        type_vocab_size=types,
        layer_norm_eps=metadata.number("attention.layer_norm_epsilon", 1e-12),
        table=table,
    )


def _bert_shapes(config: TransformerConfig) -> dict[str, tuple[int, ...]]:
    assert isinstance(config, BertConfig)
    if config.hidden_size % config.num_attention_heads:
        raise ValueError(f"{config.num_attention_heads} heads do not divide the width {config.hidden_size}")
    shapes: dict[str, tuple[int, ...]] = {
        "embeddings.word_embeddings.weight": (config.vocab_size, config.hidden_size),
        "embeddings.position_embeddings.weight": (config.max_position_embeddings, config.hidden_size),
    }
    for layer in range(config.num_hidden_layers):
        shapes[f"encoder.layer.{layer}.intermediate.dense.weight"] = (config.intermediate_size, config.hidden_size)
    return shapes


def _decoder(metadata: _Metadata, tensors: dict[str, gguf_file.Tensor]) -> dict[str, Any]:
    """What Gemma 3 and Qwen3 have in common."""
    heads = metadata.size("attention.head_count")
    width = metadata.size("embedding_length")
    head_dim = metadata.size("attention.key_length", max(1, width // heads))
    if metadata.size("attention.value_length", head_dim) != head_dim:
        raise ValueError("keys and values of different widths are not supported")
    if metadata.get("rope.scaling.type") not in (None, "none"):
        raise ValueError(f"rope.scaling.type {_shown(metadata.get('rope.scaling.type'))} is not supported")
    return {
        "vocab_size": tensors["embed_tokens.weight"].shape[0],
        "hidden_size": width,
        "num_hidden_layers": metadata.size("block_count"),
        "num_attention_heads": heads,
        "num_key_value_heads": metadata.size("attention.head_count_kv", heads),
        "head_dim": head_dim,
        "intermediate_size": metadata.size("feed_forward_length"),
        "rms_norm_eps": metadata.number("attention.layer_norm_rms_epsilon", 1e-6),
    }


def _decoder_shapes(config: TransformerConfig) -> dict[str, tuple[int, ...]]:
    assert not isinstance(config, BertConfig)
    if config.num_attention_heads % config.num_key_value_heads or config.head_dim % 2:
        raise ValueError(
            f"{config.num_attention_heads} query and {config.num_key_value_heads} key heads of {config.head_dim}"
        )
    shapes: dict[str, tuple[int, ...]] = {"embed_tokens.weight": (config.vocab_size, config.hidden_size)}
    for layer in range(config.num_hidden_layers):
        at = f"layers.{layer}"
        shapes[f"{at}.self_attn.q_proj.weight"] = (config.num_attention_heads * config.head_dim, config.hidden_size)
        shapes[f"{at}.self_attn.k_proj.weight"] = (config.num_key_value_heads * config.head_dim, config.hidden_size)
        shapes[f"{at}.mlp.up_proj.weight"] = (config.intermediate_size, config.hidden_size)
    return shapes


def _gemma3(metadata: _Metadata, tensors: dict[str, gguf_file.Tensor], table: TableType) -> Gemma3Config:
    common = _decoder(metadata, tensors)
    layers = range(common["num_hidden_layers"])
    pattern = metadata.get("attention.sliding_window_pattern")
    if isinstance(pattern, np.ndarray):
        if len(pattern) != len(layers):
            raise ValueError("attention.sliding_window_pattern is not as long as there are layers")
        sliding = tuple(bool(is_near) for is_near in pattern)
    else:  # every sixth layer sees everything
        period = metadata.size("attention.sliding_window_pattern", 6)
        sliding = tuple((layer + 1) % period > 0 for layer in layers)
    local = metadata.number("rope.local.freq_base", 10_000.0)
    return Gemma3Config(
        sliding_window=metadata.size("attention.sliding_window"),
        sliding_layers=sliding,
        query_pre_attn_scalar=common["head_dim"],
        rope_theta=metadata.number("rope.freq_base", 1_000_000.0),
        rope_local_base_freq=metadata.number("rope.freq_base_swa", local),
        table=table,
        **common,
    )


def _qwen3(metadata: _Metadata, tensors: dict[str, gguf_file.Tensor], table: TableType) -> Qwen3Config:
    return Qwen3Config(
        rope_theta=metadata.number("rope.freq_base", 1_000_000.0),
        causal=metadata.flag("attention.causal", default=True),
        table=table,
        **_decoder(metadata, tensors),
    )


class _Architecture(NamedTuple):
    names: dict[str, str]
    table: str  # the parameter that holds the token embeddings, without ".weight"
    config: Callable[[_Metadata, dict[str, gguf_file.Tensor], TableType], TransformerConfig]
    shapes: Callable[[TransformerConfig], dict[str, tuple[int, ...]]]
    pooling: int  # where the metadata names none; 0: such a file generates text


_GEMMA3 = _Architecture(names.GEMMA3, "embed_tokens", _gemma3, _decoder_shapes, 0)
_ARCHITECTURES = {
    "bert": _Architecture(names.BERT, "embeddings.word_embeddings", _bert, _bert_shapes, 1),
    "gemma-embedding": _GEMMA3._replace(pooling=1),
    "gemma3": _GEMMA3,
    "qwen3": _Architecture(names.QWEN3, "embed_tokens", _qwen3, _decoder_shapes, 0),
}


def _supported() -> str:
    return f"supported are embedding models of {', '.join(_ARCHITECTURES)}"
