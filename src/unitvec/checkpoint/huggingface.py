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
from tokenizers import Tokenizer, normalizers

from unitvec.checkpoint import safetensors, shapes
from unitvec.checkpoint.checkpoint import Checkpoint, Details, Tensors
from unitvec.checkpoint.transformers_config import ARCHITECTURES, context_length, first_position, one_of
from unitvec.errors import InvalidCheckpoint
from unitvec.models.config import (
    Activation,
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
_DENSE_ACTIVATIONS: dict[str, Activation] = {
    "torch.nn.modules.linear.Identity": "identity",
    "torch.nn.modules.activation.Tanh": "tanh",
    "torch.nn.modules.activation.GELU": "gelu",
    "torch.nn.modules.activation.ReLU": "relu",
    "torch.nn.modules.activation.SiLU": "silu",
}
_PREFIXES = ("model.", "bert.", "roberta.")  # of weights that were saved with a head around them
_UNUSED = ("pooler.", "cls.", "lm_head.", "embeddings.position_ids")  # heads, and what is no weight
_COMPUTED = "rotary_emb.inv_freq"  # older checkpoints carry it along
_TABLES: dict[str, TableType] = {"F16": "float16", "BF16": "bfloat16"}
_SETTINGS = tuple(f"sentence_{kind}_config.json" for kind in ("bert", "roberta", "xlm-roberta"))


def read(folder: Path) -> Checkpoint:
    """A model folder, as ``SentenceTransformer.save`` writes it.

    Raises:
        InvalidCheckpoint: a file is missing or damaged, or the model is of a kind that cannot be run.
    """
    config = _object(folder / "config.json")
    architecture = config.get("model_type")
    if not isinstance(architecture, str) or architecture not in ARCHITECTURES:
        raise InvalidCheckpoint(
            f"{folder}: architecture {str(architecture)[:80]!r} is not supported; "
            f"supported are embedding models of {', '.join(ARCHITECTURES)}"
        )
    if not (folder / "modules.json").exists():
        raise InvalidCheckpoint(f"{folder}: it has no modules.json, so it does not say how texts become vectors")
    stored = _weights(folder)
    table = next((weight.kind for name, weight in stored.items() if name.endswith(_EMBEDDINGS)), "")
    try:
        transformer = replace(ARCHITECTURES[architecture](config), table=_TABLES.get(table, "float32"))
        pooling, dense = _heads(_json(folder / "modules.json"), folder)
        spec = ModelSpec(transformer, pooling, tuple(head for head, _ in dense))
        context, first = context_length(config), first_position(config)
        settings = next((_object(path) for name in _SETTINGS if (path := folder / name).exists()), {})
        max_length = _max_length(folder, settings)
    except KeyError as error:
        raise InvalidCheckpoint(f"{folder}: its settings lack {str(error)[:80]}") from None
    except (ArithmeticError, AttributeError, TypeError, ValueError) as error:
        raise InvalidCheckpoint(f"{folder}: its settings: {error}") from None
    made = {name: _array(name, weight, transformer) for name, weight in stored.items()}
    found = {name: weight.stored.shape for name, weight in stored.items()}
    if first and (name := "embeddings.position_embeddings.weight") in made:
        rows = made[name]
        made[name] = lambda: rows()[first:]
        found[name] = (max(0, found[name][0] - first), *found[name][1:])
    for number, (_, path) in enumerate(dense):
        head = {f"dense.{number}.{name}": weight for name, weight in _file(path / "model.safetensors").items()}
        made |= {name: weight.widened for name, weight in head.items()}
        found |= {name: weight.stored.shape for name, weight in head.items()}
    try:
        shapes.check(spec, found)
    except ValueError as error:
        raise InvalidCheckpoint(f"{folder}: {error}") from None
    tokenizer = folder / "tokenizer.json"
    if not tokenizer.exists():
        raise InvalidCheckpoint(f"cannot read tokenizer {tokenizer}: it is missing")
    return Checkpoint(
        spec=spec,
        tensors=Tensors(made),
        make_tokenizer=partial(_tokenizer, tokenizer, lowercase=bool(settings.get("do_lower_case"))),
        context_length=context,
        max_length=max_length,
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
    where: dict[str, str] = {}
    if index.exists() and not (folder / "model.safetensors").exists():
        where = _object(index).get("weight_map", {})
        if not isinstance(where, dict) or not all(
            isinstance(file, str) and Path(file).name == file for file in where.values()
        ):
            raise InvalidCheckpoint(f"damaged weights index {index}")
    weights: dict[str, _Weight] = {}
    for file in sorted(set(where.values())) or ["model.safetensors"]:
        stored = _file(folder / file)
        if lost := [name for name, told in where.items() if told == file and name not in stored]:
            raise InvalidCheckpoint(f"damaged weights file {folder / file}: it lacks {lost[0][:80]!r}")
        for name, weight in stored.items():
            bare = next((name.removeprefix(prefix) for prefix in _PREFIXES if name.startswith(prefix)), name)
            if bare.startswith(_UNUSED) or bare.endswith(_COMPUTED):
                continue
            if bare in weights:
                raise InvalidCheckpoint(f"{folder}: it has the weight {bare[:80]!r} twice")
            weights[bare] = weight
    return weights


def _max_length(folder: Path, settings: dict[str, Any]) -> int | None:
    """Where sentence-transformers cuts texts: by its own setting, or by the tokenizer's."""
    path = folder / "tokenizer_config.json"
    length = settings.get("max_seq_length")
    if length is None and path.exists():
        length = _object(path).get("model_max_length")
    return int(length) if isinstance(length, int | float) and length >= 1 else None


def _heads(modules: list[dict[str, Any]], folder: Path) -> tuple[PoolingMode, list[tuple[DenseConfig, Path]]]:
    """What ``modules.json`` puts behind the transformer; Normalize at its end is left out, every answer is normalized.

    Raises:
        KeyError, TypeError, ValueError: it is damaged, or puts there what is not supported.
    """
    pooling: PoolingMode | None = None
    dense: list[tuple[DenseConfig, Path]] = []
    kinds = [str(module["type"]).rsplit(".", 1)[-1] for module in modules]
    # Modules that do nothing to an answer: it is normalized anyway, and nothing is dropped but in training.
    while kinds[-1:] in (["Normalize"], ["Dropout"]):
        kinds.pop()
    if kinds[:2] != ["Transformer", "Pooling"] or set(kinds[2:]) - {"Dense"}:
        raise ValueError(
            f"the modules {', '.join(kinds)[:200]} are not supported; supported: Transformer, Pooling, any number of "
            "Dense, Normalize"
        )
    for kind, module in zip(kinds[1:], modules[1:], strict=False):
        path = folder / module["path"]
        settings = _object(path / "config.json")
        if kind == "Pooling":
            pooling = _pooling(settings)
        else:
            dense.append((_dense(settings), path))
    assert pooling is not None
    return pooling, dense


def _pooling(settings: dict[str, Any]) -> PoolingMode:
    marked = [key.removeprefix("pooling_mode_") for key in settings if key.startswith("pooling_mode_")]
    on = [key for key in marked if settings[f"pooling_mode_{key}"]]
    mode = settings.get("pooling_mode", on[0] if len(on) == 1 else on)  # since sentence-transformers 6
    return one_of(_POOLING, "pooling", mode)


def _dense(settings: dict[str, Any]) -> DenseConfig:
    for name in ("module_input_name", "module_output_name"):
        if settings.get(name) not in (None, "sentence_embedding"):
            raise ValueError(f"Dense with {name} {str(settings[name])[:80]!r} is not supported")
    if settings.get("use_residual"):
        raise ValueError("Dense with use_residual is not supported")
    # What the settings do not say is Tanh.
    activation = settings.get("activation_function", "torch.nn.modules.activation.Tanh")
    return DenseConfig(
        int(settings["in_features"]),
        int(settings["out_features"]),
        bool(settings.get("bias", True)),
        one_of(_DENSE_ACTIVATIONS, "Dense with the activation", activation),
    )


def _tokenizer(path: Path, *, lowercase: bool) -> Tokenizer:
    try:
        tokenizer = Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises nothing narrower
        raise InvalidCheckpoint(f"cannot read tokenizer {path}: {' '.join(str(error).split())[:200]}") from None
    if lowercase:
        given = tokenizer.normalizer
        tokenizer.normalizer = normalizers.Sequence([normalizers.Lowercase(), *([given] if given else [])])
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def _json(path: Path) -> Any:
    try:
        return orjson.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise InvalidCheckpoint(f"cannot read {path}: {error}") from None


def _object(path: Path) -> dict[str, Any]:
    content = _json(path)
    if not isinstance(content, dict):
        raise InvalidCheckpoint(f"cannot read {path}: it is not a JSON object")
    return content
