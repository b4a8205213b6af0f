"""Reads a folder as sentence-transformers saves it: config.json, modules.json, tokenizer.json and safetensors."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import orjson
from tokenizers import Tokenizer

from unitvec.checkpoint import safetensors
from unitvec.checkpoint.checkpoint import Checkpoint, Details, Tensors
from unitvec.checkpoint.transformers_config import ACTIVATIONS, ARCHITECTURES, first_position
from unitvec.errors import InvalidCheckpoint
from unitvec.models.config import (
    DenseConfig,
    Gemma3Config,
    ModelSpec,
    PoolingMode,
    TableType,
    TransformerConfig,
)

_POOLING: dict[str, PoolingMode] = {
    "mean": "mean",
    "mean_tokens": "mean",
    "cls": "cls",
    "cls_token": "cls",
    "lasttoken": "last",
}
_PREFIXES = ("model.", "bert.", "roberta.")  # of weights that were saved with a head around them
_UNUSED = ("pooler.", "cls.", "lm_head.", "embeddings.position_ids")  # heads, and what is no weight
_TABLES: dict[str, TableType] = {"F16": "float16", "BF16": "bfloat16"}


def read(folder: Path) -> Checkpoint:
    """A model folder, as ``SentenceTransformer.save`` writes it.

    Raises:
        InvalidCheckpoint: a file is missing or damaged, or the model is of a kind that cannot be run.
    """
    config = _json(folder / "config.json")
    architecture = config.get("model_type") if isinstance(config, dict) else None
    if architecture not in ARCHITECTURES:
        raise InvalidCheckpoint(
            f"{folder}: architecture {architecture!r} is not supported; "
            f"supported are embedding models of {', '.join(ARCHITECTURES)}"
        )
    if not (folder / "modules.json").exists():
        raise InvalidCheckpoint(f"{folder}: it has no modules.json, so it does not say how texts become vectors")
    try:
        transformer = ARCHITECTURES[architecture](config)
        pooling, dense = _heads(folder)
    except KeyError as error:
        raise InvalidCheckpoint(f"{folder}: its settings lack or misstate {error}") from None
    except (AttributeError, TypeError, ValueError) as error:
        raise InvalidCheckpoint(f"{folder}: its settings: {error}") from None
    stored = _weights(folder)
    table = next((name for name in stored if name.endswith(_EMBEDDINGS)), None)
    if table is not None:
        transformer = replace(transformer, table=_TABLES.get(stored[table].kind, "float32"))
    made = {name: _array(name, weight, transformer) for name, weight in stored.items()}
    if (first := first_position(config)) and (name := "embeddings.position_embeddings.weight") in made:
        rows = made[name]
        made[name] = lambda: rows()[first:]
    for number, (_, path) in enumerate(dense):
        made |= {f"dense.{number}.{name}": weight.widened for name, weight in _file(path / "model.safetensors").items()}
    cut = folder / "sentence_bert_config.json"
    tokenizer = folder / "tokenizer.json"
    if not tokenizer.exists():
        raise InvalidCheckpoint(f"cannot read tokenizer {tokenizer}: it is missing")
    return Checkpoint(
        spec=ModelSpec(transformer, pooling, tuple(head for head, _ in dense)),
        tensors=Tensors(made),
        make_tokenizer=partial(_tokenizer, tokenizer),
        context_length=_context_length(config),
        max_length=_json(cut).get("max_seq_length") if cut.exists() else None,
        details=Details(
            format="safetensors",
            family=architecture,
            parameter_count=sum(weight.stored.size for weight in stored.values()),
            quantization_level=Counter(weight.kind for weight in stored.values()).most_common(1)[0][0],
        ),
    )


_EMBEDDINGS = ("word_embeddings.weight", "embed_tokens.weight")


class _Weight(NamedTuple):
    """A tensor as it lies in its file, and the file's name for its type."""

    stored: npt.NDArray[np.generic]
    kind: str

    def widened(self) -> npt.NDArray[np.float32]:
        """As float32."""
        if self.kind == "BF16":  # the upper half of a float32
            return (self.stored.astype(np.uint32) << np.uint32(16)).view(np.float32)
        return self.stored.astype(np.float32, copy=False)


def _array(name: str, weight: _Weight, transformer: TransformerConfig) -> Callable[[], npt.NDArray[np.generic]]:
    if name.endswith(_EMBEDDINGS) and weight.kind in _TABLES:
        return lambda: weight.stored
    if isinstance(transformer, Gemma3Config) and name.endswith("norm.weight"):
        return lambda: weight.widened() + np.float32(1)  # Gemma's norms multiply by one more than is stored
    return weight.widened


def _file(path: Path) -> dict[str, _Weight]:
    tensors, dtypes = safetensors.read(path)
    return {name: _Weight(tensor, dtypes[name]) for name, tensor in tensors.items()}


def _weights(folder: Path) -> dict[str, _Weight]:
    """All weights of the transformer under their bare names, from one file or from those that an index lists."""
    index = folder / "model.safetensors.index.json"
    files = ["model.safetensors"]
    if index.exists():
        where = _json(index)
        try:
            files = sorted(set(where["weight_map"].values()))
            if any(not isinstance(file, str) or Path(file).name != file for file in files):
                raise ValueError
        except (AttributeError, KeyError, TypeError, ValueError):
            raise InvalidCheckpoint(f"damaged weights index {index}") from None
    weights: dict[str, _Weight] = {}
    for file in files:
        for name, weight in _file(folder / file).items():
            bare = next((name.removeprefix(prefix) for prefix in _PREFIXES if name.startswith(prefix)), name)
            if not bare.startswith(_UNUSED):
                weights[bare] = weight
    return weights


def _context_length(config: dict[str, Any]) -> int:
    return int(config["max_position_embeddings"]) - first_position(config)


def _heads(folder: Path) -> tuple[PoolingMode, list[tuple[DenseConfig, Path]]]:
    """What ``modules.json`` puts behind the transformer; Normalize is left out, every answer is normalized."""
    pooling: PoolingMode | None = None
    dense: list[tuple[DenseConfig, Path]] = []
    for module in _json(folder / "modules.json")[1:]:
        kind, path = str(module["type"]).rsplit(".", 1)[-1], folder / module["path"]
        if kind == "Pooling":
            settings = _json(path / "config.json")
            marked = [key.removeprefix("pooling_mode_") for key in settings if key.startswith("pooling_mode_")]
            on = [key for key in marked if settings[f"pooling_mode_{key}"]]
            mode = settings.get("pooling_mode", on[0] if len(on) == 1 else on)  # since sentence-transformers 6
            if mode not in list(_POOLING):
                raise ValueError(f"pooling {mode!r} is not supported; supported: mean, cls, lasttoken")
            pooling = _POOLING[mode]
        elif kind == "Dense":
            config = _json(path / "config.json")
            activation = ACTIVATIONS[config["activation_function"]]
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


def _json(path: Path) -> Any:
    try:
        return orjson.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise InvalidCheckpoint(f"cannot read {path}: {error}") from None
