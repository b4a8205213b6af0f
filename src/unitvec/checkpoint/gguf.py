"""Reads embedding models from GGUF files, as llama.cpp's and Ollama's converters write them."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from tokenizers import Tokenizer

from unitvec import pages
from unitvec.checkpoint import gguf_config, gguf_file, names, shapes
from unitvec.checkpoint.checkpoint import Checkpoint, Details, Tensors
from unitvec.checkpoint.ggml import FILE_TYPES, dequantize
from unitvec.checkpoint.gguf_config import Metadata, shown
from unitvec.errors import InvalidCheckpoint
from unitvec.models.config import (
    Q8_BLOCK,
    BertConfig,
    DenseConfig,
    ModelSpec,
    TableType,
    TransformerConfig,
)
from unitvec.tokenizer import gguf as tokenizers

_TABLES: dict[str, TableType] = {"F32": "float32", "F16": "float16", "BF16": "bfloat16", "Q8_0": "int8"}
_IGNORED = ("output.weight",)  # the head that predicts tokens
_FACTORS = "rope_freqs.weight"  # what rotary frequencies are divided by
_LONG = 5  # /api/show gives longer arrays as null


def read(path: Path) -> Checkpoint:
    """An embedding model in one GGUF file.

    Raises:
        InvalidCheckpoint: the file is missing or damaged, or the model is of a kind that cannot be run.
    """
    file = gguf_file.read(path)
    architecture = file.metadata.get("general.architecture")
    known = _ARCHITECTURES.get(architecture) if isinstance(architecture, str) else None
    if known is None:
        raise InvalidCheckpoint(f"{path}: architecture {shown(architecture)} is not supported; {_supported()}")
    metadata = Metadata(file.metadata, str(architecture))
    try:
        pooling = gguf_config.pooling(metadata, known.pooling)
        if pooling is None:
            raise InvalidCheckpoint(
                f"{path}: this {architecture} model generates text or ranks (its pooling_type is "
                f"{shown(metadata.get('pooling_type'))}), it gives no embeddings; {_supported()}"
            )
        tensors, told = _translated(file.tensors, known.names)
        if f"{known.table}.weight" not in tensors:
            raise ValueError("the weight 'token_embd.weight' is missing")
        table = _TABLES.get(tensors[f"{known.table}.weight"].form.name, "float16")
        transformer = known.config(metadata, {name: tensor.shape[0] for name, tensor in tensors.items()}, table)
        spec = ModelSpec(transformer, pooling, _dense(tensors, transformer.hidden_size))
        shapes.check(spec, {name: tensor.shape for name, tensor in tensors.items()}, told)
        context = metadata.size("context_length")
    except KeyError as error:
        raise InvalidCheckpoint(f"{path}: the weight {told(error.args[0])!r} is missing") from None
    except (TypeError, ValueError) as error:
        raise InvalidCheckpoint(f"{path}: {error}") from None
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
        raise InvalidCheckpoint(f"{path}: {error}") from None


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


def _translated(
    tensors: dict[str, gguf_file.Tensor], table: dict[str, str]
) -> tuple[dict[str, gguf_file.Tensor], Callable[[str], str]]:
    """Tensors by their names in the checkpoint, and what tells the file's own name of one."""
    translated: dict[str, gguf_file.Tensor] = {}
    originals: dict[str, str] = {}
    for name, tensor in tensors.items():
        if name in _IGNORED or (name == _FACTORS and _is_all_ones(tensor)):
            continue
        known = names.translate(name, table)
        if known is None or known in translated:  # left out, the vectors would be wrong
            raise ValueError(f"the weight {name[:80]!r} does not belong to the architecture")
        translated[known] = tensor
        originals[known] = name
    return translated, lambda name: originals.get(name) or names.original(name, table)


def _is_all_ones(tensor: gguf_file.Tensor) -> bool:
    return bool((dequantize(tensor.form, tensor.raw, tensor.shape) == 1).all())


def _dense(tensors: Mapping[str, gguf_file.Tensor], width: int) -> tuple[DenseConfig, ...]:
    heads: list[DenseConfig] = []
    while (weight := tensors.get(f"dense.{len(heads)}.linear.weight")) is not None:
        if len(weight.shape) != 2 or weight.shape[1] != width:
            raise ValueError(f"the Dense heads do not fit the width {width}")
        width, inputs = weight.shape
        heads.append(DenseConfig(inputs, width, f"dense.{len(heads)}.linear.bias" in tensors, "identity"))
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


class _Architecture(NamedTuple):
    names: dict[str, str]
    table: str  # the parameter that holds the token embeddings, without ".weight"
    config: Callable[[Metadata, Mapping[str, int], TableType], TransformerConfig]
    pooling: int  # where the metadata names none; 0: such a file generates text


_GEMMA3 = _Architecture(names.GEMMA3, "embed_tokens", gguf_config.gemma3, 0)
_ARCHITECTURES = {
    "bert": _Architecture(names.BERT, "embeddings.word_embeddings", gguf_config.bert, 1),
    "gemma-embedding": _GEMMA3._replace(pooling=1),
    "gemma3": _GEMMA3,
    "qwen3": _Architecture(names.QWEN3, "embed_tokens", gguf_config.qwen3, 0),
}


def _supported() -> str:
    return f"supported are embedding models of {', '.join(_ARCHITECTURES)}"
